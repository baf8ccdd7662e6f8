"""What is executed in a simulation: small workflows whose outcome is known, whatever happens to who executes them."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiki.engine.retry import exponential, fixed
from aiki.errors import TaskFailedError
from aiki.sdk.context import TaskContext
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow

__all__ = [
    "ELSEWHERE",
    "NOT_CANCELLED",
    "TASKS",
    "UNHEARD",
    "WORKFLOWS",
    "Job",
    "draw_jobs",
    "recorder",
    "witness",
]

ELSEWHERE = "elsewhere"
"""The queue of the tasks that other workers execute."""

NOT_CANCELLED = "not cancelled"
"""What comes of a run that was to be cancelled if nobody cancels it."""

UNHEARD = "unheard"
"""What comes of a run that works until it hears something, if nobody says it."""

witness: ContextVar[Callable[[TaskContext], None]] = ContextVar("witness", default=lambda context: None)
"""Who is told of each second that a long attempt goes on."""

recorder: ContextVar[Callable[[TaskContext], None]] = ContextVar("recorder", default=lambda context: None)
"""Who is told of each attempt that begins."""


class BusyError(Exception):
    """Not this time."""


@task
async def double(context: TaskContext, value: int, seconds: float = 0.01) -> int:
    """Double *value*, slowly."""
    recorder.get()(context)
    await asyncio.sleep(seconds)
    return value * 2


@task
def triple(context: TaskContext, value: int) -> int:
    """Triple *value*, in a thread."""
    recorder.get()(context)
    return value * 3


@task(retry=exponential(max_attempts=4, base_delay=0.1, factor=3.0))
async def stubborn(context: TaskContext, refusals: int) -> int:
    """Fail *refusals* times; tells at which attempt it did not."""
    recorder.get()(context)
    await asyncio.sleep(0.005)
    if context.attempt <= refusals:
        raise BusyError(f"attempt {context.attempt}")
    return context.attempt


@task(retry=fixed(max_attempts=2, delay=0.3))
async def hopeless(context: TaskContext) -> None:
    """Fail always."""
    recorder.get()(context)
    raise BusyError(f"attempt {context.attempt}")


@task(queue=ELSEWHERE, retry=fixed(max_attempts=3, delay=0.2))
async def remote(context: TaskContext, value: int) -> int:
    """Double *value* on another worker, at the second attempt where it is odd."""
    recorder.get()(context)
    await asyncio.sleep(0.02)
    if value % 2 and context.attempt == 1:
        raise BusyError("odd")
    return value * 2


@task
async def echo(context: TaskContext, thing: Any) -> Any:
    """Give back what was given."""
    recorder.get()(context)
    return thing


@task
async def toil(context: TaskContext, seconds: int) -> int:
    """Work for long, and show every second that it still does."""
    recorder.get()(context)
    for _ in range(seconds):
        await asyncio.sleep(1.0)
        witness.get()(context)
    return seconds


@task
async def poison(context: TaskContext) -> int:
    """End the process that executes it, until somebody has looked into it: the recorder sees to that."""
    recorder.get()(context)
    await asyncio.sleep(0.02)
    return 7


@workflow(version="1")
async def sequence(run: Run, value: int, steps: int) -> int:
    """One task after the other."""
    for number in range(steps):
        value = await (triple.run(run, value) if number % 3 == 2 else double.run(run, value))
    return value


@workflow(version="1")
async def fan(run: Run, values: list[int]) -> list[int]:
    """Tasks side by side, then one that depends on all."""
    doubled = await asyncio.gather(*(double.run(run, value, 0.01 * (value % 5)) for value in values))
    return [*doubled, await double.run(run, sum(doubled))]


@workflow(version="1")
async def nap(run: Run, seconds: float) -> int:
    """A task, a sleep, a task."""
    value = await double.run(run, 1)
    await asyncio.sleep(seconds)
    return await double.run(run, value)


@workflow(version="1")
async def patient(run: Run, refusals: int) -> int:
    """A task that is tried again."""
    return await stubborn.run(run, refusals)


@workflow(version="1")
async def failing(run: Run) -> None:
    """A run that fails."""
    await double.run(run, 1)
    await hopeless.run(run)


@workflow(version="1")
async def forgiving(run: Run) -> int:
    """A run that finds another way."""
    try:
        await hopeless.run(run)
    except TaskFailedError:
        return await double.run(run, 21)
    return 0


@workflow(version="1")
async def approval(run: Run) -> int:
    """Two words from outside, and a task after each."""
    first = await double.run(run, await run.wait_for_signal("word", int))
    return 10 * first + await double.run(run, await run.wait_for_signal("word", int))


@workflow(version="1")
async def deadline(run: Run, seconds: float) -> str:
    """Something that takes too long."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(seconds + 600)
    except TimeoutError:
        return f"late {await double.run(run, 1)}"
    return "in time"


