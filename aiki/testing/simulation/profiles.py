"""Profiles: what a simulation concentrates on.

Trouble that comes evenly hardly ever comes in the one order that matters. So each seed
belongs to a profile, which says what goes wrong more often, what is executed meanwhile, and
how many take part. Whatever the profile, everything has to hold.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from aiki.orchestrator.settings import OrchestratorSettings
from aiki.worker.surroundings import WorkerSettings

__all__ = ["PROFILES", "Circumstances", "Profile", "circumstances_of", "profile_of"]

# How long a run is held before it goes on under a lease, and how long that holds.
LONG, SHORT = (40.0, 30.0), (3.0, 6.0)

EVERYTHING: Mapping[str, int] = {
    "kill-before": 4,
    "kill-after": 6,
    "kill-other": 3,
    "lose-machine": 2,
    "freeze": 5,
    "disconnect": 3,
    "cut-off": 2,
    "break": 4,
    "lose-request": 3,
    "lose-answer": 5,
    "partly": 5,
    "twice": 3,
    "hold-up": 4,
    "restart-broker": 2,
    "wipe-broker": 2,
    "lose-store": 2,
    "step-clock": 1,
    "terminate": 3,
    "die-halfway": 2,
    "die-late": 2,
    "slow": 2,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of trouble."""

    name: str
    weight: int
    """How many seeds have it, relative to the others."""
    kinds: Mapping[str, int]
    """How often each kind of fault is drawn; with an aim, as ``partly@commit``."""
    numbers: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12)
    """How many faults there may be."""
    workflows: Mapping[str, int] = field(default_factory=dict)
    """What is executed more often than it would be."""
    orchestrators: tuple[int, ...] = (1, 2, 2, 3)
    workers: tuple[int, ...] = (1, 2, 2)
    partitions: tuple[int, ...] = (1, 2, 3)
    busy_share: float = 0.02
    """How often the network takes its time."""
    sweep_every: float | None = None
    """Seconds between two sweeps; ``None``: now and then none at all."""
    overdue_slack: float = 10.0
    """Seconds after which a sweep fires a timer."""
    late_max: float = math.inf
    """Seconds by which any timer may fire late, where that can be told."""
    lost_after: float = 300.0
    """Seconds after which a sweep doubts a dispatch."""
    leases: tuple[tuple[float, float], ...] = (LONG,)
    """How leases may be set."""
    clocks_apart: tuple[float, ...] = (1.0,)
    """Seconds by which a clock may be wrong at most, either way; those of orchestrators, by which leases go, by one."""
    slots: tuple[int, ...] = (5,)
    """How many runs a worker may execute side by side."""
    jobs: tuple[int, ...] = (1, 1, 2, 2, 3, 4)
    """How many runs clients may want."""
    arrivals: float = 0.2
    """Seconds within which clients ask for all of them."""
    trouble_seconds: float = 300.0
    """How long faults may go on before everything is put right."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How the processes of one simulation are set, and how right their clocks are."""

    profile: Profile
    worker: WorkerSettings
    orchestrator: OrchestratorSettings
    clocks_apart: float


