"""How fast Aiki is, measured: `make bench`, or `python -m bench --help`. See README.md here."""
