"""Publishes the outbox table to Kafka: each row exactly once for a `read_committed` consumer, even through crashes.

Each shard has one owner, elected by an advisory lock. It assigns a batch number to the next due rows (committed in
PostgreSQL), publishes them in one Kafka transaction that also commits that number as a consumer offset of
`relay.position`, then deletes them. After a crash, the number committed in Kafka shows whether the newest batch was
published: if so its rows are deleted, else it is published again with the same number. A fixed `transactional.id` per
shard fences a previous owner that still runs.

A batch that Kafka refuses is aborted before its rows are claimed again, under the next number and without the rows that
may be the cause: so a number never stands for two sets of rows of which one may have been published. A row that is
refused for good is moved to the table `outbox_refused`, after its job has ended.
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
from agents.runtime.outbox.quarantine import ParkedTopic, Quarantine, Retry, SuspectGroup
from schemas import topics
from schemas.errors import Unavailable
from sinks.ports.steps import Steps
from sinks.postgres.connection.connect import connect
from sinks.postgres.connection.errors import AWAY
from sinks.postgres.sql.queries import SQL

log = logging.getLogger(__name__)

#: Most rows and bytes in a regular batch, and in a batch that tries a parked topic again.
BATCH_ROWS, BATCH_BYTES, PARKED_ROWS, PARKED_BYTES = 500, 4 << 20, 20, 1 << 18

#: Seconds between two queries for due rows while no notification arrives.
IDLE_S = 1.0

#: Seconds without a query after which PostgreSQL ends the owner's session: the connection of a process that hangs, or
#: whose machine is lost, stays open, and its lock would be held for ever. Kafka fences what the owner may do later.
HUNG_S = 10

#: Seconds until a relay that failed is restarted, doubled with each failure in a row, and the longest.
RESTART_S, MAX_RESTART_S = 0.5, 5.0


class Relay:
    """The relay of one shard."""

    def __init__(
        self,
        dsn: str,
        kafka: Kafka,
        shard: int,
        metrics: Metrics,
        database: Steps,
        *,
        refusals: refused_events.Refusals = MappingProxyType({}),
        request_topic_check: Callable[[], None] = lambda: None,
        quarantine: Quarantine | None = None,
    ) -> None:
        """`database` ends the jobs of rows that are set aside. `request_topic_check` is called after errors that a
        missing topic, or a too low limit of one, may cause.
        """
        self._dsn = dsn
        self._shard = shard
        self._kafka = kafka
        self._metrics = metrics
        self._database = database
        self._refusals = refusals
        self._request_topic_check = request_topic_check
        self._quarantine = quarantine or Quarantine()
        self._publisher = Publisher(kafka, shard)
        self._wake = asyncio.Event()
        #: Ids of rows that are published and not deleted yet.
        self._published: list[int] = []
        #: Whether the next batch may be a retry.
        self._retry_next = False
        self._failures = 0
        #: By topic, the errors in the table `relay_trouble`.
        self._reported: dict[str, str] = {}

    async def run(self) -> None:
        """Publish whenever this process can own the shard, until cancelled. Raises nothing: errors restart it."""
        while True:
            try:
                await self._serve()
            except (KafkaError, TimeoutError, Unavailable, *AWAY) as exc:
                reason = str(exc) or type(exc).__name__
                detailed = log.isEnabledFor(logging.DEBUG)
                log.warning("relay %d starts again: %s: %s", self._shard, type(exc).__name__, reason, exc_info=detailed)
            except Exception:
                log.exception("relay %d starts again", self._shard)
            await asyncio.sleep(min(RESTART_S * 2.0 ** min(self._failures, 10), MAX_RESTART_S))
            self._failures += 1

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            timeouts = dict.fromkeys(("idle_session_timeout", "idle_in_transaction_session_timeout"), f"{HUNG_S}s")
            db = await connect(self._dsn, {"role": "concord_worker", "application_name": "relay", **timeouts})
            stack.callback(db.terminate)
            while not await db.fetchval(SQL["lock_shard"], self._shard):  # noqa: ASYNC110 - PostgreSQL does not notify of a released lock
                await asyncio.sleep(0.5)
            await db.add_listener(f"outbox_{self._shard}", lambda *_: self._wake.set())
            stack.push_async_callback(self._publisher.close)
            self._reported, self._published, self._retry_next = {}, [], False
            try:
                await self._publish_all(db)
            except (KafkaError, TimeoutError) as exc:
                self._request_topic_check()
                with contextlib.suppress(*AWAY):
                    await self._report(db, {"": f"{type(exc).__name__}: {exc}"[:500]})
                raise

    async def _publish_all(self, db: Any) -> None:
        async with _kept_alive(db):
            await self._publisher.start()
        newest = await self._recover(db)
        await self._report(db, self._quarantine.errors)
        log.info("relay %d serves from batch %d", self._shard, newest)
        while True:
            newest = await self._once(db, newest)
            self._failures = 0

    async def _recover(self, db: Any) -> int:
        """Complete the newest batch of a previous owner; the highest batch number so far."""
        row = await db.fetchrow(SQL["newest_batch"], self._shard)
        published = await self._published_batch()
        if row is None:
            return published
        if row["batch"] > published:
            rows = await db.fetch(SQL["batch_rows"], self._shard, row["ids"])
            if rows and not await self._publish(db, rows, row["batch"], None):
                return int(row["batch"])
        await db.execute(SQL["drop_rows"], self._shard, row["ids"])
        return max(published, int(row["batch"]))

    async def _published_batch(self) -> int:
        """The number of the last published batch, as committed in Kafka; 0 if there is none."""
        consumer = broker.consumer(self._kafka, group_id=GROUP)
        async with asyncio.timeout(HUNG_S - 2):
            await consumer.start()
            try:
                return int(await consumer.committed(TopicPartition(topics.RELAY_POSITION, self._shard)) or 0)
            finally:
                await consumer.stop()

    async def _once(self, db: Any, newest: int) -> int:
        """Delete the published rows, claim the next batch and publish it; else wait until a row is due.

        Returns:
            The highest batch number so far.
        """
        self._wake.clear()
        retry = self._quarantine.due(time.monotonic()) if self._retry_next else None
        async with db.transaction():
            if self._published:
                await db.execute(SQL["drop_rows"], self._shard, self._published)
            rows = await self._claim(db, newest + 1, retry)
        self._published = []
        self._retry_next = retry is None  # at most every other batch is a retry
        if rows:
            passing("relay.claimed")
            await self._publish(db, rows, newest + 1, retry)
            return newest + 1
        if retry is not None:
            self._quarantine.release(retry)  # its rows were deleted from the outbox meanwhile
            await self._report(db, self._quarantine.errors)
        elif self._quarantine.due(time.monotonic()) is None:
            await self._wait(db)
        return newest

    async def _claim(self, db: Any, batch: int, retry: Retry | None) -> list[Any]:
        """Assign the batch number to the next due rows, or to those of a retry, and return them."""
        match retry:
            case SuspectGroup():
                selection = [retry.ids, "", BATCH_ROWS, BATCH_BYTES]
                rows = await db.fetch(SQL["claim_apart"], self._shard, batch, *selection)
            case ParkedTopic():
                selection = [[], retry.topic, PARKED_ROWS, PARKED_BYTES]
                rows = await db.fetch(SQL["claim_apart"], self._shard, batch, *selection)
            case _:
                excluded = (self._quarantine.topics, self._quarantine.ids, self._quarantine.keys)
                rows = await db.fetch(SQL["claim_batch"], self._shard, batch, BATCH_ROWS, BATCH_BYTES, *excluded)
        return list(rows)

    async def _publish(self, db: Any, rows: Sequence[Any], batch: int, retry: Retry | None) -> bool:
        """Publish a claimed batch; False if it is refused: then nothing is ever published under its number."""
        try:
            async with _kept_alive(db):
                await self._publisher.publish(rows, batch)
        except BatchRefused as refused:
            await self._quarantine_rows(db, rows, retry, refused)
            return False
        passing("relay.published")
        self._published = [row["id"] for row in rows]
        self._metrics.relayed(self._shard, len(rows))
        self._quarantine.published(retry, rows, time.monotonic())
        if retry is not None:
            await self._report(db, self._quarantine.errors)
        return True

    async def _quarantine_rows(self, db: Any, rows: Sequence[Any], retry: Retry | None, refused: BatchRefused) -> None:
        """Quarantine the rows or topics that may be the cause, and replace the producer to abort the transaction."""
        level = logging.WARNING if retry is None else logging.INFO  # a retry's refusal was logged as a warning before
        log.log(level, "relay %d: a batch of %d rows is refused: %s", self._shard, len(rows), refused)
        now = time.monotonic()
        if refused.timestamps:
            self._publisher.timestamped = False
            log.error(
                "the database's clock is too far from Kafka's, see `concord doctor`: records go without timestamps"
            )
        refused_row = None
        if refused.topics:
            self._quarantine.park(retry, refused.topics, now)
        elif refused.rows:
            refused_row = self._quarantine.suspect(retry, rows, refused.rows, now)
        self._request_topic_check()
        await self._report(db, self._quarantine.errors)
        if refused.in_transaction:
            async with _kept_alive(db):
                await self._publisher.start()
        if refused_row is not None:
            await self._set_aside(db, *refused_row)

    async def _set_aside(self, db: Any, row: Any, refusal: Refusal) -> None:
        """End the row's job, then move the row to `outbox_refused`. After a kill in between, both are repeated."""
        log.error("event %s for %s is refused for good: %s", row["event_id"], row["topic"], refusal.error)
        passing("relay.refused")
        step = refused_events.end_of_run(row, refusal.error, self._refusals)
        if step is not None:
            await self._database.commit([step])
        passing("relay.job-ended")
        await db.execute(SQL["set_aside"], self._shard, row["id"], refusal.error)
        passing("relay.set-aside")
        self._metrics.refused_rows.labels(row["topic"]).inc()

    async def _report(self, db: Any, errors: dict[str, str]) -> None:
        """Write to `relay_trouble` why rows are not published, by topic, if that has changed."""
        if errors == self._reported and errors:
            return
        async with db.transaction():
            await db.execute(SQL["forget_trouble"], self._shard, list(errors))
            if errors:
                await db.execute(SQL["tell_trouble"], self._shard, list(errors), list(errors.values()))
        self._reported = dict(errors)

    async def _wait(self, db: Any) -> None:
        """Wait for a notification, the next due row, the next retry, or `IDLE_S`, whatever comes first."""
        excluded = (self._quarantine.topics, self._quarantine.ids, self._quarantine.keys)
        due_s = await db.fetchval(SQL["next_due"], self._shard, *excluded)
        waits = [seconds for seconds in (due_s, self._quarantine.wait_s(time.monotonic())) if seconds is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(min(waits, default=IDLE_S), 0.001), IDLE_S)):
                await self._wake.wait()


@contextlib.asynccontextmanager
async def _kept_alive(db: Any) -> AsyncIterator[None]:
    """Query PostgreSQL every few seconds while the context waits for Kafka, so that it does not end the session."""
    done = asyncio.Event()

    async def ping() -> None:
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HUNG_S / 3):
                    await done.wait()
            if not done.is_set():
                await db.execute("SELECT 1")

    task = asyncio.create_task(ping())
    try:
        yield
    finally:
        done.set()
        await task
