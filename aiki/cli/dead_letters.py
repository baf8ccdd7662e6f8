"""`aiki dead-letters list|show|redrive|discard`: what could not be delivered, decoded, applied or survived."""

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aiki.cli.output import draw, now, print_json, remark
from aiki.cli.session import with_client
from aiki.cli.shapes import letter_shape
from aiki.cli.wording import ago, shorten
from aiki.engine.queries import DeadLetterPage, StoredDeadLetter
from aiki.sdk.client import Client

__all__ = ["discard", "list_letters", "redrive", "show"]

# A few screens; `--json` has all of it.
_BODY_MAX = 8000


def list_letters(include_done: bool, limit: int, cursor: str | None, as_json: bool, url: str | None) -> None:
    """List dead letters, newest first."""

    async def read(client: Client) -> DeadLetterPage:
        return await client.dead_letters(limit=limit, cursor=cursor, include_done=include_done)

    page = with_client(read, url=url)
    if as_json:
        print_json({"letters": [letter_shape(letter) for letter in page.letters], "cursor": page.cursor})
        return
    if not page.letters:
        remark("no dead letters")
        return
    draw(_table(page.letters))
    if page.cursor is not None:
        remark(f"more: --cursor {page.cursor}")


def show(letter_id: str, as_json: bool, url: str | None) -> None:
    """Show a letter: why it is there, and the original message."""

    async def read(client: Client) -> StoredDeadLetter:
        return await client.dead_letter(letter_id)

    stored = with_client(read, url=url)
    if as_json:
        print_json(letter_shape(stored))
    else:
        draw(_drawing(stored))


def redrive(letter_ids: tuple[str, ...], as_json: bool, url: str | None) -> None:
    """Send letters on their way again: a run goes on from where it ended, a message goes back to its queue."""

    async def send(client: Client) -> list[StoredDeadLetter]:
        return [await client.redrive(letter_id) for letter_id in letter_ids]

    _report(with_client(send, url=url), "on its way again:", as_json=as_json)


def discard(letter_ids: tuple[str, ...], as_json: bool, url: str | None) -> None:
    """Mark letters as done with."""

    async def mark(client: Client) -> list[StoredDeadLetter]:
        return [await client.discard(letter_id) for letter_id in letter_ids]

    _report(with_client(mark, url=url), "discarded:", as_json=as_json)


def _report(letters: Sequence[StoredDeadLetter], done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"letters": [letter_shape(letter) for letter in letters]})
    for stored in () if as_json else letters:
        remark(f"{done} {stored.letter.id}")


def _table(letters: Sequence[StoredDeadLetter]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("letter", "reason", "found in", "run", "since", "times", "state"):
        table.add_column(heading, no_wrap=heading in ("letter", "reason", "run", "since", "times", "state"))
    moment = now()
    for stored in letters:
        letter = stored.letter
        table.add_row(
            Text(letter.id),
            Text(letter.reason),
            Text(letter.origin),
            Text(letter.run_id or ""),
            ago(letter.at, now=moment),
            str(stored.times),
            stored.state,
        )
    return table


def _drawing(stored: StoredDeadLetter) -> RenderableType:
    letter, moment = stored.letter, now()
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    handled = f", {ago(stored.handled_at, now=moment)}" if stored.handled_at else ""
    rows = (
        ("letter", letter.id),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("found in", letter.origin),
        ("workflow", letter.workflow),
        ("run", letter.run_id),
        ("since", ago(letter.at, now=moment)),
        ("times", str(stored.times)),
        ("state", stored.state + handled),
    )
    for name, value in rows:
        if value:
            facts.add_row(name, Text(value))
    return Group(facts, "", Text(shorten(_readable(letter.body), _BODY_MAX), overflow="fold"))


def _readable(body: str) -> str:
    """Indent what is JSON; leave alone what is not, which may be why it is here."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body
