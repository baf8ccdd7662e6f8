# ruff: noqa: E501 - the code that is broken is quoted as it stands
"""Defects to seed: each takes away one thing that a promise rests on. The simulation has to notice every one."""

from dataclasses import dataclass

__all__ = ["DEFECTS", "Defect"]


@dataclass(frozen=True, slots=True)
class Defect:
    """A change of the code that breaks it."""

    name: str
    path: str
    before: str
    after: str
    rule: str
    """What it breaks, of the rules of the design."""
    also: tuple[tuple[str, str], ...] = ()
    """Further changes of the same file, without which the first makes no difference."""

    def applied_to(self, text: str) -> str:
        """Break *text*, the content of the file.

        Raises:
            LookupError: the code has changed, and so must the defect.
        """
        for before, after in ((self.before, self.after), *self.also):
            if before not in text:
                raise LookupError(f"{self.path} has no {before!r}")
            text = text.replace(before, after)
        return text


DEFECTS = (
    Defect(
        "an order is sent again under the same pair",
        "aiki/engine/dispatching.py",
        "        pair=Pair(run.pair.epoch + 1, moment.token),",
        "        pair=run.pair if recovering and run.pair.epoch else Pair(run.pair.epoch + 1, moment.token),",
        "1",
    ),
    Defect(
        "a cause that comes again is believed to have been sent",
        "aiki/engine/decide.py",
        "    marker = doubt(run, moment)\n    if not isinstance",
        "    marker: tuple[()] = ()\n    if not isinstance",
        "2",
    ),
    Defect(
        "a redelivered order is executed",
        "aiki/worker/crew.py",
        "            case ExecuteRun() as command if delivery.redelivered:",
        "            case ExecuteRun() as command if False:",
        "2, DESIGN 4",
    ),
    Defect(
        "an end that was told is not told again",
        "aiki/engine/holding.py",
        "    if run.status.is_final:\n        return Decision(run, commands=outcome(run, moment))\n    if run.status is not RunStatus.RUNNING:\n        return Decision(run)\n    return None",
        "    if run.status is not RunStatus.RUNNING:\n        return Decision(run)\n    return None",
        "8",
    ),
    Defect(
        "events are acknowledged before they are stored",
        "aiki/orchestrator/consumer.py",
        "                await self._handle(part)\n                await subscription.acknowledge(part)",
        "                await subscription.acknowledge(part)\n                await self._handle(part)",
        "DESIGN 1",
    ),
    Defect(
        "a run rests though what it waits for is there",
        "aiki/engine/holding.py",
        "    return due or run.cancel_requested is not None or any(wakes(run.waits, item) for item in run.inbox)",
        "    return due or run.cancel_requested is not None",
        "10",
    ),
    Defect(
        "a command is acknowledged before the run has ended",
        "aiki/worker/holding.py",
        "        try:\n            workflow = self._surroundings.registry.workflow(",
        "        await self._acknowledge()\n        try:\n            workflow = self._surroundings.registry.workflow(",
        "DESIGN 1",
    ),
    Defect(
        "what was not confirmed is not sent again",
        "aiki/sdk/publisher.py",
        "            for letter in batch:\n                letter.perhaps_sent = True\n            return _try_again(lane, error)",
        "            _confirm(lane)\n            return True",
        "DESIGN 3",
    ),
    Defect(
        "timers are not loaded with a partition",
        "aiki/orchestrator/timers.py",
        "        self._loads_at = self._clock.now()\n        self._changed.set()",
        "        self._loads_at = self._loads_at + timedelta(days=1)",
        "9",
    ),
    Defect(
        "a marker dispatches whatever has come before it",
        "aiki/engine/dispatching.py",
        "    return Decision(run, refused=True)\n\n\ndef awaits_elsewhere",
        "    return dispatched(run, event.id, moment)\n\n\ndef awaits_elsewhere",
        "2",
    ),
    Defect(
        "a cause that comes again is never unsent",
        "aiki/orchestrator/partition.py",
        "        settled = await self._settle(groups, again=again)",
        "        settled = await self._settle(groups, again=False)",
        "2",
    ),
    Defect(
        "outcomes are handed out in another order than they came",
        "aiki/worker/history.py",
        "self._consume(heappop(self._consumable))",
        "self._consume(self._consumable.pop())",
        "12",
    ),
    Defect(
        "a workflow sees what is not confirmed yet",
        "aiki/worker/machine.py",
        "                self._publish(batch.events, partial(self._on_confirmed, batch))",
        "                asyncio.ensure_future(self._host.publish(batch.events))\n                self._on_confirmed(batch)",
        "13",
    ),
    Defect(
        "a resumed run does not learn what time it is",
        "aiki/worker/machine.py",
        "            self._recorder.learn(Fact(kind=EntryKind.CLOCK, at=self._now()))",
        "            pass",
        "13",
    ),
    Defect(
        "an orphan's order is acknowledged before it is reported",
        "aiki/worker/crew.py",
        "            await self._surroundings.publisher.publish(orphaned(command, self._surroundings))\n"
        "            await intake.acknowledge(delivery)",
        "            await intake.acknowledge(delivery)\n"
        "            await self._surroundings.publisher.publish(orphaned(command, self._surroundings))",
        "DESIGN 4",
    ),
)
