"""What type checkers of users infer: the types of a task and a workflow survive all the way to the result."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("onboarding.py.txt")
ROOT = Path(__file__).parents[2]

REVEALED = re.compile(r'^onboarding\.py:(\d+): note: Revealed type is "(.*)"$')
WANTED = re.compile(r"# > (.*)$")
REFUSED = re.compile(r"# ! (.*)$")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Check the sample as a user would, with strict settings and no configuration of ours."""
    place = tmp_path_factory.mktemp("application")
    (place / "onboarding.py").write_text(SAMPLE.read_text())
    settings = place / "mypy.ini"
    settings.write_text(f"[mypy]\nstrict = true\ncache_dir = {place / 'cache'}\nmypy_path = {ROOT}\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--no-error-summary", "onboarding.py"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=240, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return SAMPLE.read_text().splitlines()


@pytest.mark.timeout(300)
def test_the_types_of_users_survive(said: list[str], lines: list[str]) -> None:
    wanted = {n: match[1] for n, line in enumerate(lines, 1) if (match := WANTED.search(line))}

    revealed = {int(match[1]): match[2] for line in said if (match := REVEALED.match(line))}

    assert revealed == wanted
    assert len(wanted) > 15


@pytest.mark.timeout(300)
def test_mistakes_of_users_are_found(said: list[str], lines: list[str]) -> None:
    wanted = {
        (n, code)
        for n, line in enumerate(lines, 1)
        if (match := REFUSED.search(line))
        for code in match[1].strip("[]").split(", ")
    }

    found = {
        (int(match[1]), match[2])
        for line in said
        if (match := re.match(r"^onboarding\.py:(\d+): error: .*\[([a-z-]+)\]$", line))
    }

    assert found == wanted
    assert len(wanted) > 5
