"""Deterministic simulation: the real code, on a simulated network, broker and store, in virtual time, from one seed."""
