"""What the dead letters and the presences promise."""

from dataclasses import replace

from aiki.engine.queries import StoredDeadLetter
from aiki.ports.store import Presence, Store
from aiki.testing.contracts.store_parts.values import a_letter, at

__all__ = ["LettersContract", "PresenceContract"]


async def listed(store: Store, *, include_done: bool = False) -> list[str]:
    page = await store.dead_letters(limit=100, cursor=None, include_done=include_done)
    return [stored.letter.id for stored in page.letters]


class LettersContract:
    """Dead letters: kept, listed, handled, and never dropped."""

    async def test_a_letter_is_read_as_it_was_parked(self, store: Store) -> None:
        letter = a_letter("one", run_id="run-1", workflow="greet", detail="line 1\0\ud800", body='{"a": "\\u0000"}')
        await store.add_dead_letters([letter])

        assert await store.dead_letter("one") == StoredDeadLetter(letter=letter)
        assert await store.dead_letter("two") is None

    async def test_the_same_parking_told_again_counts_once(self, store: Store) -> None:
        letter = a_letter("one")
        await store.add_dead_letters([letter, letter])
        await store.add_dead_letters([letter])
        await store.add_dead_letters([])

        assert await store.dead_letter("one") == StoredDeadLetter(letter=letter)

    async def test_a_letter_that_comes_back_counts_once_more_and_is_parked_again(self, store: Store) -> None:
        await store.add_dead_letters([a_letter("one", detail="first")])
        await store.handle_dead_letter("one", "redriven", at=at(5))
        back = a_letter("one", seconds=9, detail="second")
        await store.add_dead_letters([back])

        assert await store.dead_letter("one") == StoredDeadLetter(letter=back, times=2)
        assert await listed(store) == ["one"]

    async def test_what_was_told_long_ago_does_not_open_a_case_again(self, store: Store) -> None:
        await store.add_dead_letters([a_letter("one")])
        handled = await store.handle_dead_letter("one", "discarded", at=at(5))
        await store.add_dead_letters([a_letter("one")])

        assert await store.dead_letter("one") == handled

    async def test_what_was_done_about_a_letter_is_noted(self, store: Store) -> None:
        letter = a_letter("one")
        await store.add_dead_letters([letter])

        redriven = StoredDeadLetter(letter=letter, state="redriven", handled_at=at(5))
        assert await store.handle_dead_letter("one", "redriven", at=at(5)) == redriven
        assert await store.dead_letter("one") == redriven
        discarded = StoredDeadLetter(letter=letter, state="discarded", handled_at=at(6))
        assert await store.handle_dead_letter("one", "discarded", at=at(6)) == discarded
        assert await store.handle_dead_letter("two", "discarded", at=at(6)) is None
        assert await store.dead_letter("two") is None

    async def test_letters_are_listed_until_they_are_handled(self, store: Store) -> None:
        await store.add_dead_letters([a_letter("old"), a_letter("new", seconds=2), a_letter("done", seconds=1)])
        await store.handle_dead_letter("done", "discarded", at=at(5))

        assert await listed(store) == ["new", "old"]
        assert await listed(store, include_done=True) == ["new", "done", "old"]

    async def test_letters_are_counted_until_they_are_handled(self, store: Store) -> None:
        assert await store.count_dead_letters(limit=10) == 0
        await store.add_dead_letters([a_letter(name) for name in ("one", "two", "three", "done")])
        await store.handle_dead_letter("done", "discarded", at=at(5))

        assert await store.count_dead_letters(limit=10) == 3
        assert await store.count_dead_letters(limit=2) == 2

    async def test_pages_hold_every_letter_once(self, store: Store) -> None:
        names = [f"letter-{number}" for number in range(7)]
        await store.add_dead_letters([a_letter(name, seconds=number // 3) for number, name in enumerate(names)])

        found: list[str] = []
        cursor: str | None = None
        for _ in range(4):
            page = await store.dead_letters(limit=2, cursor=cursor, include_done=False)
            found += [stored.letter.id for stored in page.letters]
            cursor = page.cursor

        assert cursor is None
        assert found == sorted(names, reverse=True)

    async def test_of_a_message_that_fits_no_document_the_beginning_is_kept(self, store: Store) -> None:
        huge = a_letter("huge", body="🙂" * 5_000_000, detail="why")
        await store.add_dead_letters([huge, a_letter("other")])

        kept = await store.dead_letter("huge")
        assert kept is not None
        assert huge.body.startswith(kept.letter.body)
        assert "of 5,000,000 characters" in kept.letter.detail
        assert kept.letter.detail.endswith("why")
        assert await store.dead_letter("other") is not None


class PresenceContract:
    """Who is there, and for how long."""

    async def test_who_announced_itself_is_there_until_that_expires(self, store: Store) -> None:
        here = Presence("o-1", "orchestrator", {"host": "a", "partitions": [1, 2]}, at(30))
        await store.announce(here)

        assert await store.present("orchestrator", now=at(29)) == [here]
        assert await store.present("worker", now=at(29)) == []
        assert await store.present("orchestrator", now=at(30)) == []

    async def test_an_announcement_renews_the_one_before(self, store: Store) -> None:
        first = Presence("w-1", "worker", {"busy": 0}, at(30))
        await store.announce(first)
        renewed = Presence("w-1", "worker", {"busy": 5}, at(60))
        await store.announce(renewed)

        assert await store.present("worker", now=at(45)) == [renewed]

    async def test_who_announces_its_end_is_gone(self, store: Store) -> None:
        there = Presence("w-1", "worker", {}, at(30))
        other = Presence("w-2", "worker", {}, at(30))
        await store.announce(there)
        await store.announce(other)
        await store.announce(replace(there, expires_at=at(10)))

        assert await store.present("worker", now=at(10)) == [other]

    async def test_facts_are_whatever_json_can_say(self, store: Store) -> None:
        facts = {"$a.b": {"": [None, 2**80, 1.5, "\ud800\0"]}, "ü\0": True}
        await store.announce(Presence("w-1", "worker", facts, at(30)))

        assert (await store.present("worker", now=at(1)))[0].facts == facts
