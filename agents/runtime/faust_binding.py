"""Runs stages on Faust: one app, and so one consumer group, per stage. Besides this module, only `offsets`,
`kafka.client` and `fleet.build` depend on Faust.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import faust
from yarl import URL

from agents.runtime.backpressure import Backpressure
from agents.runtime.failpoints import passing
from agents.runtime.group_commit import LOG_INTERVAL_S, Committer
from agents.runtime.kafka.client import MAX_RECORD_BYTES, Kafka
from agents.runtime.metrics import Metrics
from agents.runtime.offsets import Transport
from agents.runtime.skips import Skips, refusing
from agents.runtime.stage import Stage, TableStage, backoff_s, step, undeliverable
from agents.runtime.supervision import Hung, Position, StageCrashed
from schemas import ids
from schemas.envelope import Flaw, Record
from schemas.errors import InvalidInput, MalformedEvent, Skipped, Unavailable
from schemas.events.job import JobStatus
from schemas.jobs.outcome import Failure, Step
from schemas.texts import described

log = logging.getLogger(__name__)

#: Seconds between two checks of whether an app still runs.
CHECK_S = 0.2

#: Seconds within which each service of a crashed app must stop, and within which its consumer's thread must end, which
#: takes two request timeouts of 30 s while Kafka is away.
SERVICE_STOP_S, HUNG_S = 3.0, 90.0

#: Rows of a table that are remembered as statuses.
RECENT = 1024


def faust_app(name: str, kafka: Kafka, data: Path, **more: Any) -> faust.App:
    """A Faust app that loses no events: with settings that were tested under faults, our consumer, no autodiscovery,
    and no web server of Faust's.
    """
    _require_compiled_streams()
    folder = data / "tables" / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)  # whatever the umask: tables contain names of files and customers
    app = faust.App(
        f"concord.{name}",
        broker=[URL(f"aiokafka://{server}") for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=kafka.faust_credentials(),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        processing_guarantee="at_least_once",
        # Both are bounded by KeepingConsumer.wait_empty.
        stream_wait_empty=True,
        broker_rebalance_timeout=60,
        # Seconds for which the group waits for a member that was killed.
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_request_timeout=30,
        # A worker without partitions, or with a full buffer for each, must not be removed from the group.
        broker_max_poll_interval=31_536_000,
        broker_commit_interval=1,
        # At most a tenth of the buffer: otherwise one full queue blocks the app's only fetch loop.
        broker_max_poll_records=200,
        stream_buffer_maxsize=2048,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.005,
        producer_max_request_size=MAX_RECORD_BYTES,
        datadir=str(folder),
        loghandlers=[],
        **more,
    )
    app.transport = Transport(app.conf.broker_consumer, app)
    return app


def _require_compiled_streams() -> None:
    """Require Faust's compiled streams: those in pure Python ack stale events that they skip.

    Raises:
        ImportError: Faust was installed without its compiled modules.
    """
    from faust._cython.streams import StreamIterator  # noqa: F401 - only the import is needed


def record_of(message: Any) -> Record:
    """A message of Faust as a record."""
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        tuple(message.headers or ()),
        round((message.timestamp or 0) * 1000),  # in Faust in seconds; truncation could lose a millisecond
        message.checksum if isinstance(message.checksum, Flaw) else None,
    )


class Driver:
    """Runs one stage on its app: handles many events concurrently, and acks each only after its step is committed."""

    def __init__(
        self, stage: Stage, committer: Committer, metrics: Metrics, backpressure: Backpressure, skips: Skips
    ) -> None:
        self._stage = stage
        self._skips = skips
        self._backpressure = backpressure
        self._committer = committer
        self._metrics = metrics
        self._slots = asyncio.Semaphore(stage.concurrency)
        #: By task of an event that is being handled, the monotonic time of its start.
        self._tasks: dict[asyncio.Task[None], float] = {}
        self._kind = stage.name.partition(".")[0]
        self._logged_at = -LOG_INTERVAL_S

    @property
    def stage_name(self) -> str:
        """The name of the stage that it runs."""
        return self._stage.name

    @property
    def oldest_s(self) -> float:
        """Seconds for which the oldest event has been handled; 0 without one."""
        oldest = min(self._tasks.values(), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def attach(self, app: faust.App) -> None:
        """Register the stage as the app's agent."""
        topic = app.topic(
            *self._stage.topics, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes
        )

        @app.agent(topic, name=self._stage.name)
        async def drive(stream: Any) -> None:
            unacked = stream.noack()
            async for event in unacked.events():
                if self._stage.begins:
                    self._backpressure.backlog = unacked.channel.queue.qsize()
                await self.take(record_of(event.message), partial(unacked.ack, event))

    async def take(self, record: Record, ack: Callable[[], Awaitable[Any]]) -> None:
        """Start handling one event. Waits while too many events are handled, or while the process is too busy for its
        rank.
        """
        await self._slots.acquire()
        try:
            if self._stage.rank is not None:
                new = self._stage.begins and record.topic != self._stage.due.name
                await self._backpressure.enter(None if new else self._stage.rank)
        except BaseException:
            self._slots.release()
            raise
        task = asyncio.create_task(self._handle(record, ack))
        self._tasks[task] = time.monotonic()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Release the event's slot. As a callback and not at the end of the task itself: a task that is cancelled
        before it first runs has no end, and `Backpressure`, which all stages of the process share, would count it for
        ever.
        """
        del self._tasks[task]
        self._slots.release()
        if self._stage.rank is not None:
            self._backpressure.leave()

    async def _handle(self, record: Record, ack: Callable[[], Awaitable[Any]]) -> None:
        try:
            pending = await self._step(record)
            passing(f"{self._kind}.before-commit")
            stored = await self._committer.commit(pending)
            passing(f"{self._kind}.after-commit")
            await ack()
            self._metrics.handled(stored)
            if (skip := self._skips.of(record)) is not None:
                await self._skips.done(skip, self.stage_name)
        except Exception:  # unexpected; an event that is not acked is delivered again after a restart
            log.exception("%s: an event of %s/%d is not acked", self._stage.name, record.topic, record.partition)

    async def _step(self, record: Record) -> Step:
        """The record's step, however long our own servers are away."""
        tries = 0
        while True:
            skip = self._skips.of(record)
            try:
                return await step(self._stage if skip is None else refusing(self._stage, skip), record)
            except Unavailable as exc:
                if time.monotonic() - self._logged_at >= LOG_INTERVAL_S:
                    self._logged_at = time.monotonic()
                    waiting = self.stage_name, len(self._tasks), self.oldest_s
                    log.warning("%s: %d events wait, the oldest for %.0f s: %s", *waiting, exc)
                await asyncio.sleep(min(backoff_s(tries), 5.0))
                tries += 1

    async def close(self) -> None:
        """Cancel the events that are handled. They are not committed, and are delivered again to another worker."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class FaustTable:
    """The Faust table of a `TableStage`, as `web.ports.LiveJobs`."""

    def __init__(self, app: faust.App, table: Any) -> None:
        self._app = app
        self._table = table
        #: By key, rows that were read or written last, as statuses. All writes of this process go through `put` and
        #: `delete`; what else changes rows is a recovery, which begins with a rebalance. (To read each row anew, and
        #: compare it, took a tenth of the CPU time of a request for a status.)
        self._recent: dict[str, JobStatus] = {}
        self._rebalances = 0

    def _is_current(self) -> bool:
        is_current = bool(self._app.started and not self._app.rebalancing and not self._app.in_recovery)
        if not is_current or self._rebalances != self._app.rebalancing_count:
            self._recent.clear()
            self._rebalances = self._app.rebalancing_count
        return is_current

    def close(self) -> None:
        """Close the table's files. Faust leaves that to the garbage collector, which does not collect a crashed app
        that is still referred to; no other app of this process could then open the files.
        """
        files = self._table.data._dbs  # noqa: SLF001 - Faust has no public access to them
        while files:
            files.popitem()[1].close()

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """The job's row; None if this worker does not have it, or while partitions move or the table is recovered."""
        if not self._is_current():
            return None
        key = ids.job_key(tenant_id, job_id)
        status = self._recent.pop(key, None)
        if status is None:
            row = self._table.get(key)
            if not row:
                return None
            status = JobStatus.model_validate(row)
        self._remember(key, status)
        return status

    def put(self, key: str, status: JobStatus) -> None:
        """Store a row. Only while an event of its partition is handled."""
        self._table[key] = status.model_dump(mode="json")
        self._recent.pop(key, None)
        self._remember(key, status)

    def delete(self, key: str) -> None:
        """Delete a row, if there is one; as `put`."""
        self._table.pop(key, None)
        self._recent.pop(key, None)

    def _remember(self, key: str, status: JobStatus) -> None:
        self._recent[key] = status
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]


