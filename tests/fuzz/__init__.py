"""Hostile and broken input: whatever comes in, a value comes out or the one error that was promised."""
