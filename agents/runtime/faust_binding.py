"""Stages on Faust: one app, and so one consumer group, each. `offsets`, `kafka.client` and `fleet.build` know
Faust, too.
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
from agents.runtime.group_commit import TOLD_S, Committer
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

#: Seconds between looks at whether an app still runs; that a part of one that crashed has for ending; and after which
#: its thread should have ended. Without Kafka that takes two request timeouts of 30 s.
LOOK_S, PART_END_S, HUNG_S = 0.2, 3.0, 90.0


def faust_app(name: str, kafka: Kafka, data: Path, **more: Any) -> faust.App:
    """An app that loses nothing: settings that survived faults, our consumer, no autodiscovery, no web server of
    Faust's own.
    """
    _refuse_slow_streams()
    folder = data / "tables" / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)  # whatever our umask: tables hold what jobs are called
    app = faust.App(
        f"concord.{name}",
        broker=[URL(f"aiokafka://{server}") for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=kafka.faust_credentials(),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        processing_guarantee="at_least_once",
        # Both bounded by KeepingConsumer.wait_empty.
        stream_wait_empty=True,
        broker_rebalance_timeout=60,
        # After a kill -9 the group waits this long for the dead member.
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_request_timeout=30,
        # A worker without partitions, or with all of them full, must not be put out of the group.
        broker_max_poll_interval=31_536_000,
        broker_commit_interval=1,
        # At most a tenth of the buffer, or one full queue blocks the app's only fetch loop.
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


def _refuse_slow_streams() -> None:
    """Faust's pure Python streams ack stale events that they skip; only the compiled ones do not."""
    from faust._cython.streams import StreamIterator  # noqa: F401 - an ImportError here is the refusal


def record_of(message: Any) -> Record:
    """Faust's message as a record."""
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        tuple(message.headers or ()),
        round((message.timestamp or 0) * 1000),  # Faust has seconds; cut off, a millisecond would go missing
        message.checksum if isinstance(message.checksum, Flaw) else None,
    )


