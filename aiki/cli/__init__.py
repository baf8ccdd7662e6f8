"""The command line: thin over the client; it decides nothing itself."""
