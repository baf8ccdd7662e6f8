"""Answering: everybody but the orchestrators reads the store through here."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import assert_never

from aiki.codec.messages import encode_answer
from aiki.engine.changing import replace
from aiki.engine.ids import partition_of
from aiki.engine.queries import (
    Answer,
    DeadLetterFound,
    DiscardDeadLetter,
    FindRuns,
    GetDeadLetter,
    GetJournal,
    GetRun,
    GetStats,
    JournalPage,
    ListDeadLetters,
    PresenceNoted,
    Query,
    QueryFailed,
    RedriveDeadLetter,
    ReportPresence,
    RunFound,
    RunPage,
    Stats,
    StoredDeadLetter,
)
from aiki.engine.state import RunState
from aiki.errors import AikiError, BrokerError, PayloadTooLargeError
from aiki.observability import get_logger
from aiki.orchestrator.journals import cut
from aiki.orchestrator.letters import redrive_of
from aiki.orchestrator.services import Services
from aiki.ports.broker import Delivery, Request, Subscription
from aiki.ports.store import Presence

__all__ = ["QueryAnswerer"]

log = get_logger(__name__)

_PREFETCH = 50
_PAGE_MAX = 1_000
_ANSWER_BYTES_MAX = 4 * 1024 * 1024  # Half of what a message may take. A page of one may take all of it.
_ITEM_BYTES_MAX = 128 * 1024 * 1024  # No document that a store keeps is longer, however it is quoted.
_LETTERS_COUNTED_MAX = 1_000  # Whoever has more knows enough.


class QueryAnswerer:
    """Answers queries from the store, several at a time. One that cannot be answered is told why."""

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._store = services.store
        self._clock = services.clock
        self._settings = services.settings
        self._counters = services.stats

    async def subscribe(self) -> Subscription[Request]:
        """Take queries."""
        return await self._broker.consume_queries(prefetch=_PREFETCH)

    async def handle(self, deliveries: Sequence[Delivery[Request]]) -> None:
        """Answer what has arrived; returns when all of it is answered."""
        await asyncio.gather(*(self._respond(delivery.body) for delivery in deliveries))

    async def _respond(self, request: Request) -> None:
        answer = await self.answer(request.query)
        try:
            await self._send(request, answer)
        except BrokerError as error:
            # Whoever asked hears of the lost connection, too, and asks again.
            log.info("query.not_answered", query=request.query.type, error=error.message)
        else:
            self._counters.queries_answered += 1

    async def _send(self, request: Request, answer: Answer) -> None:
        try:
            await self._broker.answer(request, answer)
        except PayloadTooLargeError as error:
            shorter = _without_payloads(answer)
            if shorter is None:
                await self._broker.answer(request, QueryFailed(reason=error.message))
            else:
                await self._send(request, shorter)

    async def answer(self, query: Query) -> Answer:
        """Answer *query*; what goes wrong becomes the answer."""
        try:
            async with asyncio.timeout(self._settings.query_timeout):
                return await self._answer(query)
        except AikiError as error:
            return QueryFailed(reason=error.message)
        except TimeoutError:
            return QueryFailed(reason=f"the store did not answer within {self._settings.query_timeout:g} s")
        except Exception as error:
            log.exception("query.failed", query=query.type)
            return QueryFailed(reason=f"{type(error).__name__}: {error}")

    async def _answer(self, query: Query) -> Answer:
        match query:
            case GetRun():
                return RunFound(run=(await self._store.load([query.run_id])).get(query.run_id))
            case FindRuns():
                return await self._find(query)
            case GetJournal():
                return await self._journal(query)
            case GetStats():
                return await self._stats()
            case ListDeadLetters():
                return await self._letters(query)
            case GetDeadLetter():
                return DeadLetterFound(letter=await self._store.dead_letter(query.letter_id))
            case RedriveDeadLetter():
                return await self._redrive(query)
            case DiscardDeadLetter():
                return DeadLetterFound(
                    letter=await self._store.handle_dead_letter(query.letter_id, "discarded", at=self._clock.now())
                )
            case ReportPresence():
                return await self._note_presence(query)
            case _:
                assert_never(query)

    async def _find(self, query: FindRuns) -> Answer:
        page = await self._store.find(query.filter, limit=_bounded(query.limit), cursor=query.cursor)
        fitting = _fitting(RunFound(run=run) for run in page.runs)
        if fitting < len(page.runs):  # The cursor of a shorter page is the store's to make.
            page = await self._store.find(query.filter, limit=fitting, cursor=query.cursor)
        return page

    async def _journal(self, query: GetJournal) -> Answer:
        run = (await self._store.load([query.run_id])).get(query.run_id)
        if run is None:
            return JournalPage(entries=())
        limit = _bounded(query.limit)
        entries = await self._store.journal(run, after_seq=query.after_seq, limit=limit)
        page = cut(entries, entries_max=limit, bytes_max=_ANSWER_BYTES_MAX) or entries[:1]
        complete = len(page) == len(entries) < limit or not page or page[-1].seq >= run.last_seq
        return JournalPage(entries=tuple(page), complete=complete)

    async def _stats(self) -> Answer:
        now = self._clock.now()
        orchestrators = await self._store.present("orchestrator", now=now)
        workers = await self._store.present("worker", now=now)
        return Stats(
            runs=await self._store.count(),
            orchestrators=tuple({"id": presence.id, **presence.facts} for presence in orchestrators),
            workers=tuple({"id": presence.id, **presence.facts} for presence in workers),
            dead_letters=await self._store.count_dead_letters(limit=_LETTERS_COUNTED_MAX),
        )

    async def _letters(self, query: ListDeadLetters) -> Answer:
        read, cursor, all_of_them = self._store.dead_letters, query.cursor, query.include_done
        page = await read(limit=_bounded(query.limit), cursor=cursor, include_done=all_of_them)
        fitting = _fitting(DeadLetterFound(letter=letter) for letter in page.letters)
        if fitting < len(page.letters):
            page = await read(limit=fitting, cursor=cursor, include_done=all_of_them)
        return page

    async def _redrive(self, query: RedriveDeadLetter) -> Answer:
        stored = await self._store.dead_letter(query.letter_id)
        if stored is None:
            return DeadLetterFound(letter=None)
        # Noted after it was sent: a crash in between leaves the letter parked, and sending it again counts once.
        if stored.letter.run_id is None:
            await self._broker.redeliver(stored.letter, timeout=self._settings.query_timeout)
        else:
            await self._retry(stored, stored.letter.run_id)
        log.info("dead_letter.redriven", letter_id=query.letter_id, run_id=stored.letter.run_id)
        now = self._clock.now()
        return DeadLetterFound(letter=await self._store.handle_dead_letter(query.letter_id, "redriven", at=now))

    async def _retry(self, stored: StoredDeadLetter, run_id: str) -> None:
        event = redrive_of(stored, run_id, self._clock.now())
        partition = partition_of(run_id, self._broker.partitions)
        await self._broker.publish_events(partition, [event], timeout=self._settings.query_timeout)

    async def _note_presence(self, report: ReportPresence) -> Answer:
        now = self._clock.now()
        presence = Presence(
            id=report.worker,
            kind="worker",
            facts={
                "queues": list(report.queues),
                "slots": report.slots,
                "busy": report.busy,
                "host": report.host,
                "process_id": report.process_id,
                "started_at": report.started_at.isoformat(),
            },
            expires_at=now + timedelta(seconds=report.seconds if report.seconds > 0 else -1),
        )
        await self._store.announce(presence)
        return PresenceNoted()


def _without_payloads(answer: Answer) -> Answer | None:
    """Leave out of runs what their inboxes bring, so that one that holds too much can be looked at all the same.

    ``None``: there is nothing to leave out.
    """
    shorter = answer
    if isinstance(answer, RunFound) and answer.run is not None:
        shorter = replace(answer, run=_with_empty_items(answer.run))
    elif isinstance(answer, RunPage):
        shorter = replace(answer, runs=tuple(map(_with_empty_items, answer.runs)))
    return None if shorter == answer else shorter


def _with_empty_items(run: RunState) -> RunState:
    return replace(run, inbox=tuple(replace(item, payload=None, failure=None) for item in run.inbox))


def _fitting(items: Iterable[Answer]) -> int:
    """Count how many of *items* fit one answer as it will be sent: JSON in JSON is escaped, and grows up to sixfold.

    One of them always goes: a page of none would have no end.
    """
    size = count = 0
    for item in items:
        size += len(encode_answer(item, bytes_max=_ITEM_BYTES_MAX))
        if size > _ANSWER_BYTES_MAX and count:
            break
        count += 1
    return count


def _bounded(limit: int) -> int:
    return min(max(limit, 1), _PAGE_MAX)
