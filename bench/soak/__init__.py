"""The soak: mixed work with faults every few seconds, for as long as one likes, and what grows meanwhile.

Two pairs of orchestrator and worker share the work. One pair is killed, stopped and started again all the
time; the other one, the veterans, loses its connections and its servers but never its memory, so whatever
leaks shows in it. `python -m bench.soak --help` tells how to run it.
"""
