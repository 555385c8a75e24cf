"""Which recordings this process fetches next: places for fetching are shared out by priority, tenant and age.

An upload is fetched at once while its tenant holds less than its share of the process's places. Otherwise its job is
created all the same, and waits as a row without any event of its own, however many wait; the rows get places as they
become free. So a flood is read from Kafka at the speed at which jobs are created, and what is more urgent, or another
tenant's, overtakes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.runtime.leased_tasks import LeasedTasks
from schemas.errors import Unavailable
from schemas.ids import Key
from sinks.ports.uploads import Uploads

log = logging.getLogger(__name__)

#: Seconds between looks at who waits.
LOOK_S = 0.5

#: Seconds for which the event of an admitted upload is expected. It may come to another worker.
COMING_S = 3.0


def share_of(tenant_id: str) -> str:
    """What a tenant's work is called among the shares of `LeasedTasks`."""
    return f"tenant {tenant_id}"


@dataclass
class FetchQueue:
    """The line for the places of one process."""

    database: Uploads
    work: LeasedTasks
    #: Tenants that have uploads waiting, and how urgent the most urgent of them is, as of the last look.
    _waiting: dict[str, int] = field(default_factory=dict)
    #: Uploads that were admitted and have not come yet, and until when they are expected.
    _coming: dict[Key, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Admit who waits, for ever."""
        while True:
            try:
                await self.look()
            except Unavailable:
                log.debug("a look at the uploads that wait was missed: the database is away")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Give the places that are free to those who wait."""
        self._waiting = await self.database.waiting_uploads()
        now = time.monotonic()
        self._coming = {key: until for key, until in self._coming.items() if until > now}
        coming = Counter(tenant for tenant, _ in self._coming)
        free = self.work.free - coming.total()
        if not self._waiting or free <= 0:
            return
        shares = self.work.held
        held = {tenant: shares[share_of(tenant)] + coming[tenant] for tenant in self._waiting}
        admitted = await self.database.admit_uploads(held, free)
        self._coming |= dict.fromkeys(admitted, now + COMING_S)

    def must_wait(self, key: Key, urgency: int, shares: Sequence[str]) -> bool:
        """Whether a new upload has to wait: no place is free for it, or another of its tenant waits that is no less
        urgent.
        """
        return self.full(key, shares) or self._waiting.get(key[0], 10) <= urgency

    def full(self, key: Key, shares: Sequence[str]) -> bool:
        """Whether there is no place for an upload that has come; it is not expected any more."""
        self._coming.pop(key, None)
        return self.work.full(shares)
