"""For tests, of Aiki and of what is built on it: servers, clocks, builders, contracts."""
