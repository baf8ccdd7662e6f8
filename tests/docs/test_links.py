"""Links of the documentation lead somewhere, and what it names exists."""

import re
from urllib.parse import unquote

import pytest

from aiki.config import Settings
from broker_topology import (
    RETRY_GRID_MS,
    control_queue,
    notice_queue,
    partition_queue,
    retry_name,
    topology,
)
from tests.docs.pages import PAGES, ROOT, Page, page

ALL = [*PAGES, *(Page(ROOT / name) for name in ("CHANGELOG.md", "CONTRIBUTING.md", "deploy/README.md"))]

# Read by the command line itself, before there are settings.
OTHER_VARIABLES = {"AIKI_COMPARISONS", "AIKI_DEBUG"}


@pytest.mark.parametrize("page", ALL, ids=str)
def test_every_relative_link_resolves(page: Page) -> None:
    for link in page.links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.file.parent / path).resolve() if path else page.file

        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{page.name} links out of the project: {link}"
        if anchor:
            assert anchor in Page(target).anchors, f"{page.name} links to {link}, which has no such heading"


def test_every_page_can_be_found_from_the_readme() -> None:
    found, ahead = set(), [ROOT / "README.md"]
    while ahead:
        file = ahead.pop()
        if file in found or file.suffix != ".md":
            continue
        found.add(file)
        links = (link.partition("#")[0] for link in Page(file).links if "://" not in link)
        ahead += [(file.parent / link).resolve() for link in links if link]

    assert {page.file for page in ALL} <= found


@pytest.mark.parametrize("page", ALL, ids=str)
def test_every_variable_that_is_named_is_a_setting(page: Page) -> None:
    known = {f"AIKI_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES

    assert set(re.findall(r"\bAIKI_[A-Z_]*[A-Z]", page.text)) <= known


@pytest.mark.parametrize("page", ALL, ids=str)
def test_every_queue_and_exchange_that_is_named_is_one_of_the_topology(page: Page) -> None:
    layout = topology(256)
    known = {queue.name for queue in layout.queues} | {exchange.name for exchange in layout.exchanges}
    known |= {retry_name(delay) for delay in RETRY_GRID_MS}

    for name in re.findall(
        r"`(aiki\.(?:events|commands|retry|notices|control|queries|dead)[\w.-]*[\w*]|aiki\.dead)`", page.prose
    ):
        assert name in known or name in {"aiki.events.*"}, f"{page.name} names {name}"


def test_the_queues_of_processes_are_named_as_the_page_on_operating_says() -> None:
    text = page("operating-rabbitmq.md").text

    (notices,) = notice_queue("CLIENT", "x").queues
    (control,) = control_queue("WORKER", "x").queues

    assert f"`{notices.name.replace('CLIENT.x', '<client>')}.…`" in text
    assert f"`{control.name.replace('WORKER.x', '<worker>')}.…`" in text
    assert f"`{partition_queue(0)}`" in text
    assert f"`{retry_name(RETRY_GRID_MS[0])}` … `{retry_name(RETRY_GRID_MS[-1])}`" in text


def test_every_queue_that_is_always_there_is_explained() -> None:
    text = page("operating-rabbitmq.md").text

    for queue in topology(2).queues:
        assert f"`{queue.name}`" in text


def test_every_record_of_a_decision_is_listed() -> None:
    index = page("decisions/README.md")

    for record in index.file.parent.glob("[0-9]*.md"):
        assert record.name in index.links