def table_app(
    stage: TableStage,
    kafka: Kafka,
    data: Path,
    committer: Committer,
    metrics: Metrics,
    changed: Callable[[JobStatus], None],
    skips: Skips,
    **more: Any,
) -> tuple[faust.App, FaustTable]:
    """The app that keeps a table, and the table. `changed` is called with each new status."""
    # Workers query PostgreSQL and not each other, because any client of the broker can join the group under any
    # address. All members have one address, because a member that returns as the same `CONCORD_INSTANCE` gets its
    # former assignment, which Faust's assignor refuses if it contains another address.
    app = faust_app(
        stage.name, kafka, data, store="rocksdb://", table_standby_replicas=0, canonical_url="http://concord", **more
    )
    # No value_type: with one, the changelog cannot be decoded and the table comes up empty.
    table = app.Table(stage.table, partitions=kafka.partitions, key_type=str)
    topic = app.topic(stage.topic.name, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)
    statuses = FaustTable(app, table)

    @app.agent(topic, name=stage.name)
    async def follow(stream: Any) -> None:
        # Acked explicitly: the compiled stream's own acks bypass the consumer's `ack`, and so our offsets.
        unacked = stream.noack()
        async for event in unacked.events():
            try:
                await take(record_of(event.message))
            except Exception as exc:
                # Otherwise Faust restarts the failed agent, which never handles this event.
                await app.crash(exc)
                raise
            await unacked.ack(event)
            metrics.tracked()

    async def take(record: Record) -> None:
        skip = skips.of(record)
        if skip is None and (key := stage.deleted(record)) is not None:
            statuses.delete(key)
            return
        try:
            if skip is not None:
                raise Skipped(skip.reason)
            status = stage.newest(table.get, record)
        except (InvalidInput, ValueError, RecursionError) as exc:
            code = exc.code if isinstance(exc, InvalidInput) else MalformedEvent.code
            await committer.commit(undeliverable(stage.name, record, Failure(described(exc), code)))
            if skip is not None:
                await skips.done(skip, stage.name)
            return
        if status is not None:
            statuses.put(stage.key_of(status), status)
            changed(status)

    return app, statuses


