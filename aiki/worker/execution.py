"""The execution of one dispatch of a run, from its start to what the worker says last of it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiki.engine.commands import ExecuteRun, NotifyWorker, WorkerNotice
from aiki.engine.events import RunStarted
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.queries import GetJournal, JournalPage, QueryFailed
from aiki.errors import QueryFailedError, RunAbandonedError
from aiki.sdk.workflow import Workflow
from aiki.worker.facts import Fact
from aiki.worker.host import Host
from aiki.worker.machine import Machine
from aiki.worker.recorder import Recorder
from aiki.worker.voice import Voice

__all__ = ["Execution", "Host"]


class Execution:
    """Executes one dispatch of a run, and can be told to stop."""

    def __init__(self, command: ExecuteRun, workflow: Workflow[..., Any], host: Host) -> None:
        self._command = command
        self._workflow = workflow
        self._host = host
        self._machine: Machine | None = None
        self._notices: list[NotifyWorker] = []
        self._is_abandoned = False
        self._is_handing_back = False

    async def execute(self) -> None:
        """Execute the run until the last thing that this dispatch says of it is confirmed.

        Raises:
            RunAbandonedError: it was told to stop, by ``abandon`` or a ``FENCED`` notice.
            AikiError: what it had to say is not going to be confirmed, or its journal cannot be had.
        """
        command, host = self._command, self._host
        if self._is_abandoned:
            raise RunAbandonedError(command.run_id)
        voice, now = Voice(command, host), host.clock.now()
        started = asyncio.ensure_future(host.publish([voice.says(RunStarted, max(now, command.now))]))
        try:
            began_at = command.started_at or max(now, command.now)
            entries = await self._recorded()
            recorder = Recorder(command, host, entries, began_at=began_at)
            entries = [*entries, *await self._forgive(recorder)]
            if self._is_abandoned:
                raise RunAbandonedError(command.run_id)
            self._machine = Machine(command, self._workflow, host, entries, recorder, voice, began_at)
            await self._machine.run(started, notices=self._notices, grace=host.grace if self._is_handing_back else None)
        finally:
            if not started.cancel() and not started.cancelled():
                started.exception()  # Whoever had to hear of it has.

    def notify(self, notice: NotifyWorker) -> None:
        """Take what an orchestrator has to say about this dispatch."""
        if notice.notice is WorkerNotice.FENCED:
            self.abandon()
        elif self._machine is None:
            self._notices.append(notice)
        else:
            self._machine.notify(notice)

    def abandon(self) -> None:
        """Stop at once and record nothing more: the run is somebody else's."""
        self._is_abandoned = True
        if self._machine is not None:
            self._machine.abandon()

    def hand_back(self) -> None:
        """Start nothing new; give the run back when what is under way has ended, or the host's grace is over."""
        self._is_handing_back = True
        if self._machine is not None:
            self._machine.hand_back(self._host.grace)

    async def _recorded(self) -> list[JournalEntry]:
        command = self._command
        entries = list(command.journal[: command.base_seq])
        while len(entries) < command.base_seq:
            answer = await self._host.ask(GetJournal(run_id=command.run_id, after_seq=len(entries)))
            if isinstance(answer, QueryFailed):
                raise QueryFailedError("GetJournal", answer.reason)
            assert isinstance(answer, JournalPage)
            page = [entry for entry in answer.entries if len(entries) < entry.seq <= command.base_seq]
            if not page:
                raise QueryFailedError("GetJournal", f"run {command.run_id} has no entry after #{len(entries)}")
            entries.extend(page)
        return entries

    async def _forgive(self, recorder: Recorder) -> Sequence[JournalEntry]:
        """Record that the failures which ended the run are void, before anything is replayed."""
        now = self._host.clock.now()
        for operation in self._command.forgiven:
            recorder.learn(Fact(kind=EntryKind.RETRIED, at=now, label=operation))
        batch = recorder.take_batch(now)
        if batch.events:
            await self._host.publish(batch.events)
        return batch.entries
