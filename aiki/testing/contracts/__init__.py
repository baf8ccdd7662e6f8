"""What an adapter must keep, as tests: one suite for each port, run by all of its adapters."""
