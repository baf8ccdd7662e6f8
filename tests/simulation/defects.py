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


DEFECTS = (
    Defect(
        "an order is sent again under the same pair",
        "aiki/engine/dispatching.py",
        "        pair=Pair(run.pair.epoch + 1, moment.token),",
        "        pair=run.pair if recovering and run.pair.epoch else Pair(run.pair.epoch + 1, moment.token),",
        "1",
    ),
    Defect(
        "a dispatch is not bound to its first holder",
        "aiki/engine/dispatching.py",
        "    return Decision(run, refused=True)\n\n\ndef awaits_elsewhere",
        "    return dispatched(run, event.id, moment)\n\n\ndef awaits_elsewhere",
        "1",
    ),
    Defect(
        "two workers may hold one dispatch",
        "aiki/engine/holding.py",
        "    if event.pair != run.pair or run.holder not in (None, event.worker):\n        return fence(run, event)",
        "    if event.pair != run.pair:\n        return fence(run, event)",
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
        "the epoch is not checked",
        "aiki/engine/holding.py",
        "    return event.pair == run.pair and run.holder == event.worker",
        "    return True",
        "3",
    ),
    Defect(
        "the cache survives a new subscription and a redelivery",
        "aiki/orchestrator/partition.py",
        "self._cache.clear()",
        "pass",
        "5",
    ),
    Defect(
        "what is refused is not looked at again",
        "aiki/orchestrator/fold.py",
        "        return bool(self.refused or self.failed)",
        "        return False",
        "5",
    ),
    Defect(
        "entries of an older epoch count",
        "aiki/adapters/store/embedded/runs.py",
        "          AND (seq <= runs.base_seq OR journal.epoch = runs.epoch)",
        "",
        "6",
    ),
    Defect(
        "a gap in what a holder says is not noticed",
        "aiki/engine/holding.py",
        "    if [entry.seq for entry in new] != [*expected] or any",
        "    if any",
        "7",
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
        "orders are sent before they are stored",
        "aiki/orchestrator/partition.py",
        "        settled = await self._settle(groups, again=again)",
        "        settled = await self._settle(groups, again=False)",
        "2",
    ),
    Defect(
        "a run rests though what it waits for is there",
        "aiki/engine/holding.py",
        "    return due or run.cancel_requested is not None or any(wakes(run.waits, item) for item in run.inbox)",
        "    return due or run.cancel_requested is not None",
        "10",
    ),
    Defect(
        "a client's event counts each time",
        "aiki/engine/decide.py",
        "    if isinstance(event, _CLIENT_EVENTS) and event.id in run.seen:",
        "    if isinstance(event, _CLIENT_EVENTS) and event.id == '':",
        "17",
    ),
    Defect(
        "a lost connection is nothing to the runs that were held",
        "aiki/worker/service.py",
        "                abandoned = self._crew.abandon(leased=False)",
        "                abandoned = ()",
        "DESIGN 4",
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
        "a commit is not conditional on the revision",
        "aiki/adapters/store/embedded/runs.py",
        "        guard = (storable_text(before.run_id), before.revision, storable_text(before.incarnation))",
        "        (there,) = connection.execute('SELECT revision FROM runs WHERE run_id = ?', (before.run_id,)).fetchone()\n"
        "        guard = (storable_text(before.run_id), there, storable_text(before.incarnation))",
        "9, revision",
    ),
    Defect(
        "timers are not loaded with a partition",
        "aiki/orchestrator/timers.py",
        "        self._loads_at = self._clock.now()\n        self._changed.set()",
        "        self._loads_at = self._loads_at + timedelta(days=1)",
        "9",
    ),
)