class Driver:
    """Runs one stage on its app: many events at once, each acked when its step is committed, and not before."""

    def __init__(
        self, stage: Stage, committer: Committer, metrics: Metrics, backpressure: Backpressure, skips: Skips
    ) -> None:
        self._stage = stage
        self._skips = skips
        self._admission = backpressure
        self._committer = committer
        self._metrics = metrics
        self._slots = asyncio.Semaphore(stage.concurrency)
        #: Events in work, and since when.
        self._tasks: dict[asyncio.Task[None], float] = {}
        self._kind = stage.name.partition(".")[0]
        self._told = -TOLD_S

    @property
    def stage_name(self) -> str:
        """Which stage it runs."""
        return self._stage.name

    @property
    def oldest_s(self) -> float:
        """For how many seconds the oldest event has been in work."""
        oldest = min(self._tasks.values(), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def attach(self, app: faust.App) -> None:
        """Make the stage the app's agent."""
        topic = app.topic(
            *self._stage.topics, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes
        )

        @app.agent(topic, name=self._stage.name)
        async def drive(stream: Any) -> None:
            manual = stream.noack()
            async for event in manual.events():
                await self.take(record_of(event.message), partial(manual.ack, event))

    async def take(self, record: Record, ack: Callable[[], Awaitable[Any]]) -> None:
        """Begin one event; waits while too many are in flight, or the process is too busy for its kind."""
        await self._slots.acquire()
        try:
            if self._stage.rank is not None:
                new = self._stage.begins and record.topic != self._stage.due.name
                await self._admission.enter(None if new else self._stage.rank)
        except BaseException:
            self._slots.release()
            raise
        task = asyncio.create_task(self._work(record, ack))
        self._tasks[task] = time.monotonic()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Not at the end of the task itself: one that is cancelled before its first turn has none, and the gate, which
        other stages of the process share, would count it for ever.
        """
        del self._tasks[task]
        self._slots.release()
        if self._stage.rank is not None:
            self._admission.leave()

    async def _work(self, record: Record, ack: Callable[[], Awaitable[Any]]) -> None:
        try:
            done = await self._step(record)
            passing(f"{self._kind}.before-commit")
            stored = await self._committer.commit(done)
            passing(f"{self._kind}.after-commit")
            await ack()
            self._metrics.handled(stored)
            if (skip := self._skips.of(record)) is not None:
                await self._skips.done(skip, self.stage_name)
        except Exception:  # nothing of the above raises any: an event that is not acked comes again after a restart
            log.exception("%s: an event of %s/%d stays", self._stage.name, record.topic, record.partition)

    async def _step(self, record: Record) -> Step:
        """The step, however long our own servers are away."""
        tries = 0
        while True:
            skip = self._skips.of(record)
            try:
                return await step(self._stage if skip is None else refusing(self._stage, skip), record)
            except Unavailable as exc:
                if time.monotonic() - self._told >= TOLD_S:
                    self._told = time.monotonic()
                    waiting = self.stage_name, len(self._tasks), self.oldest_s
                    log.warning("%s: %d events wait, the oldest for %.0f s: %s", *waiting, exc)
                await asyncio.sleep(min(backoff_s(tries), 5.0))
                tries += 1

    async def close(self) -> None:
        """Let go of what is in flight; it is uncommitted and comes again elsewhere."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class FaustTable:
    """`web.ports.LiveJobs` on the table of a `TableStage`."""

    def __init__(self, app: faust.App, table: Any) -> None:
        self._app = app
        self._table = table

    def _settled(self) -> bool:
        return bool(self._app.started and not self._app.rebalancing and not self._app.in_recovery)

    def close(self) -> None:
        """Close the files. Faust leaves that to a garbage collection, which a crashed app, still referred to, escapes:
        then no other app of this process could open them.
        """
        files = self._table.data._dbs  # noqa: SLF001 - there is no other way to them
        while files:
            files.popitem()[1].close()

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """This worker's row; None while partitions move or the table is read back."""
        row = self._table.get(ids.job_key(tenant_id, job_id)) if self._settled() else None
        return JobStatus.model_validate(row) if row else None


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
    """The app that owns a table, and the table."""
    # Workers ask PostgreSQL and not each other: whoever speaks to the broker may join the group with any address. One
    # address for all, because a member that comes back as `CONCORD_INSTANCE` gets the assignment that it had, which
    # Faust's assignor refuses if another address is in it.
    app = faust_app(
        stage.name, kafka, data, store="rocksdb://", table_standby_replicas=0, canonical_url="http://concord", **more
    )
    # No value_type: with one, the changelog cannot be decoded and the table comes up empty.
    table = app.Table(stage.table, partitions=kafka.partitions, key_type=str)
    topic = app.topic(stage.topic.name, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

    @app.agent(topic, name=stage.name)
    async def follow(stream: Any) -> None:
        # Acked by hand: the compiled stream's own acks go past the consumer's `ack`, and so past our offsets.
        manual = stream.noack()
        async for event in manual.events():
            try:
                await take(record_of(event.message))
            except Exception as exc:
                # An agent that fails is started again by Faust, beside an event that nobody handles any more.
                await app.crash(exc)
                raise
            await manual.ack(event)
            metrics.tracked()

    async def take(record: Record) -> None:
        skip = skips.of(record)
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
            table[stage.key_of(status)] = status.model_dump(mode="json")
            changed(status)

    return app, FaustTable(app, table)


async def run_app(app: faust.App, started: Callable[[], None], stop_s: float) -> None:
    """Run an app until it fails, which is raised; several live well in one event loop. An app does not start twice.

    Cancelled, it is stopped, for at most `stop_s` seconds: what it had in flight then is not acked.

    Raises:
        StageCrashed: it has crashed.
        Hung: it has crashed, and does not end.
    """
    try:
        await app.start()
        started()
        while not app.should_stop:  # noqa: ASYNC110 - crashed or stopped: two events, and nothing waits for either
            await asyncio.sleep(LOOK_S)
        raise StageCrashed(_positions(app)) from app.crash_reason
    except asyncio.CancelledError:
        await _stop(app, stop_s)
        raise
    except Exception as exc:
        await _stop(app, stop_s, each_s=PART_END_S)
        if not await _ended(app):
            raise Hung(f"{app.conf.id} has crashed and does not end") from exc
        raise


def _positions(app: faust.App) -> tuple[Position, ...]:
    """Where it was: what it had begun and not done first, then what it would have read next."""
    consumer = app.consumer
    offsets = consumer.offsets
    begun = [(tp, offset) for tp in offsets if (offset := offsets.unfinished(tp)) is not None]
    done = {tp: offsets.committable(tp) for tp in offsets if offsets.unfinished(tp) is None}
    read = {tp: offset for tp, offset in consumer._read_offset.items() if tp not in dict(begun)}  # noqa: SLF001
    return tuple(Position(tp.topic, tp.partition, offset or 0) for tp, offset in [*begun, *(read | done).items()])


async def _stop(app: faust.App, limit_s: float, each_s: float | None = None) -> None:
    """Stop it, for at most `limit_s` seconds; the parts of it one after the other, each for at most `each_s`."""
    stopping = asyncio.ensure_future(app.stop())
    give_up = time.monotonic() + limit_s
    while not stopping.done() and time.monotonic() < give_up:
        await asyncio.wait({stopping}, timeout=each_s or limit_s)
        if not stopping.done():
            stopping.cancel()  # of the part that it waits for: then it goes on with the next
    if stopping.done() and not stopping.cancelled() and (exc := stopping.exception()) is not None:
        log.warning("%s: %r while it stopped", app.conf.id, exc)


async def _ended(app: faust.App) -> bool:
    """Wait for the thread of its consumer, which has a place in the group as long as it lives; False if it hangs."""
    thread = app.consumer._thread._thread  # noqa: SLF001 - there is no other way to it
    give_up = time.monotonic() + HUNG_S
    while thread is not None and thread.is_alive():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(LOOK_S)
    return True
