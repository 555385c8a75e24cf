"""The outbox on PostgreSQL: how messages get into it, and what operators and gauges ask of it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from schemas.ids import Key, job_key
from schemas.messages import Message, dump_headers
from sinks.ports.outbox import Outbox, Overdue, RelayBacklog
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL
from sinks.postgres.webhooks.queue import announce_messages


class PostgresOutbox(PostgresPort, Outbox, RelayBacklog):
    """`Outbox` and `RelayBacklog` on a pool."""

    async def overdue(self, seconds: float) -> list[Overdue]:
        """Events that have been due for longer than that and are not published."""
        return [Overdue(**row) for row in await self._fetch("overdue", seconds)]

    async def outbox_depth(self) -> list[Any]:
        """Per shard: rows due, rows waiting, seconds for which the oldest due one has been due."""
        return await self._fetch("outbox_depth")

    async def highest_shard(self) -> int:
        """The highest shard that has rows, or -1."""
        return int((await self._fetch("highest_shard"))[0][0])

    async def idle(self, key: Key | None = None) -> bool:
        """Whether nothing is open and no event is due soon; with a key, of this job."""
        rows = await (self._fetch("idle") if key is None else self._fetch("job_idle", *key))
        return bool(rows[0][0])

    async def count_refused(self) -> dict[str, int]:
        """How many rows are set aside because Kafka refuses them, by topic."""
        return {row["topic"]: row["rows"] for row in await self._fetch("count_refused")}

    async def refused(self, limit: int, ids: Sequence[int] | None = None) -> list[Any]:
        """The newest of them, or those of them that have these ids."""
        return await self._fetch("refused", limit, None if ids is None else list(ids))

    async def settle_refused(self, plans: Sequence[tuple[int, Message | None]]) -> set[int]:
        """Drop each of these rows and publish the message beside its id; the ids of those that still existed."""
        async with self._transaction() as db:
            dropped = {row["id"] for row in await db.fetch(SQL["drop_refused"], [id for id, _ in plans])}
            messages = [(message, 0.0) for id, message in plans if message is not None and id in dropped]
            await insert_messages(db, messages, self._shards)
        return dropped


async def insert_messages(db: Any, messages: Sequence[tuple[Message, float]], shards: int) -> None:
    """Put messages into the outbox, each with the seconds until it is due, wake the relays of their shards, and have
    what they announce delivered to tenants' webhooks.
    """
    if messages:
        rows = [_row(message, seconds, shards) for message, seconds in messages]
        await db.execute(SQL["insert_outbox"], *map(list, zip(*rows, strict=True)))
        await db.execute(SQL["wake_relays"], sorted({row[0] for row in rows}))
        await announce_messages(db, messages)


def _row(message: Message, seconds: float, shards: int) -> tuple[Any, ...]:
    """The arguments of `insert_outbox`, in its order."""
    whose = message.tenant_id, message.job_id, message.run
    headers = dump_headers(message.headers)
    shard = shard_of(message, shards)
    return (shard, seconds, message.id, message.topic, message.key, message.value, headers, *whose)


def shard_of(message: Message, shards: int) -> int:
    """The relay shard of a message: all messages of one job have the same, so that they keep their order."""
    has_job = message.tenant_id is not None and message.job_id is not None
    text = job_key(message.tenant_id or "", message.job_id or "").encode() if has_job else message.key or b""
    return zlib.crc32(text) % shards
