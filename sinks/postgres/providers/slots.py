"""Slots for concurrent requests to a provider, and the queue for them, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import asyncpg

from schemas import topics
from sinks.coalesce import Coalesce
from sinks.ports.providers.slots import FARTHEST, Slots, Traffic, free
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.queries import SQL

_Run = tuple[str, str, int]


class PostgresSlots(PostgresPort, Slots):
    """`Slots` on a pool. One transaction at a time gives out a provider's slots; calls of one moment share it."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        super().__init__(pool, shards=shards)
        self._slots = Coalesce(self._acquire)

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int, provider: str, slots: int) -> bool:
        """Whether the request is under way; if not, it is queued."""
        return await self._slots((provider, slots, tenant_id, job_id, run))

    async def _acquire(self, keys: Sequence[tuple[str, int, str, str, int]]) -> list[bool]:
        under_way: set[tuple[str, int, str, str, int]] = set()
        for provider, slots in sorted({key[:2] for key in keys}):
            runs = [key[2:] for key in keys if key[:2] == (provider, slots)]
            async with self._transaction() as db:
                holders = await _acquire_at(db, provider, slots, runs)
            under_way |= {(provider, slots, *run) for run in holders}
        return [key in under_way for key in keys]

    async def grant_slots(self, provider: str, slots: int | None, *, overtaking: bool = False) -> Traffic:
        """Give free slots to queued requests, and make their events due; the provider's load afterwards."""
        async with self._transaction() as db:
            if slots is not None:
                await db.execute(SQL["lock_slots"], provider)
            tenants = await db.fetch(SQL["slots_in_use"], provider)
            under_way = sum(row["requests"] for row in tenants)
            if slots is not None:
                granted = await _grant(db, provider, slots, under_way, tenants)
                under_way += granted
                if overtaking and not granted:  # else it would lock rows for a second time, in another order
                    await _overtake(db, provider, tenants)
            return await _traffic(db, provider, under_way)

    async def begin(self, tenant_id: str, job_id: str, run: int, provider: str) -> bool:
        """Note that a request begins; False if it waits for a slot, or ended."""
        return bool(await self._fetch("begin_request", provider, tenant_id, job_id, run))

    async def queue_position(self, tenant_id: str, job_id: str, run: int, provider: str) -> int | None:
        """The place of a request among those of its provider that wait."""
        key = provider, tenant_id, job_id, run
        rows = await self._fetch("slot_queue_position", *key, FARTHEST)
        return cast("int", rows[0]["position"]) if rows else None


async def _acquire_at(db: Any, provider: str, slots: int, runs: list[_Run]) -> set[_Run]:
    """Those of these runs whose request is under way; the others are queued."""
    await db.execute(SQL["lock_slots"], provider)
    under_way = sum(row["requests"] for row in await db.fetch(SQL["slots_in_use"], provider))
    queue = await db.fetchval(SQL["slot_queue_exists"], provider)
    holders, waiting = set(), dict[_Run, bool]()
    for row in await db.fetch(SQL["slot_requests"], provider, *by_column(runs, 3)):
        run = row["tenant_id"], row["job_id"], row["run"]
        if row["placed"]:
            holders.add(run)
        else:
            waiting[run] = not queue and free(slots, under_way, row["urgency"]) > 0
            under_way += waiting[run]
    if waiting:
        await db.execute(SQL["take_slots"], provider, *by_column(list(waiting), 3), list(waiting.values()))
    return holders | {run for run, taken in waiting.items() if taken}


async def _grant(db: Any, provider: str, slots: int, under_way: int, tenants: Sequence[Any]) -> int:
    """How many queued requests got a slot."""
    most = free(slots, under_way, 0)
    if not most:
        return 0
    in_use = [row["tenant_id"] for row in tenants], [row["requests"] for row in tenants]
    heads = await db.fetch(SQL["slot_queue_heads"], provider, most, *in_use)
    granted = [
        (row["tenant_id"], row["job_id"]) for n, row in enumerate(heads) if free(slots, under_way + n, row["urgency"])
    ]
    if granted:
        await db.execute(SQL["grant_slots"], provider, *by_column(granted, 2), topics.requests(provider).name)
    return len(granted)


async def _overtake(db: Any, provider: str, tenants: Sequence[Any]) -> None:
    """The most urgent that are queued take the slots of the least urgent that have not begun."""
    standby = await db.fetch(SQL["slot_standby"], provider)
    if not standby:
        return
    in_use = [row["tenant_id"] for row in tenants], [row["requests"] for row in tenants]
    heads = await db.fetch(SQL["slot_queue_heads"], provider, len(standby), *in_use)
    pairs = [
        (head["tenant_id"], head["job_id"], row["tenant_id"], row["job_id"], row["run"], row["urgency"])
        for head, row in zip(heads, standby, strict=False)
        if head["urgency"] < row["urgency"]
    ]
    if pairs:
        await db.execute(SQL["overtake_slots"], provider, topics.requests(provider).name, *by_column(pairs, 6))


async def _traffic(db: Any, provider: str, under_way: int) -> Traffic:
    failures, paused_until = await db.fetchrow(SQL["provider_state"], provider) or (0, None)
    waiting = await db.fetchrow(SQL["count_queued"], provider)
    return Traffic(under_way, waiting["queued"], failures, paused_until, waiting["parked"])
