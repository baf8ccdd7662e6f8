"""Chaos: real processes on real clusters, broken on purpose from one seed, and what they did checked afterwards."""
