# ruff: noqa: E501 - the code that is broken is quoted as it stands
"""Defects to seed: each takes away one thing that a promise rests on. The simulation has to notice every one.

All are looked for from seed 0 on. Where the window begins elsewhere, it is placed at a known hit to keep the suite
short, and a comment says so. How many seeds notice each is in docs/decisions/0015-the-simulation.md.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFECTS", "RULES", "UNSEEN", "Change", "Defect"]

RULES = range(1, 19)
"""Those that keep the promises, as the design numbers them."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one file."""

    path: str
    before: str
    after: str

    def applied_to(self, text: str) -> str:
        """Break *text*, the content of the file.

        Raises:
            LookupError: the code has changed, and so must the defect.
        """
        if self.before not in text:
            raise LookupError(f"{self.path} has no {self.before!r}")
        return text.replace(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Defect:
    """What breaks the code, and where that shows."""

    name: str
    rule: int | None
    """What it breaks, of the rules of the design; ``None``: another promise of it."""
    profile: str
    """The profile of the seeds that are tried."""
    seeds: str
    """A range of seeds, of which one that has the profile notices it."""
    changes: tuple[Change, ...]
    is_uncertain: bool = False
    """Whether it shows only when nobody knows what was written."""

    def broken(self, root: Path) -> dict[str, str]:
        """Break the files of *root*: gives their new contents by their paths."""
        texts: dict[str, str] = {}
        for change in self.changes:
            text = texts.get(change.path) or (root / change.path).read_text(encoding="utf-8")
            texts[change.path] = change.applied_to(text)
        return texts


DEFECTS = (
    Defect(
        "an order is sent again under the same pair",
        1,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/engine/dispatching.py",
                "        pair=Pair(run.pair.epoch + 1, moment.token),",
                "        pair=run.pair if recovering and run.pair.epoch else Pair(run.pair.epoch + 1, moment.token),",
            ),
        ),
    ),
    Defect(
        "a dispatch has as many holders as say so",
        1,
        "copies",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    return event.pair == run.pair and run.holder == event.worker",
                "    return event.pair == run.pair",
            ),
        ),
    ),
    Defect(
        "a second holder takes the place of the first",
        1,
        "copies",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    if event.pair != run.pair or run.holder not in (None, event.worker):\n        return fence(run, event)\n    if run.status is RunStatus.RUNNING:",
                "    if event.pair != run.pair:\n        return fence(run, event)\n    if run.status is RunStatus.RUNNING and run.holder == event.worker:",
            ),
            Change(
                "aiki/engine/holding.py",
                "    if run.status is not RunStatus.QUEUED:\n        # Paused",
                "    if run.status not in (RunStatus.QUEUED, RunStatus.RUNNING):\n        # Paused",
            ),
        ),
    ),
    Defect(
        "a cause that comes again is believed to have been sent",
        2,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/engine/decide.py",
                "    marker = doubt(run, moment)\n    if not isinstance",
                "    marker: tuple[()] = ()\n    if not isinstance",
            ),
        ),
    ),
    Defect(
        "a marker dispatches whatever has come before it",
        2,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/engine/dispatching.py",
                "    return Decision(run, refused=True)\n\n\ndef awaits_elsewhere",
                "    return dispatched(run, event.id, moment)\n\n\ndef awaits_elsewhere",
            ),
        ),
    ),
    Defect(
        "a cause that comes again is never unsent",
        2,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/partition.py",
                "self._settle(groups, again=again, ",
                "self._settle(groups, again=False, ",
            ),
        ),
    ),
    Defect(
        "a redelivered order is executed",
        2,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/worker/crew.py",
                "            case ExecuteRun() as command if delivery.redelivered:",
                "            case ExecuteRun() as command if False:",
            ),
        ),
    ),
    Defect(
        "the epoch of what a holder says is not looked at",
        3,
        "zombies",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    return event.pair == run.pair and run.holder == event.worker",
                "    return True",
            ),
            Change(
                "aiki/engine/holding.py",
                " or any(entry.epoch != run.pair.epoch for entry in entries):",
                ":",
            ),
        ),
    ),
    Defect(
        "whoever is refused is not told",
        3,
        "copies",
        "0..1000",
        (
            Change(
                "aiki/engine/dispatching.py",
                "    return Decision(run, commands=(notice,), refused=True)",
                "    return Decision(run, refused=True)",
            ),
        ),
    ),
    Defect(
        "a recovery counts whatever was learnt",
        4,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/engine/dispatching.py",
                "    is_loss = run.holder is not None and run.last_seq <= run.base_seq",
                "    is_loss = run.holder is not None",
            ),
            Change(
                "aiki/engine/dispatching.py",
                "    return 0 if run.last_seq > run.base_seq else run.recoveries",
                "    return run.recoveries",
            ),
        ),
    ),
    Defect(
        "a lost worker never counts",
        4,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/engine/dispatching.py",
                "    return _losses_so_far(run) + is_loss",
                "    return _losses_so_far(run)",
            ),
        ),
    ),
    Defect(
        "the cache survives a new subscription and a redelivery",
        5,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/partition.py",
                "self._cache.clear()",
                "pass",
            ),
        ),
    ),
    Defect(
        "what is refused from memory is refused for good",
        5,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/partition.py",
                "self._cache.clear()",
                "pass",
            ),
            Change(
                "aiki/orchestrator/partition.py",
                "        doubtful = {one.run_id for one in folded if one.is_doubtful} - loaded",
                "        doubtful: set[str] = set()",
            ),
        ),
    ),
    Defect(
        "a dispatch forgets how far the journal went",
        6,
        "anything",
        "0..1000",
        (
            Change(
                "aiki/engine/dispatching.py",
                "        base_seq=run.last_seq,",
                "        base_seq=run.base_seq,",
            ),
        ),
    ),
    Defect(
        "entries of an older epoch count",
        6,
        "wipes",
        "0..1000",
        (
            Change(
                "aiki/adapters/store/embedded/runs.py",
                "          AND (seq <= runs.base_seq OR journal.epoch = runs.epoch)\n",
                "",
            ),
            Change(
                "aiki/adapters/store/embedded/journal.py",
                "AND (seq <= ? OR epoch = ?)",
                "AND (seq <= ? OR epoch <= ?)",
            ),
        ),
        is_uncertain=True,
    ),
    Defect(
        "what was learnt by half is not learnt again",
        6,
        "halves",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/partition.py",
                "        found = await patience.insist(lambda: with_what_is_recorded(store, stored.values()))",
                "        found = stored",
            ),
        ),
        is_uncertain=True,
    ),
    Defect(
        "what an older epoch left behind is never replaced",
        6,
        "wipes",
        "0..1000",
        (
            Change(
                "aiki/adapters/store/rules.py",
                "    if there.epoch < entry.epoch and entry.seq > base_seq:\n        return Conflict.REPLACEABLE\n",
                "",
            ),
        ),
        is_uncertain=True,
    ),
    Defect(
        "a gap is not noticed",
        7,
        "wipes",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    if [entry.seq for entry in new] != [*expected] or any(",
                "    if any(",
            ),
        ),
    ),
    Defect(
        "events that are sent again change their order",
        7,
        "haste",
        "0..1000",
        (
            Change(
                "aiki/sdk/publisher.py",
                "        self.waiting.extendleft(reversed(self.flying))",
                "        self.waiting.extend(self.flying)",
            ),
        ),
    ),
    Defect(
        "an end that was told is not told again",
        8,
        "echoes",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "        return fence(run, event)\n    if run.status.is_final:\n        return Decision(run, commands=outcome(run, moment))\n    if run.status is not RunStatus.RUNNING:\n        return Decision(run)\n",
                "        return fence(run, event)\n    if run.status is not RunStatus.RUNNING:\n        return Decision(run)\n",
            ),
            Change(
                "aiki/engine/holding.py",
                "    said_again = outcome(run, moment) if run.status.is_final else ()",
                "    said_again: tuple[()] = ()",
            ),
        ),
    ),
    Defect(
        "a task that was given to others is not given again",
        8,
        "halves",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    if decision.run is None or not is_under_way(decision.run, event.task_id):",
                "    if decision.run is None or decision.run.last_seq == run.last_seq:",
            ),
        ),
    ),
    Defect(
        "timers are not loaded with a partition",
        9,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/timers.py",
                "        self._loads_at = self._clock.now()\n        self._changed.set()",
                "        self._loads_at = self._loads_at + timedelta(days=1)",
            ),
        ),
    ),
    Defect(
        "a timer that was not sent is forgotten",
        9,
        "halves",
        "0..2000",
        (
            Change(
                "aiki/orchestrator/timers.py",
                "            await self._broker.send(events, timeout=self._settings.send_timeout)\n            self._stats.timers_fired += len(due)\n            for timer in due:\n                self._note_fired(timer)",
                "            for timer in due:\n                self._note_fired(timer)\n            await self._broker.send(events, timeout=self._settings.send_timeout)",
            ),
        ),
    ),
    Defect(
        "a run rests though what it waits for is there",
        10,
        "echoes",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    return due or run.cancel_requested is not None or any(wakes(run.waits, item) for item in run.inbox)",
                "    return due or run.cancel_requested is not None",
            ),
        ),
    ),
    Defect(
        "a worker goes by its own clock alone",
        10,
        "anything",
        "0..1000",
        (
            Change(
                "aiki/worker/machine.py",
                "        self._clock_offset = max(timedelta(), command.now - host.clock.now())",
                "        self._clock_offset = timedelta()",
            ),
        ),
    ),
    Defect(
        "an event that failed twice is dropped",
        11,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/adapters/broker/memory/queues.py",
                "        waiting = list(self._ready)\n",
                "        messages = [message for message in messages if not (message.redelivered and self._single_active)]\n        waiting = list(self._ready)\n",
            ),
        ),
    ),
    Defect(
        "outcomes are handed out in another order than they came",
        12,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/worker/history.py",
                "self._consume(heappop(self._consumable))",
                "self._consume(self._consumable.pop())",
            ),
        ),
    ),
    Defect(
        "what is new begins before what led to it is confirmed",
        13,
        "zombies",
        "0..1000",
        (
            Change(
                "aiki/worker/machine.py",
                "            self._publish(batch.events, partial(self._on_confirmed, batch))",
                "            asyncio.ensure_future(self._host.publish(batch.events))\n            self._on_confirmed(batch)",
            ),
        ),
    ),
    Defect(
        "a resumed run does not learn what time it is",
        13,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/worker/machine.py",
                "            self._recorder.learn(Fact(kind=EntryKind.CLOCK, at=self._now()))",
                "            pass",
            ),
        ),
    ),
    Defect(
        "what was cancelled does not keep its number",
        14,
        "losses",
        # Begun at 0, it is noticed by the fourth seed of the profile, after twenty seconds.
        "240..1240",
        (
            Change(
                "aiki/worker/replay.py",
                "        self.pending.pop(operation.id, None)\n        if not",
                "        self.pending.pop(operation.id, None)\n        self._counts[operation.id.rpartition('#')[0]] -= 1\n        if not",
            ),
        ),
    ),
    Defect(
        "a payload passes through a string of the store",
        15,
        "anything",
        "0..1000",
        (
            Change(
                "aiki/codec/documents.py",
                'def text_of(stored: str | bytes) -> str:\n    """Read what ``storable_text`` wrote."""\n    return stored',
                'def text_of(stored: str | bytes) -> str:\n    """Read what ``storable_text`` wrote."""\n    return stored.encode(\'ascii\', \'replace\').decode()',
            ),
        ),
    ),
    Defect(
        "a forgotten run leaves its journal",
        16,
        "echoes",
        "0..1000",
        (
            Change(
                "aiki/adapters/store/embedded/runs.py",
                "        remove_journal(connection, run_id, incarnation)\n",
                "",
            ),
        ),
    ),
    Defect(
        "the end of a forgotten run is that of the next one under its key",
        16,
        "echoes",
        "0..1000",
        (
            Change(
                "aiki/sdk/outcomes.py",
                "            interest.reopen(None)  #",
                "            pass  #",
            ),
        ),
    ),
    Defect(
        "a client's event counts each time",
        17,
        "echoes",
        "0..1000",
        (
            Change(
                "aiki/engine/decide.py",
                "    if isinstance(event, _CLIENT_EVENTS) and event.id in run.seen:",
                "    if isinstance(event, _CLIENT_EVENTS) and event.id == '':",
            ),
        ),
    ),
    Defect(
        "each attempt on another worker has the id of the first",
        18,
        "anything",
        "0..1000",
        (
            Change(
                "aiki/worker/machine.py",
                "source=id_of(command.run_id, command.incarnation, operation.id, launch),",
                "source=id_of(command.run_id, command.incarnation, operation.id, 1),",
            ),
        ),
    ),
    Defect(
        "events are acknowledged before they are stored",
        None,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/consumer.py",
                "                await self._handle(part)\n                await subscription.acknowledge(part)",
                "                await subscription.acknowledge(part)\n                await self._handle(part)",
            ),
        ),
    ),
    Defect(
        "a command is acknowledged before the run has ended",
        None,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/worker/holding.py",
                "        try:\n            workflow = self._surroundings.registry.workflow(",
                "        await self._acknowledge()\n        try:\n            workflow = self._surroundings.registry.workflow(",
            ),
        ),
    ),
    Defect(
        "what was not confirmed is not sent again",
        None,
        "haste",
        "0..1000",
        (
            Change(
                "aiki/sdk/publisher.py",
                "            for letter in batch:\n                letter.perhaps_sent = True\n            return _try_again(lane, error)",
                "            _confirm(lane)\n            return True",
            ),
        ),
    ),
    Defect(
        "an orphan's order is acknowledged before it is reported",
        None,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/worker/crew.py",
                "Delivery[WorkerCommand]) -> None:\n        try:\n            await self._surroundings.publisher.publish(event)\n            await intake.acknowledge(delivery)",
                "Delivery[WorkerCommand]) -> None:\n        try:\n            await intake.acknowledge(delivery)\n            await self._surroundings.publisher.publish(event)",
            ),
        ),
    ),
    Defect(
        "a commit is not conditional on the revision",
        None,
        "contested",
        "0..1000",
        (
            Change(
                "aiki/adapters/store/embedded/runs.py",
                'WHERE run_id = ? AND revision = ? AND incarnation = ?"',
                'WHERE run_id = ? AND ? AND incarnation = ?"',
            ),
        ),
        is_uncertain=True,
    ),
    Defect(
        "a run under suspicion has company",
        4,
        "losses",
        "0..1000",
        (
            Change(
                "aiki/worker/gate.py",
                "        return not self._alone and (self._inside == 0 or not alone)",
                "        return True",
            ),
        ),
    ),
    Defect(
        "a rest with a gap before it counts",
        7,
        "forgetting",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    if event.last_seq != run.last_seq:\n        return superseded(run, event, moment)\n\n    # A holder",
                "    # A holder",
            ),
        ),
    ),
    Defect(
        "what came while an order waited is not said",
        8,
        "leases",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    return tuple(notices)",
                "    return ()",
            ),
        ),
    ),
    Defect(
        "no sweep fires what is overdue",
        9,
        "neglect",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/repair.py",
                "        await self._fire_overdue()\n",
                "",
            ),
        ),
    ),
    Defect(
        "no sweep gives a lost order again",
        None,
        "neglect",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/repair.py",
                "        await self._doubt_lost()\n",
                "",
            ),
        ),
    ),
    Defect(
        "no sweep looks for holders",
        None,
        "neglect",
        "0..1000",
        (
            Change(
                "aiki/orchestrator/repair.py",
                "        await self._doubt_held()\n",
                "",
            ),
        ),
    ),
    Defect(
        "a lease is not stored",
        None,
        "leases",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "    return Decision(replace(run, lease_until=moment.now + lease))",
                "    return Decision(run)",
            ),
        ),
    ),
    Defect(
        "whoever lost a lease goes on",
        None,
        "leases",
        "0..1000",
        (
            Change(
                "aiki/worker/holding.py",
                '                self._log.error("run.lease_lost")\n                self.abandon()\n',
                '                self._log.error("run.lease_lost")\n',
            ),
        ),
    ),
    Defect(
        "a lease goes by the clock of its holder",
        None,
        "leases",
        "0..1000",
        (
            Change(
                "aiki/engine/holding.py",
                "lease_until=moment.now + lease",
                "lease_until=event.until",
            ),
        ),
    ),
    Defect(
        "a worker that was away does not ask what was said",
        None,
        "leases",
        "0..1000",
        (
            Change(
                "aiki/worker/service.py",
                "                self._crew.catch_up()\n",
                "",
            ),
        ),
    ),
    Defect(
        "what stopped subscriptions hold does not count",
        None,
        "leases",
        "0..1000",
        (
            Change(
                "aiki/worker/session.py",
                "        return self._missing - sum(intake.held for intake in self._intakes if intake.is_stopped)",
                "        return self._missing",
            ),
        ),
    ),
)

