"""W1 and W2 on Aiki and on Restate in turn, on one machine.

`python -m bench.beside` starts both with everything they need, alternates their rounds and prints the figures side by
side. Restate is what its own packages install; nothing of it is needed to import anything here but `service`.
"""
