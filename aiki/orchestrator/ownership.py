"""Who should own which partition, and how it comes to be so.

Every orchestrator stands in line for every partition; the broker serves whoever
has been there longest. So nothing waits for an agreement, and when one dies the
next in line goes on within milliseconds. To spread the load, all of them compute
from the same list of who is present which one each partition is best off with;
whoever else might be served gives its place up once, and goes to the end of the line.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from aiki.engine.events import Event
from aiki.errors import AikiError, StoreUnavailableError
from aiki.observability import get_logger
from aiki.orchestrator.consumer import Consumer
from aiki.orchestrator.services import Services
from aiki.ports.store import Presence

__all__ = ["Ownership", "preferred_owners"]

log = get_logger(__name__)


def preferred_owners(members: Collection[str], partitions: int) -> tuple[str, ...]:
    """Tell for each partition which of *members* should own it: everybody who knows the list gets the same answer.

    Rendezvous hashing, with nobody owning more than their share: each partition goes to the member that
    scores highest for it among those that have room, so a change of members moves few partitions.
    """
    share = -(-partitions // len(members))
    owned = dict.fromkeys(sorted(members), 0)
    owners: list[str] = []
    for partition in range(partitions):
        with_room = [member for member, count in owned.items() if count < share]
        owner = max(with_room, key=lambda member: _score(member, partition))
        owned[owner] += 1
        owners.append(owner)
    return tuple(owners)


def _score(member: str, partition: int) -> bytes:
    return blake2b(f"{member}\0{partition}".encode(), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who should own a partition, and since which of its subscriptions."""

    owner: str
    subscription: int


class Ownership:
    """Keeps this orchestrator present, and gives up places in line that others should have.

    A place is given up when the claim of another one is new: it just came, or had to subscribe again and so
    went to the end of the line itself. One that does not come forward (it has lost the broker, say)
    costs nothing but that one change of places.
    """

    def __init__(
        self,
        me: str,
        services: Services,
        *,
        consumers: Sequence[Consumer[tuple[Event, ...]]],
        facts: Callable[[], Mapping[str, Any]],
        on_change: Callable[[], None],
    ) -> None:
        self._me = me
        self._store = services.store
        self._clock = services.clock
        self._settings = services.settings
        self._patience = services.patience
        self._consumers = consumers
        self._facts = facts
        self._on_change = on_change
        self._claims: tuple[_Claim, ...] = ()
        self.members: tuple[str, ...] = (me,)

    @property
    def preferred(self) -> frozenset[int]:
        """The partitions that this orchestrator should own; all of them as long as it knows of nobody else."""
        if not self._claims:
            return frozenset(range(len(self._consumers)))
        return frozenset(number for number, claim in enumerate(self._claims) if claim.owner == self._me)

    async def run(self) -> None:
        """Say that we are there and look who else is, again and again, until cancelled."""
        while True:
            try:
                with self._patience.watching():
                    await self.beat()
            except StoreUnavailableError:
                pass  # Everybody's presence ages alike; the next beat renews ours.
            except AikiError as error:
                log.warning("presence.failed", error=error.message)
            await self._clock.sleep(self._settings.heartbeat)

    async def beat(self) -> None:
        """Renew our presence, see who is there, and give up the places that others should have.

        Raises:
            StoreUnavailableError: nothing changed.
        """
        now = self._clock.now()
        await self._store.announce(self._presence(now + timedelta(seconds=self._settings.presence)))
        present = {presence.id: presence.facts for presence in await self._store.present("orchestrator", now=now)}
        present[self._me] = self._own_facts()
        await self._take_in(present)

    async def retire(self) -> None:
        """Say that we are gone, so that the others need not wait for it to show.

        Raises:
            StoreUnavailableError: they will see when the presence expires.
        """
        await self._store.announce(self._presence(self._clock.now() - timedelta(seconds=1)))

    def _presence(self, expires_at: datetime) -> Presence:
        return Presence(id=self._me, kind="orchestrator", facts=self._own_facts(), expires_at=expires_at)

    def _own_facts(self) -> Mapping[str, Any]:
        return {**self._facts(), "subscriptions": [consumer.subscriptions for consumer in self._consumers]}

    async def _take_in(self, present: Mapping[str, Mapping[str, Any]]) -> None:
        members = tuple(sorted(present))
        claims = tuple(
            _Claim(owner, _subscription(present[owner], partition))
            for partition, owner in enumerate(preferred_owners(members, len(self._consumers)))
        )
        before, self._claims = self._claims, claims
        if members != self.members:
            log.info("orchestrators.present", members=list(members), preferred=sorted(self.preferred))
            self.members = members
        self._on_change()
        for partition, claim in enumerate(claims):
            is_new = not before or before[partition] != claim
            if is_new and claim.owner != self._me:
                await self._consumers[partition].leave()


def _subscription(facts: Mapping[str, Any], partition: int) -> int:
    """Read how often a member has subscribed to a partition; an older one may not say it, or not like this."""
    counts = facts.get("subscriptions")
    count = counts[partition] if isinstance(counts, list) and partition < len(counts) else None
    return count if isinstance(count, int) else 0
