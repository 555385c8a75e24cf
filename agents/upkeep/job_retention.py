"""Deletes jobs, and the files of jobs, whose retention is over: each by a deletion like any other, with its receipt.

When a job is due follows from when it ended and from its tenant's present limits. So a new limit holds at once for all
jobs, no row has to be written for a job that is not due, and an index finds those that are: with none due, a round
makes one query a tenant and kind that reads nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.errors import Unavailable
from schemas.jobs.deletion import RETENTION, Scope
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.leases import Leases
from sinks.ports.upkeep.deletions import Deletions
from sinks.ports.upkeep.retention import ExpiresJobs, Kind, Retention, Retentions

log = logging.getLogger(__name__)

#: Seconds between two rounds, and of the lease under which one process of the fleet makes them.
ROUND_S, LEASE_S = 60.0, 180.0

#: Jobs of one query; and seconds between two deletions, so that a backlog is not all of the database's work.
MANY, PAUSE_S = 200, 0.01


class Database(Leases, Deletions, ExpiresJobs, Protocol):
    """What retention asks of the database."""


@dataclass(frozen=True)
class TenantRetentions(Retentions):
    """What tenants have set, over what the installation has."""

    accounts: EffectiveSettings
    #: Days for which files of conversations are kept, and conversations that have failed; None: as of other jobs.
    conversation_files: float | None = None
    failed_conversations: float | None = None

    async def retention(self, tenant_id: str) -> Retention:
        """The tenant's retention."""
        own = await self.accounts.settings_of(tenant_id)
        of_conversations = (self.conversation_files, self.failed_conversations)
        return Retention(own.audio_days, own.completed_days, own.failed_days, *of_conversations)


_SCOPES: Final[dict[Kind, Scope]] = {
    "files": "files",
    "completed": "job",
    "failed": "job",
    "conversation_files": "files",
    "failed_conversations": "job",
}


@dataclass(frozen=True)
class JobRetention:
    """Begins the deletion of what is due; a `Deleter` carries it out."""

    database: Database
    retentions: Retentions
    #: Identifies this process among all workers.
    holder: str = "retention"

    async def run(self) -> None:
        """Run a round every `ROUND_S` seconds until cancelled, except while the database is unavailable."""
        while True:
            try:
                if await self._holds_lease():
                    await self.round(self._holds_lease)
            except Unavailable as exc:
                log.debug("no expired jobs were deleted: %s", exc)
            await asyncio.sleep(ROUND_S)

    async def round(self, goes_on: Callable[[], Awaitable[bool]]) -> int:
        """Begin the deletion of everything that is due, as long as `goes_on` says so after `MANY`; how many. Several
        processes may: none begins twice. Raises Unavailable.
        """
        begun = 0
        for tenant in await self.database.tenants():
            limits = (await self.retentions.retention(tenant)).days
            # Whole jobs first: what goes with them need not go before.
            for kind in sorted(limits, key=lambda kind: _SCOPES[kind], reverse=True):
                begun += await self._begin(tenant, kind, limits[kind], goes_on)
        return begun

    async def _begin(self, tenant: str, kind: Kind, days: float, goes_on: Callable[[], Awaitable[bool]]) -> int:
        begun = 0
        while ids := await self.database.expired_jobs(tenant, kind, days, MANY):
            some = [await self._begin_one(tenant, id, _SCOPES[kind]) for id in ids]
            begun += sum(some)
            if len(ids) < MANY or not any(some) or not await goes_on():
                break
        if begun:
            log.info("retention: %d of %s began to be deleted (%s)", begun, tenant, kind)
        return begun

    async def _begin_one(self, tenant: str, id: str, scope: Scope) -> bool:
        deletion = await self.database.begin_deletion((tenant, id), RETENTION, scope)
        await asyncio.sleep(PAUSE_S)
        return deletion is not None

    async def _holds_lease(self) -> bool:
        return await self.database.lease("job retention", self.holder, LEASE_S)
