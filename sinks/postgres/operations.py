"""What workers and operators tell each other, on PostgreSQL: parts that fail, records to skip."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.operations import AppFailure, Skip
from sinks.ports.operations import Operations
from sinks.postgres.connection.port import PostgresPort


class PostgresOperations(PostgresPort, Operations):
    """`Operations` on a pool."""

    async def keep_failures(self, worker: str, failures: Sequence[AppFailure]) -> None:
        """Replace what this worker reports of its failing parts."""
        names = [failure.app for failure in failures]
        await self._fetch("drop_failures", worker, names)
        if failures:
            counts = [failure.failures for failure in failures]
            errors = [failure.error for failure in failures]
            places = [" ".join(failure.places) for failure in failures]
            await self._fetch("keep_failures", worker, names, counts, errors, places)

    async def failures(self) -> list[AppFailure]:
        """What all workers reported within a day."""
        rows = await self._fetch("failures")
        return [AppFailure(**dict(row) | {"places": tuple(row["places"] or ())}) for row in rows]

    async def ask(self, skip: Skip) -> None:
        """Have every worker skip this record from now on."""
        place = skip.topic, skip.partition, skip.offset
        await self._fetch("ask_skip", *place, skip.timestamp_ms, skip.unread, skip.reason)

    async def skips(self) -> list[Skip]:
        """The records that workers skip."""
        return [Skip(**dict(row)) for row in await self._fetch("skips")]

    async def done(self, skip: Skip, stage: str) -> None:
        """Note that a stage has skipped the record."""
        await self._fetch("skip_done", skip.topic, skip.partition, skip.offset, stage)

    async def done_by(self, skip: Skip) -> list[str]:
        """The stages that have skipped the record."""
        rows = await self._fetch("skip_done_by", skip.topic, skip.partition, skip.offset)
        return list(rows[0]["done"]) if rows else []
