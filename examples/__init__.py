"""Examples: small applications to read, to run and to copy from."""
