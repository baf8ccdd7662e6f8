"""What the doctor finds, as far as no server is needed for it."""

from datetime import timedelta

import pytest

from aiki.cli import doctor
from aiki.cli.doctor import Verdict
from aiki.config import Settings


@pytest.mark.parametrize(
    ("lease_after", "verdict"), [(timedelta(minutes=10), Verdict.PROBLEM), (timedelta(minutes=6), Verdict.OK)]
)
async def test_a_broker_has_to_have_three_times_the_patience_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, lease_after: timedelta, verdict: Verdict
) -> None:
    monkeypatch.setattr(doctor, "consumer_timeouts", lambda *_: {"shop@1": timedelta(minutes=20)})

    (finding,) = await doctor._consumer_timeout(Settings(lease_after=lease_after))

    assert finding.verdict is verdict
