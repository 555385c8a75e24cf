"""From the outbox to Kafka, each row exactly once for a `read_committed` reader, whatever is killed in between.

One owner per shard, elected by an advisory lock. It gives the next due rows a batch number (committed in PostgreSQL),
publishes them in one Kafka transaction that also commits that number as a consumer offset of `relay.position`, then
deletes them. After a crash Kafka's committed number tells whether the newest batch was published: if so its rows are
deleted, else it is published again, as the same batch. A fixed `transactional.id` per shard fences an owner that only
seemed dead.

A batch that Kafka refuses is aborted for good before its rows are claimed anew, under the next number and without those
that may be to blame: so no number ever stands for two sets of rows of which one may have been published. What is
refused at last is set aside (`outbox_refused`), after its job has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import MappingProxyType
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.runtime.failpoints import passing
from agents.runtime.kafka import client as broker
from agents.runtime.kafka.client import Kafka
from agents.runtime.metrics import Metrics
from agents.runtime.outbox import refused_events
from agents.runtime.outbox.publisher import GROUP, BatchRefused, Publisher, Refusal
from agents.runtime.outbox.quarantine import Group, Parked, Quarantine
from schemas import topics
from schemas.errors import Unavailable
from sinks.ports.steps import Steps
from sinks.postgres.connection.connect import connect
from sinks.postgres.connection.errors import AWAY
from sinks.postgres.sql.queries import SQL

log = logging.getLogger(__name__)

#: Rows and bytes in one batch at most, and of a topic that is tried again; seconds between looks when nothing wakes the
#: relay.
BATCH, BATCH_BYTES, APART, APART_BYTES, IDLE_S = 500, 4 << 20, 20, 1 << 18, 1.0

#: Seconds without a word to PostgreSQL after which it takes the shard from its owner: a process that hangs, or whose
#: machine is gone, keeps its connection and would hold the shard for ever. Kafka fences what it may still do later.
HUNG_S = 10

#: Seconds until a relay that failed begins again, doubled with each failure in a row up to the second number.
AGAIN_S, LONGEST_S = 0.5, 5.0


class Relay:
    """The relay of one shard. `run` never returns by itself; cancelling it is the way to stop."""

    def __init__(
        self,
        dsn: str,
        kafka: Kafka,
        shard: int,
        metrics: Metrics,
        database: Steps,
        *,
        refusals: refused_events.Refusals = MappingProxyType({}),
        look_at_topics: Callable[[], None] = lambda: None,
        quarantine: Quarantine | None = None,
    ) -> None:
        """`database` ends the jobs of rows that are set aside. `look_at_topics` is called when a topic is missing, or
        takes too little.
        """
        self._dsn = dsn
        self._shard = shard
        self._kafka = kafka
        self._metrics = metrics
        self._database = database
        self._refusals = refusals
        self._look_at_topics = look_at_topics
        self._quarantine = quarantine or Quarantine()
        self._publisher = Publisher(kafka, shard)
        self._wake = asyncio.Event()
        self._published: list[int] = []
        self._turn = False
        self._failures = 0
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Be the shard's owner whenever nobody else is, and publish."""
        while True:
            try:
                await self._serve()
            except (KafkaError, TimeoutError, Unavailable, *AWAY) as exc:
                reason = str(exc) or type(exc).__name__
                detailed = log.isEnabledFor(logging.DEBUG)
                log.warning("relay %d begins again: %s: %s", self._shard, type(exc).__name__, reason, exc_info=detailed)
            except Exception:
                log.exception("relay %d begins again", self._shard)
            await asyncio.sleep(min(AGAIN_S * 2.0 ** min(self._failures, 10), LONGEST_S))
            self._failures += 1

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            timeouts = dict.fromkeys(("idle_session_timeout", "idle_in_transaction_session_timeout"), f"{HUNG_S}s")
            db = await connect(self._dsn, {"role": "concord_worker", "application_name": "relay", **timeouts})
            stack.callback(db.terminate)
            while not await db.fetchval(SQL["lock_shard"], self._shard):  # noqa: ASYNC110 - the lock rings no bell
                await asyncio.sleep(0.5)
            await db.add_listener(f"outbox_{self._shard}", lambda *_: self._wake.set())
            stack.push_async_callback(self._publisher.close)
            self._told, self._published, self._turn = {}, [], False
            try:
                await self._publish_all(db)
            except (KafkaError, TimeoutError) as exc:
                self._look_at_topics()
                with contextlib.suppress(*AWAY):
                    await self._tell(db, {"": f"{type(exc).__name__}: {exc}"[:500]})
                raise

    async def _publish_all(self, db: Any) -> None:
        async with _kept_alive(db):
            await self._publisher.start()
        newest = await self._recover(db)
        await self._tell(db, self._quarantine.troubles)
        log.info("relay %d serves from batch %d", self._shard, newest)
        while True:
            newest = await self._once(db, newest)
            self._failures = 0

    async def _recover(self, db: Any) -> int:
        """Settle the newest batch; the highest number used so far."""
        row = await db.fetchrow(SQL["newest_batch"], self._shard)
        published = await self._position()
        if row is None:
            return published
        if row["batch"] > published:
            rows = await db.fetch(SQL["batch_rows"], self._shard, row["ids"])
            if rows and not await self._publish(db, rows, row["batch"], None):
                return int(row["batch"])
        await db.execute(SQL["drop_rows"], self._shard, row["ids"])
        return max(published, int(row["batch"]))

    async def _position(self) -> int:
        consumer = broker.consumer(self._kafka, group_id=GROUP)
        async with asyncio.timeout(HUNG_S - 2):
            await consumer.start()
            try:
                return int(await consumer.committed(TopicPartition(topics.RELAY_POSITION, self._shard)) or 0)
            finally:
                await consumer.stop()

    async def _once(self, db: Any, newest: int) -> int:
        """Drop what was published, claim the next batch and publish it; else wait until something is due."""
        self._wake.clear()
        apart = self._quarantine.due(time.monotonic()) if self._turn else None
        async with db.transaction():
            if self._published:
                await db.execute(SQL["drop_rows"], self._shard, self._published)
            rows = await self._claim(db, newest + 1, apart)
        self._published = []
        self._turn = apart is None  # what is kept apart has every other batch at most
        if rows:
            passing("relay.claimed")
            await self._publish(db, rows, newest + 1, apart)
            return newest + 1
        if apart is not None:
            self._quarantine.forget(apart)  # taken back by whoever had sent them
            await self._tell(db, self._quarantine.troubles)
        elif self._quarantine.due(time.monotonic()) is None:
            await self._wait(db)
        return newest

    async def _claim(self, db: Any, batch: int, apart: Group | Parked | None) -> list[Any]:
        kept = self._quarantine
        match apart:
            case Group():
                found = await db.fetch(SQL["claim_apart"], self._shard, batch, apart.ids, "", BATCH, BATCH_BYTES)
            case Parked():
                found = await db.fetch(SQL["claim_apart"], self._shard, batch, [], apart.topic, APART, APART_BYTES)
            case _:
                apart_from = (kept.topics, kept.ids, kept.keys)
                found = await db.fetch(SQL["claim_batch"], self._shard, batch, BATCH, BATCH_BYTES, *apart_from)
        rows: list[Any] = found
        return rows

    async def _publish(self, db: Any, rows: Sequence[Any], batch: int, apart: Group | Parked | None) -> bool:
        """Publish a claimed batch. False if it was refused: nothing of it is published, or ever will be as this one."""
        try:
            async with _kept_alive(db):
                await self._publisher.publish(rows, batch)
        except BatchRefused as refused:
            await self._refused(db, rows, apart, refused)
            return False
        passing("relay.published")
        self._published = [row["id"] for row in rows]
        self._metrics.relayed(self._shard, len(rows))
        self._quarantine.published(apart, rows, time.monotonic())
        if apart is not None:
            await self._tell(db, self._quarantine.troubles)
        return True

    async def _refused(self, db: Any, rows: Sequence[Any], apart: Group | Parked | None, refused: BatchRefused) -> None:
        """Keep apart what may be to blame. The new producer aborts the batch's transaction before anything else."""
        level = logging.WARNING if apart is None else logging.INFO  # what is tried again was told before
        log.log(level, "relay %d: a batch of %d rows is refused: %s", self._shard, len(rows), refused)
        now = time.monotonic()
        if refused.times:
            self._publisher.timed = False
            log.error("the database's clock is too far from Kafka's, see `concord doctor`: records go without times")
        blamed = None
        if refused.topics:
            self._quarantine.park(apart, refused.topics, now)
        elif refused.rows:
            blamed = self._quarantine.suspect(apart, rows, refused.rows, now)
        self._look_at_topics()
        await self._tell(db, self._quarantine.troubles)
        if refused.begun:
            async with _kept_alive(db):
                await self._publisher.start()
        if blamed is not None:
            await self._set_aside(db, *blamed)

    async def _set_aside(self, db: Any, row: Any, refusal: Refusal) -> None:
        """End the row's job, then take the row out of the way. Killed in between, both are done again."""
        log.error("event %s for %s is refused for good: %s", row["event_id"], row["topic"], refusal.error)
        passing("relay.refused")
        step = refused_events.end_of_run(row, refusal.error, self._refusals)
        if step is not None:
            await self._database.commit([step])
        passing("relay.job-ended")
        await db.execute(SQL["set_aside"], self._shard, row["id"], refusal.error)
        passing("relay.set-aside")
        self._metrics.refused_rows.labels(row["topic"]).inc()

    async def _tell(self, db: Any, troubles: dict[str, str]) -> None:
        """Let everybody know why rows are not published, if that has changed."""
        if troubles == self._told and troubles:
            return
        async with db.transaction():
            await db.execute(SQL["forget_trouble"], self._shard, list(troubles))
            if troubles:
                await db.execute(SQL["tell_trouble"], self._shard, list(troubles), list(troubles.values()))
        self._told = dict(troubles)

    async def _wait(self, db: Any) -> None:
        kept = self._quarantine
        due = await db.fetchval(SQL["next_due"], self._shard, kept.topics, kept.ids, kept.keys)
        moments = [seconds for seconds in (due, kept.wait_s(time.monotonic())) if seconds is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(min(moments, default=IDLE_S), 0.001), IDLE_S)):
                await self._wake.wait()


@contextlib.asynccontextmanager
async def _kept_alive(db: Any) -> AsyncIterator[None]:
    """Keep the shard while Kafka takes its time: PostgreSQL hears that this process does not hang."""
    done = asyncio.Event()

    async def ping() -> None:
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HUNG_S / 3):
                    await done.wait()
            if not done.is_set():
                await db.execute("SELECT 1")

    pinging = asyncio.create_task(ping())
    try:
        yield
    finally:
        done.set()
        await pinging
