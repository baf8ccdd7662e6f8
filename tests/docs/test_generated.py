"""What the documentation takes from the code is as the code has it now."""

import pytest

from tests.docs.generated import PARTS, updated
from tests.docs.pages import PAGES, Page


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_made_parts_of_a_page_are_those_of_the_code(page: Page) -> None:
    assert page.text == updated(page.text), "run `python -m tests.docs.generated`"


@pytest.mark.parametrize("part", PARTS)
def test_every_made_part_stands_somewhere(part: str) -> None:
    assert any(f"<!-- made from the code: {part} -->" in page.text for page in PAGES)
