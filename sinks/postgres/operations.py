"""Failures of workers and the records that are to be passed over, in PostgreSQL: they outlive whoever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from schemas.operations import AppFailure, Skip
from sinks.postgres import queries

SQL = queries.load("operations")


class Operations:
    """Both tables. Everything raises Unavailable while PostgreSQL is away."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def keep_failures(self, worker: str, failures: Sequence[AppFailure]) -> None:
        """All that the worker has to say of its failures at the moment."""
        names = [failure.app for failure in failures]
        await self._fetch("drop_failures", worker, names)
        if failures:
            counts = [failure.failures for failure in failures]
            errors = [failure.error for failure in failures]
            places = [" ".join(failure.places) for failure in failures]
            await self._fetch("keep_failures", worker, names, counts, errors, places)

    async def failures(self) -> list[AppFailure]:
        """What all workers have said within a day."""
        rows = await self._fetch("failures")
        return [AppFailure(**dict(row) | {"places": tuple(row["places"] or ())}) for row in rows]

    async def ask(self, skip: Skip) -> None:
        """Have a record passed over by whoever meets it from now on."""
        place = skip.topic, skip.partition, skip.offset
        await self._fetch("ask_skip", *place, skip.timestamp_ms, skip.unread, skip.reason)

    async def skips(self) -> list[Skip]:
        """What is to be passed over."""
        return [Skip(**dict(row)) for row in await self._fetch("skips")]

    async def done(self, skip: Skip, stage: str) -> None:
        """A stage has passed the record over."""
        await self._fetch("skip_done", skip.topic, skip.partition, skip.offset, stage)

    async def done_by(self, skip: Skip) -> list[str]:
        """The stages that have."""
        rows = await self._fetch("skip_done_by", skip.topic, skip.partition, skip.offset)
        return list(rows[0]["done"]) if rows else []

    async def _fetch(self, name: str, *arguments: Any) -> list[Any]:
        return await queries.fetch(self._pool, SQL[name], *arguments)
