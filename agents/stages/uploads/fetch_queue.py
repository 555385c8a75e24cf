"""Which recordings this process fetches next: slots for fetching are shared out by priority, tenant and age.

An upload is fetched at once while its tenant holds less than its share of the process's slots. Otherwise its job is
created all the same, and waits as a row. A row causes no events, however many wait; it is admitted when a slot becomes
free. So uploads are read from Kafka as fast as jobs can be created, and a more urgent upload, or one of another tenant,
overtakes a backlog.
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

#: Seconds between two queries for waiting uploads.
POLL_S = 0.5

#: Seconds for which the slot of an admitted upload is reserved. Another worker may receive the upload's event.
RESERVED_S = 3.0


def share_of(tenant_id: str) -> str:
    """The name of a tenant's share of `LeasedTasks`."""
    return f"tenant {tenant_id}"


@dataclass
class FetchQueue:
    """The queue for the fetch slots of one process."""

    database: Uploads
    tasks: LeasedTasks
    #: By tenant with waiting uploads, the urgency of the most urgent one (0 to 9, lower first), as of the last query.
    _waiting: dict[str, int] = field(default_factory=dict)
    #: By admitted upload whose event has not arrived yet, the monotonic time at which its reservation ends.
    _reserved: dict[Key, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Admit waiting uploads until cancelled."""
        while True:
            try:
                await self.admit()
            except Unavailable:
                log.debug("no waiting uploads are admitted: the database is away")
            await asyncio.sleep(POLL_S)

    async def admit(self) -> None:
        """Give the free slots to waiting uploads.

        Raises:
            Unavailable: The database cannot be reached.
        """
        self._waiting = await self.database.waiting_uploads()
        now = time.monotonic()
        self._reserved = {key: until for key, until in self._reserved.items() if until > now}
        reserved = Counter(tenant for tenant, _ in self._reserved)
        free = self.tasks.free - reserved.total()
        if not self._waiting or free <= 0:
            return
        shares = self.tasks.held
        held = {tenant: shares[share_of(tenant)] + reserved[tenant] for tenant in self._waiting}
        admitted = await self.database.admit_uploads(held, free)
        self._reserved |= dict.fromkeys(admitted, now + RESERVED_S)

    def must_wait(self, key: Key, urgency: int, shares: Sequence[str]) -> bool:
        """Whether a new upload has to wait: it has no free slot, or its tenant has a waiting upload that is at least as
        urgent.
        """
        return self.full(key, shares) or self._waiting.get(key[0], 10) <= urgency

    def full(self, key: Key, shares: Sequence[str]) -> bool:
        """Whether there is no slot for an upload whose event has arrived; its reservation ends with this call."""
        self._reserved.pop(key, None)
        return self.tasks.full(shares)
