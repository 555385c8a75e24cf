"""Deletes expired rows, faster than they are written: in slices, with pauses, by one worker at a time.

A recording leaves ten to twenty rows in `inbox` and in `audit_log`. A slice of 5,000 takes some 10 ms; with pauses of
four times that, 80,000 rows a second were deleted on two busy cores, and 60 recordings a second write 1,200.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.errors import Unavailable
from sinks.ports.api.idempotency import KEPT_DAYS
from sinks.ports.upkeep.retention import ExpiresRows

log = logging.getLogger(__name__)

#: Days for which rows are kept, by table. Handled events: twice as long as Kafka keeps their records. Answers of
#: adjudicators: the same question is not asked later. Leases that ran out have no effect. Deliveries, also those that
#: wait for an endpoint to be switched on again; secrets that sign no more. Events that Kafka refused: as long as dead
#: letters. Counts of requests over HTTP. Direct uploads: a day longer than their URLs are valid. Issued URLs:
#: since they expired. `audit_log` and `usage` have settings, the former also of tenants.
DAYS: Final[Mapping[str, float]] = {
    "inbox": 14.0,
    "adjudications": 90.0,
    "leases": 1.0,
    "outbox_refused": 30.0,
    "webhook_deliveries": 30.0,
    "webhook_secrets": 1.0,
    "api_usage_metrics": 90.0,
    "idempotency_keys": KEPT_DAYS,
    "direct_uploads": 2.0,
    "issued_urls": 1.0,
}

#: Most rows in one transaction, and least seconds between two rounds and between two slices.
SLICE, ROUND_S, PAUSE_S = 5000, 60.0, 0.05

#: The pause after a slice, as a multiple of the time that the slice took.
REST = 4


@dataclass(frozen=True)
class Retention:
    """Deletes the expired rows of some tables."""

    database: ExpiresRows
    #: Days for which rows are kept, by table.
    days: Mapping[str, float]

    async def run(self) -> None:
        """Run a round every `ROUND_S` seconds until cancelled, except while the database is unavailable."""
        while True:
            try:
                await self.round()
            except Unavailable as exc:
                log.debug("no expired rows were deleted: %s", exc)
            await asyncio.sleep(ROUND_S)

    async def round(self) -> int:
        """Delete all expired rows; how many. Raises Unavailable."""
        return sum([await self._delete_expired(table, days) for table, days in self.days.items()])

    async def _delete_expired(self, table: str, days: float) -> int:
        deleted = 0
        while True:
            began = time.monotonic()
            rows = await self.database.forget(table, days, SLICE)
            deleted += rows or 0
            if rows is None or rows < SLICE:
                return deleted
            await asyncio.sleep(max(PAUSE_S, REST * (time.monotonic() - began)))
