"""Aiki: durable workflows in plain async Python, on RabbitMQ and MongoDB."""
