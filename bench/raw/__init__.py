"""The limit: the messages and writes of W1 with no engine behind them, as plain calls of the drivers.

Three processes, as in Aiki: a client, one that consumes events and writes, one that consumes commands. They speak
through the same exchanges and quorum queues, declared from the same topology, and wait for the same confirms and the
same majority. What is left out is everything that Aiki does between two calls: nothing is decided, encoded, replayed
or remembered. Messages and documents have the sizes of Aiki's; a message says in its first bytes what it is.

What packs and reads AMQP frames is the lowest layer of the adapter: there is no cheaper way to use this driver.
"""
