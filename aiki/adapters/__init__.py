"""Adapters: the ports, on a technology each. Nobody but the bootstrap picks one."""