@workflow(version="1")
async def race(run: Run, seconds: list[float]) -> list[int]:
    """What is asked for next depends on what came first: each result is doubled as soon as it is there."""
    waiting = {asyncio.ensure_future(double.run(run, number, pause)) for number, pause in enumerate(seconds)}
    order: list[int] = []
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in sorted(one.result() // 2 for one in done):
            order.append(one)
            await double.run(run, 1000 + 100 * len(order) + one)
    return order


@workflow(version="1")
async def stamped(run: Run) -> list[str]:
    """What a run makes up is the same in every replay, or the tasks would be others."""
    made = [str(run.uuid()), str(run.random.random()), run.now().isoformat()]
    await double.run(run, len(made[0]) + int(float(made[1]) * 1000))
    await asyncio.sleep(0.4)
    made.append(run.now().isoformat())
    await double.run(run, int(run.now().timestamp() * 1000) % 1_000_003)
    return made


@workflow(version="1")
async def family(run: Run, values: list[int]) -> list[int]:
    """Child runs side by side, and a task."""
    children = await asyncio.gather(*(sequence.run(run, value, 2) for value in values))
    return [*children, await double.run(run, len(children))]


@workflow(version="1")
async def delegating(run: Run, values: list[int]) -> list[int]:
    """Tasks on other workers."""
    return list(await asyncio.gather(*(remote.run(run, value) for value in values)))


@workflow(version="1")
async def marathon(run: Run, value: int, steps: int, seconds: float) -> int:
    """Tasks that take long, so that the run goes on under a lease."""
    for _ in range(steps):
        value = await double.run(run, value, seconds)
    return value


@workflow(version="1")
async def hedging(run: Run) -> list[int]:
    """Something is given up and asked for again; both times it has to be known which of the two is meant."""
    results: list[int] = []
    for number in range(2):
        first = asyncio.ensure_future(double.run(run, 5, 0.5))
        results.append(await double.run(run, number))
        first.cancel()
        results.append(await double.run(run, 5, 0.5))
        await asyncio.sleep(0.3)
    return results


@workflow(version="1")
async def tended(run: Run, steps: int) -> int:
    """Tasks and sleeps, while somebody lets the run rest and go on."""
    value = 1
    for _ in range(steps):
        value = await double.run(run, value)
        await asyncio.sleep(0.3)
    return value


@workflow(version="1")
async def cancellable(run: Run) -> str:
    """A run that cleans up when it is cancelled, and takes its time for that."""
    try:
        await double.run(run, 1)
        await asyncio.sleep(900)
    except asyncio.CancelledError:
        await double.run(run, 2)
        await asyncio.sleep(0.4)
        await double.run(run, 3)
        await asyncio.sleep(0.4)
        return "clean"
    return NOT_CANCELLED


@workflow(version="1")
async def vigil(run: Run, seconds: int) -> str:
    """One long attempt, which somebody calls off."""
    await toil.run(run, seconds)
    return NOT_CANCELLED


@workflow(version="1")
async def listening(run: Run, seconds: int) -> str:
    """One long attempt, until a word comes."""
    working, word = (asyncio.ensure_future(one) for one in (toil.run(run, seconds), run.wait_for_signal("word", int)))
    done, _ = await asyncio.wait({working, word}, return_when=asyncio.FIRST_COMPLETED)
    if word in done:
        working.cancel()
        return "heard"
    await word
    return UNHEARD


@workflow(version="1")
async def shifts(run: Run, steps: int, seconds: int) -> int:
    """Long attempts, between which somebody lets the run rest for long."""
    return sum([await toil.run(run, seconds) for _ in range(steps)])


@workflow(version="1")
async def poisonous(run: Run) -> int:
    """A run that ends its workers, until it is redriven."""
    return await double.run(run, await double.run(run, 1) + await poison.run(run))


@workflow(version="1")
async def courier(run: Run, things: Any) -> list[Any]:
    """Whatever can be said comes through unchanged: as an argument, as a result, and in what is recorded."""
    first = await echo.run(run, things)
    await asyncio.sleep(0.3)
    return [first, await echo.run(run, [first, things])]


WORKFLOWS: tuple[Workflow[..., Any], ...] = (
    sequence,
    fan,
    nap,
    patient,
    failing,
    forgiving,
    approval,
    deadline,
    race,
    stamped,
    family,
    delegating,
    marathon,
    hedging,
    tended,
    cancellable,
    poisonous,
    courier,
    vigil,
    listening,
    shifts,
)
TASKS = (remote,)


Word = tuple[str, Any]
"""What a client says to a run: what the handle calls it, and what goes with it."""


@dataclass(slots=True, eq=False)
class Job:
    """A run that a client wants, what must come of it, and how far the client has got."""

    number: int
    workflow: Workflow[..., Any]
    arguments: tuple[Any, ...]
    fits: Callable[[Any], bool]
    """Whether a result is right."""
    fails: bool = False
    says: tuple[Word, ...] = ()
    """What its client has to say to it."""
    ends_cancelled: bool = False
    """Whether it may be cancelled before it has begun."""
    again: int = 0
    """How often it is asked for once more, under the same key, when it is over and forgotten."""
    pause: float = 0.0
    """Seconds that its client lets pass between two words, at most."""
    options: dict[str, Any] = field(default_factory=dict)

    run_id: str | None = None
    """Set once the run was accepted."""
    is_stored: bool = False
    """The client knows that it was stored, not only that the broker has it."""
    is_saying: bool = False
    is_unsure: bool = False
    """One of them may have been said twice: its client died, or gave up, while it was under way."""
    is_parted: bool = False
    """The broker lost its data between two of them: what a frozen process still has of the first may come last."""
    said: int = 0
    """How many of them were confirmed."""
    heard: int = 0
    """How often a client heard the right outcome."""

    is_cured: bool = False
    """Somebody has looked into why it was buried."""

    def ask_again(self) -> None:
        """Begin once more."""
        self.again -= 1
        self.run_id, self.said, self.is_saying = None, 0, False

    @property
    def is_forgotten_soon(self) -> bool:
        """Whether its run is gone soon after its end, heard of or not."""
        return "retention" in self.options

    @property
    def is_over(self) -> bool:
        """Whether nothing more is wanted of it."""
        return bool(self.heard) and not self.again

    def is_right(self, result: Any, *, in_vain: bool) -> bool:
        """Whether *result* is what has to come of it, or may if its cancellation was *in vain*."""
        if in_vain and result == NOT_CANCELLED:
            return self.ends_cancelled
        if self.is_parted and result == _OTHER_ORDER:
            return True
        return self.fits(result) or (self.is_unsure and result in _OTHER_WORDS)


# What an approval makes of 6 and 5.
_OTHER_ORDER = 130

# What an approval makes of 5 and 5, 6 and 5, 6 and 6: where one word was lost with a broker, both are said again.
_OTHER_WORDS = (110, _OTHER_ORDER, 132)


def _is(expected: Any) -> Callable[[Any], bool]:
    return lambda result: bool(result == expected)


def _sequence(random: Random) -> dict[str, Any]:
    value, steps = random.randint(1, 50), random.randint(1, 6)
    expected = value
    for number in range(steps):
        expected *= 3 if number % 3 == 2 else 2
    return {"workflow": sequence, "arguments": (value, steps), "fits": _is(expected)}


def _fan(random: Random) -> dict[str, Any]:
    values = [random.randint(0, 9) for _ in range(random.randint(2, 5))]
    doubled = [value * 2 for value in values]
    return {"workflow": fan, "arguments": (values,), "fits": _is([*doubled, sum(doubled) * 2])}


def _nap(random: Random) -> dict[str, Any]:
    return {"workflow": nap, "arguments": (random.choice((0.1, 0.5, 3.0, 20.0, 70.0)),), "fits": _is(4)}


def _patient(random: Random) -> dict[str, Any]:
    refusals = random.randint(1, 3)
    return {"workflow": patient, "arguments": (refusals,), "fits": _is(refusals + 1)}


def _failing(random: Random) -> dict[str, Any]:
    return {"workflow": failing, "arguments": (), "fits": _is(None), "fails": True}


def _forgiving(random: Random) -> dict[str, Any]:
    return {"workflow": forgiving, "arguments": (), "fits": _is(42)}


def _approval(random: Random) -> dict[str, Any]:
    return {"workflow": approval, "arguments": (), "fits": _is(10 * 2 * 5 + 2 * 6), "says": (("send", 5), ("send", 6))}


def _deadline(random: Random) -> dict[str, Any]:
    return {"workflow": deadline, "arguments": (random.choice((0.1, 1.0, 10.0)),), "fits": _is("late 2")}


def _race(random: Random) -> dict[str, Any]:
    seconds = [random.choice((0.001, 0.02, 0.05)) for _ in range(random.randint(2, 4))]
    expected = list(range(len(seconds)))
    return {"workflow": race, "arguments": (seconds,), "fits": lambda result: sorted(result) == expected}


def _stamped(random: Random) -> dict[str, Any]:
    return {"workflow": stamped, "arguments": (), "fits": lambda result: len(result) == 4 and result[2] <= result[3]}


def _family(random: Random) -> dict[str, Any]:
    values = [random.randint(1, 9) for _ in range(random.randint(1, 3))]
    return {
        "workflow": family,
        "arguments": (values,),
        "fits": _is([*(value * 4 for value in values), len(values) * 2]),
    }


def _delegating(random: Random) -> dict[str, Any]:
    values = [random.randint(1, 9) for _ in range(random.randint(1, 3))]
    return {"workflow": delegating, "arguments": (values,), "fits": _is([value * 2 for value in values])}


def _marathon(random: Random) -> dict[str, Any]:
    value, steps = random.randint(1, 50), random.randint(6, 11)
    seconds = random.choice((3.0, 9.0, 13.0, 13.0))
    return {"workflow": marathon, "arguments": (value, steps, seconds), "fits": _is(value * 2**steps)}


def _hedging(random: Random) -> dict[str, Any]:
    return {"workflow": hedging, "arguments": (), "fits": _is([0, 10, 2, 10])}


def _tended(random: Random) -> dict[str, Any]:
    steps = random.randint(2, 5)
    says = (("pause", None), ("resume", None)) * random.randint(1, 2)
    return {"workflow": tended, "arguments": (steps,), "fits": _is(2**steps), "says": says, "pause": 0.5}


def _cancellable(random: Random) -> dict[str, Any]:
    return {
        "workflow": cancellable,
        "arguments": (),
        "fits": _is("clean"),
        "says": (("cancel", None),),
        "pause": 1.0,
        "ends_cancelled": True,
    }


def _poisonous(random: Random) -> dict[str, Any]:
    return {"workflow": poisonous, "arguments": (), "fits": _is(18), "recoveries_max": random.choice((0, 1, 2))}


_THINGS: tuple[Any, ...] = (
    None,
    True,
    -0.0,
    2**80,
    1e300,
    "",
    "\x00\x7f \N{SNOWMAN}\N{GRINNING FACE}",
    {"": [{}], "$set": {"a.b": 1}, "\x00": 1},
    [[[[[[[[[]]]]]]]]],
)


def _courier(random: Random) -> dict[str, Any]:
    things = random.sample(_THINGS, random.randint(2, 6))
    return {"workflow": courier, "arguments": (things,), "fits": _is([things, [things, things]])}


def _vigil(random: Random) -> dict[str, Any]:
    return {
        "workflow": vigil,
        "arguments": (random.choice((30, 200, 200)),),
        "fits": _is(NOT_CANCELLED),
        "says": (("cancel", None),),
        "pause": random.choice((2.0, 20.0, 60.0)),
        "ends_cancelled": True,
    }


def _listening(random: Random) -> dict[str, Any]:
    return {
        "workflow": listening,
        "arguments": (random.choice((30, 200, 200)),),
        "fits": lambda result: result in ("heard", UNHEARD),
        "says": (("send", 5),),
        "pause": random.choice((2.0, 20.0, 60.0)),
    }


def _shifts(random: Random) -> dict[str, Any]:
    steps, seconds = random.choice(((12, 12), (20, 8)))
    return {
        "workflow": shifts,
        "arguments": (steps, seconds),
        "fits": _is(steps * seconds),
        "says": (("pause", None), ("resume", None)),
        "pause": 120.0,
    }


_KINDS: Mapping[str, Callable[[Random], dict[str, Any]]] = {
    "sequence": _sequence,
    "fan": _fan,
    "nap": _nap,
    "patient": _patient,
    "failing": _failing,
    "forgiving": _forgiving,
    "approval": _approval,
    "deadline": _deadline,
    "race": _race,
    "stamped": _stamped,
    "family": _family,
    "delegating": _delegating,
    "marathon": _marathon,
    "hedging": _hedging,
    "tended": _tended,
    "cancellable": _cancellable,
    "poisonous": _poisonous,
    "courier": _courier,
    "vigil": _vigil,
    "listening": _listening,
    "shifts": _shifts,
}

# What takes long is drawn only where it is asked for.
_LONG = frozenset({"vigil", "listening", "shifts"})

RETENTION_SECONDS = 1.0
"""How long a run is kept whose key is used again."""


def draw_jobs(random: Random, preferred: Mapping[str, int], numbers: tuple[int, ...]) -> list[Job]:
    """Draw what clients want in one simulation; *preferred* workflows that much more often than the others."""
    names = list(_KINDS)
    weights = [(name not in _LONG) + preferred.get(name, 0) for name in names]
    return [_job(random, number, random.choices(names, weights)[0]) for number in range(random.choice(numbers))]


def _job(random: Random, number: int, kind: str) -> Job:
    facts = _KINDS[kind](random)
    options: dict[str, Any] = {}
    again = 0
    if random.random() < 0.4:
        options["idempotency_key"] = f"job-{number}"
        if random.random() < 0.3:
            options["retention"], again = RETENTION_SECONDS, 1
    elif random.random() < 0.3:
        options["confirm"] = "stored"
    patience = facts.pop("recoveries_max", 1000 if random.random() < 0.7 else random.choice((1, 2, 3)))
    options["recoveries_max"] = patience
    return Job(number, **facts, options=options, again=again)
