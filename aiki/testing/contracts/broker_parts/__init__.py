"""The broker's contract, by what it is about. ``aiki.testing.contracts.broker`` puts it together."""
