"""The workflows that are measured, as handlers of Restate: the same tasks, in the same order, as `bench.workflows`.

granian serves this module, in an environment that has the extra `beside`; nothing else imports it.
"""

import restate

__all__ = ["app"]

bench = restate.Service("Bench")


async def add(n: int) -> int:
    """Add one, as the task of Aiki's side does."""
    return n + 1


@bench.handler()
async def three_steps(ctx: restate.Context, start: int) -> int:
    """Three steps, one after the other: each is recorded before the next begins."""
    number = start
    for _ in range(3):
        number = await ctx.run_typed("add", add, n=number)
    return number


@bench.handler()
async def fan_out(ctx: restate.Context, width: int) -> int:
    """Many steps side by side."""
    added = await restate.gather(*(ctx.run_typed("add", add, n=number) for number in range(width)))
    return sum([await one for one in added])


app = restate.app(services=[bench])
