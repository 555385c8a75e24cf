"""From the outbox to Kafka, each row exactly once for a `read_committed` reader, whatever is killed in between.

One owner per shard, elected by an advisory lock. It gives the next due rows a batch number (committed in PostgreSQL),
publishes them in one Kafka transaction that also commits that number as a consumer offset of `relay.position`, then
deletes them. After a crash Kafka's committed number tells whether the newest batch was published: if so its rows are
deleted, else it is published again, as the same batch. A fixed `transactional.id` per shard fences an owner that only
seemed dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents import kafka as broker
from agents.failpoints import passing
from agents.kafka import Kafka
from agents.metrics import Metrics
from schemas import topics
from schemas.messages import load_headers
from sinks.postgres import SQL
from sinks.postgres_errors import AWAY

log = logging.getLogger(__name__)

#: The consumer group whose offsets are batch numbers. It has no members.
GROUP = "concord.relay"

#: Rows in one batch at most, and seconds between looks when nothing wakes the relay.
BATCH, IDLE_S = 500, 1.0

#: Seconds without a word to PostgreSQL after which it takes the shard from its owner: a process that hangs, or whose
#: machine is gone, keeps its connection and would hold the shard for ever. Kafka fences what it may still do later.
HUNG_S = 10


class Relay:
    """The relay of one shard. `run` never returns by itself; cancelling it is the way to stop."""

    def __init__(self, dsn: str, kafka: Kafka, shard: int, metrics: Metrics) -> None:
        self._dsn = dsn
        self._kafka = kafka
        self._shard = shard
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._published: list[int] = []

    async def run(self) -> None:
        """Be the shard's owner whenever nobody else is, and publish."""
        while True:
            try:
                await self._serve()
            except (KafkaError, *AWAY) as exc:
                log.warning(
                    "relay %d begins again: %s",
                    self._shard,
                    type(exc).__name__,
                    exc_info=log.isEnabledFor(logging.DEBUG),
                )
            await asyncio.sleep(0.5)

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            db = await asyncpg.connect(
                self._dsn,
                timeout=10,
                command_timeout=20,
                server_settings={
                    "role": "concord_worker",
                    "application_name": "relay",
                    "idle_session_timeout": f"{HUNG_S}s",
                    "idle_in_transaction_session_timeout": f"{HUNG_S}s",
                },
            )
            stack.callback(db.terminate)
            while not await db.fetchval(SQL["lock_shard"], self._shard):  # noqa: ASYNC110 - the lock rings no bell
                await asyncio.sleep(0.5)
            await db.add_listener(f"outbox_{self._shard}", lambda *_: self._wake.set())
            producer = broker.producer(
                self._kafka,
                transactional_id=f"concord-relay-{self._shard}",
                transaction_timeout_ms=20_000,
                request_timeout_ms=15_000,
            )
            # Starting it ends, one way or the other, any transaction that a former owner left open.
            await producer.start()
            stack.push_async_callback(_stop, producer)
            newest = await self._recover(db, producer)
            log.info("relay %d serves from batch %d", self._shard, newest)
            while True:
                newest = await self._once(db, producer, newest)

    async def _recover(self, db: Any, producer: Any) -> int:
        """Settle the newest batch; the highest number used so far."""
        published = await self._position()
        row = await db.fetchrow(SQL["newest_batch"], self._shard)
        if row is None:
            return published
        if row["batch"] > published:
            rows = await db.fetch(SQL["batch_rows"], self._shard, row["ids"])
            if rows:
                await self._publish(producer, rows, row["batch"])
        await db.execute(SQL["drop_rows"], self._shard, row["ids"])
        return max(published, int(row["batch"]))

    async def _position(self) -> int:
        consumer = broker.consumer(self._kafka, group_id=GROUP)
        await consumer.start()
        try:
            return int(await consumer.committed(TopicPartition(topics.RELAY_POSITION, self._shard)) or 0)
        finally:
            await consumer.stop()

    async def _once(self, db: Any, producer: Any, newest: int) -> int:
        """Drop what was published, claim the next batch and publish it; else wait until something is due."""
        self._wake.clear()
        async with db.transaction():
            if self._published:
                await db.execute(SQL["drop_rows"], self._shard, self._published)
            rows = await db.fetch(SQL["claim_batch"], self._shard, newest + 1, BATCH)
        self._published = []
        if not rows:
            await self._wait(db)
            return newest
        passing("relay.claimed")
        await self._publish(producer, rows, newest + 1)
        passing("relay.published")
        self._published = [row["id"] for row in rows]
        self._metrics.relayed(self._shard, len(rows))
        return newest + 1

    async def _publish(self, producer: Any, rows: Sequence[Any], batch: int) -> None:
        async with producer.transaction():
            sent = [
                await producer.send(row["topic"], row["value"], row["key"], headers=load_headers(row["headers"]))
                for row in rows
            ]
            await asyncio.gather(*sent)
            await producer.send_offsets_to_transaction(
                {TopicPartition(topics.RELAY_POSITION, self._shard): batch}, GROUP
            )
            passing("relay.sent")

    async def _wait(self, db: Any) -> None:
        due = await db.fetchval(SQL["next_due"], self._shard)
        seconds = IDLE_S if due is None else min(max(due, 0.001), IDLE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()


async def _stop(producer: Any) -> None:
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(3):
            await producer.stop()