UNSEEN = (
    # An end travels in one message with the last of what its run has learnt, so a gap is found by that, before the end is
    # looked at. None of 500 seeds of "forgetting" noticed it.
    Defect(
        "an end with a gap before it counts",
        7,
        "forgetting",
        "0..400",
        (
            Change(
                "aiki/engine/holding.py",
                "    return None if event.last_seq == run.last_seq else superseded(run, event, moment)",
                "    return None",
            ),
        ),
    ),
    # Whoever loads a run lets it take over what only its journal knows (decision 0021), so nothing is left to learn from
    # what is said again. What differs is a notice to a holder that is refused at the next thing it says anyway.
    Defect(
        "what is recorded of a run at rest is refused",
        8,
        "halves",
        "0..400",
        (
            Change(
                "aiki/engine/holding.py",
                "    return is_unheld and bool(entries) and all(entry.seq <= run.last_seq for entry in entries)",
                "    return False",
            ),
        ),
    ),
    # The owner of the partition keeps the timer of every run that it stores, and fires one that is due at once: the run
    # goes on a moment later, by another event.
    Defect(
        "a run rests though its time has come",
        10,
        "neglect",
        "0..400",
        (
            Change(
                "aiki/engine/holding.py",
                "    return due or run.cancel_requested is not None or any",
                "    return run.cancel_requested is not None or any",
            ),
        ),
    ),
)
"""Defects that no simulation can notice, each with the reason. What they take away is tested where it stands."""
