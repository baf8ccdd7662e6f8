"""What the documentation shows is executed as it stands there."""

from pathlib import Path

import pytest

from tests.docs.blocks import run_python
from tests.docs.pages import PAGES, Page


def with_python(*, servers: bool) -> list[Page]:
    return [
        page
        for page in PAGES
        if any(block.language == "python" and ("servers" in block.words) == servers for block in page.blocks)
    ]


@pytest.mark.parametrize("page", with_python(servers=False), ids=str)
def test_the_python_of_a_page_runs_and_prints_what_it_says(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run_python(page, servers=False) > 0
