"""Stores: MongoDB for deployments, SQLite for a single process. Both keep the contract of ``aiki.ports.store``."""