PROFILES = (
    Profile("anything", 4, EVERYTHING, leases=(LONG, LONG, SHORT)),
    Profile(
        "leases",
        3,
        {
            "sever@lease": 4,
            "part@telling": 8,
            "disconnect@lease": 2,
            "lose-machine@lease": 2,
            "kill-after@lease": 2,
            "freeze@lease": 2,
            "slow@lease": 1,
            "lose-answer@lease": 1,
            "kill-after@start": 1,
        },
        numbers=(1, 2, 3, 4),
        workflows={"marathon": 2, "vigil": 8, "listening": 6, "shifts": 6, "poisonous": 1},
        leases=(SHORT,),
        clocks_apart=(1.0, 1.0, 1.0, 1.0, 40.0),
        slots=(1, 3, 4),
        jobs=(1, 1, 2, 3, 5, 24),
        arrivals=20.0,
        trouble_seconds=90.0,
    ),
    Profile(
        "neglect",
        2,
        {
            "lose-orders": 4,
            "lose-orders@fact": 1,
            "lose-holder@fact": 3,
            "lose-holder@start": 1,
            "lag@taken": 4,
            "lose-machine@fact": 1,
        },
        numbers=(1, 2, 3, 4),
        # No long attempts: by an owner whose clock is an hour behind, workers were present until an hour ago, and
        # whoever holds a run counts as gone in each sweep.
        workflows={"marathon": -1, "nap": 6, "sequence": 4, "tended": 2, "deadline": 3, "approval": 2},
        orchestrators=(2, 3),
        workers=(1, 2),
        sweep_every=3.0,
        overdue_slack=3.0,
        # The slack, two sweeps, and the clocks of two machines that are right.
        late_max=12.0,
        lost_after=8.0,
        leases=(LONG, SHORT),
        slots=(1, 1, 2),
        jobs=(3, 4, 6),
    ),
    Profile(
        "forgetting",
        1,
        {"wipe-broker@rest": 6, "wipe-broker@end": 2, "lose-answer@fact": 1},
        numbers=(1, 2, 2),
        workflows={"marathon": 1, "nap": 6, "tended": 8, "courier": 6, "stamped": 6, "hedging": 4},
        leases=(LONG, SHORT),
    ),
    Profile(
        "contested",
        3,
        {
            "disconnect@taken": 4,
            "disconnect@commit": 4,
            "hold-up@commit": 3,
            "die-late@commit": 3,
            "break@taken": 3,
            "slow@commit": 3,
            "freeze@commit": 2,
            "terminate@commit": 1,
        },
        numbers=(2, 4, 6, 8),
        workflows={"sequence": 6, "fan": 3, "race": 3, "marathon": 3},
        orchestrators=(2, 3),
        partitions=(1,),
    ),
    Profile(
        "zombies",
        2,
        {
            "hold-up@fact": 5,
            "die-late@fact": 5,
            "hold-up@end": 2,
            "die-late@end": 1,
            "hold-up@start": 1,
            "freeze@fact": 2,
            "cut-off@fact": 3,
            "disconnect@fact": 1,
        },
        numbers=(1, 2, 4, 6),
        workflows={"sequence": 4, "race": 4, "marathon": 6},
        workers=(2,),
    ),
    Profile(
        "copies",
        2,
        {
            "twice@order": 6,
            "slow@start": 2,
            "slow@commit": 4,
            "slow@fact": 1,
            "twice@fact": 1,
            "kill-after@fact": 1,
            "lose-answer@order": 2,
        },
        numbers=(2, 4, 6),
        workflows={"sequence": 3, "fan": 3, "race": 4, "marathon": 5},
        workers=(2, 3),
    ),
    Profile(
        "halves",
        2,
        {
            "die-halfway@lesson": 6,
            "die-halfway@commit": 2,
            "partly@lesson": 2,
            "partly@commit": 2,
            "lose-answer@commit": 2,
            "kill-after@taken": 1,
            "lose-request@timer": 2,
            "kill-before@timer": 1,
        },
        numbers=(1, 2, 4),
        workflows={"approval": 4, "delegating": 4, "family": 4, "nap": 4},
    ),
    Profile(
        "echoes",
        2,
        {
            "twice@word": 4,
            "hold-up@word": 4,
            "lose-answer@word": 4,
            "kill-after@word": 1,
            "kill-after@commit": 2,
            "hold-up@finish": 1,
            "twice@finish": 1,
            "kill-before@finish": 2,
        },
        numbers=(1, 2, 4),
        workflows={"approval": 4, "tended": 4, "cancellable": 4, "family": 1, "delegating": 1},
        sweep_every=3.0,
    ),
    Profile(
        "wipes",
        2,
        {
            "wipe-unheard@fact": 5,
            "wipe-late@commit": 5,
            "wipe-broker@fact": 1,
            "kill-after@commit": 1,
            "partly@commit": 1,
        },
        numbers=(1, 1, 2, 3),
        workflows={"marathon": 20, "fan": 2, "approval": 2, "delegating": 1},
    ),
    Profile(
        "losses",
        2,
        {
            "kill-after@fact": 6,
            "kill-before@fact": 2,
            "kill-after@start": 2,
            "kill-before@orphan": 3,
            "freeze@fact": 1,
            "terminate@fact": 1,
        },
        numbers=(2, 4, 8),
        workflows={"poisonous": 5, "sequence": 3, "race": 6, "marathon": 1},
        workers=(1, 2),
    ),
    Profile(
        "haste",
        2,
        {"lose-request@start": 5, "lose-request@fact": 3, "lose-request@end": 1, "lose-answer@start": 1},
        numbers=(1, 2, 4),
        workflows={"fan": 5, "sequence": 3},
        busy_share=0.6,
    ),
)


def profile_of(seed: int) -> Profile:
    """Tell what the simulation of *seed* concentrates on."""
    return Random(f"profile of {seed}").choices(PROFILES, [profile.weight for profile in PROFILES])[0]


def circumstances_of(seed: int) -> Circumstances:
    """Tell how the processes of the simulation of *seed* are set."""
    random, profile = Random(f"circumstances of {seed}"), profile_of(seed)
    lease_after, lease = random.choice(profile.leases)
    return Circumstances(
        profile,
        WorkerSettings(
            max_concurrent_runs=random.choice(profile.slots),
            shutdown_grace=2.0,
            lease_after=lease_after,
            lease=lease,
            alone_after=10.0,
        ),
        OrchestratorSettings(lost_after=profile.lost_after, overdue_slack=profile.overdue_slack),
        random.choice(profile.clocks_apart),
    )