async def run_app(app: faust.App, started: Callable[[], None], stop_s: float) -> None:
    """Run an app until it fails. Several apps can run in one event loop; an app cannot be started twice.

    When this is cancelled, the app is stopped, within `stop_s` seconds; events that are then still handled are not
    acked.

    Raises:
        StageCrashed: The app has crashed.
        Hung: The app has crashed, and its consumer's thread does not end.
    """
    try:
        await app.start()
        started()
        while not app.should_stop:  # noqa: ASYNC110 - Faust has no event for "crashed or stopped"
            await asyncio.sleep(CHECK_S)
        raise StageCrashed(_positions(app)) from app.crash_reason
    except asyncio.CancelledError:
        await _stop(app, stop_s)
        raise
    except Exception as exc:
        await _stop(app, stop_s, each_s=SERVICE_STOP_S)
        if not await _ended(app):
            raise Hung(f"{app.conf.id} has crashed and does not end") from exc
        raise


def _positions(app: faust.App) -> tuple[Position, ...]:
    """The app's positions: first those of unfinished events, then those of the records that it would have read next."""
    consumer = app.consumer
    offsets = consumer.offsets
    unfinished = [(tp, offset) for tp in offsets if (offset := offsets.unfinished(tp)) is not None]
    done = {tp: offsets.committable(tp) for tp in offsets if offsets.unfinished(tp) is None}
    read = {tp: offset for tp, offset in consumer._read_offset.items() if tp not in dict(unfinished)}  # noqa: SLF001
    return tuple(Position(tp.topic, tp.partition, offset or 0) for tp, offset in [*unfinished, *(read | done).items()])


async def _stop(app: faust.App, limit_s: float, each_s: float | None = None) -> None:
    """Stop the app within `limit_s` seconds. Its services stop one after the other, each within `each_s` seconds."""
    stopping = asyncio.ensure_future(app.stop())
    deadline = time.monotonic() + limit_s
    while not stopping.done() and time.monotonic() < deadline:
        await asyncio.wait({stopping}, timeout=each_s or limit_s)
        if not stopping.done():
            stopping.cancel()  # cancels the stop of one service; the app continues with the next
    if stopping.done() and not stopping.cancelled() and (exc := stopping.exception()) is not None:
        log.warning("%s raised %r while it stopped", app.conf.id, exc)


async def _ended(app: faust.App) -> bool:
    """Wait for the end of the consumer's thread, which is in the group as long as it runs; False if it hangs."""
    thread = app.consumer._thread._thread  # noqa: SLF001 - Faust has no public access to it
    deadline = time.monotonic() + HUNG_S
    while thread is not None and thread.is_alive():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(CHECK_S)
    return True
