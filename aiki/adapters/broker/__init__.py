"""Brokers: one in this process, one behind a socket, and RabbitMQ."""
