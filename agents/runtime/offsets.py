"""Replaces Faust's offset management, so that a committed offset never passes an event that is still being handled.

Stock faust-streaming 0.15.3 commits past events in flight: on the first commit of a group, when a handler finishes out
of order after one, and on every topic that a transactional producer writes, because the record after a transaction
marker is counted as a gap and thereby as done (upstream issue 606). A kill -9 then loses the event. `Offsets` computes
what may be committed, `KeepingConsumer` uses it in Faust's consumer. This is the most dangerous file of the repository:
a mistake here loses recordings silently, and becomes visible only when a worker is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Hashable, Iterable, Iterator
from typing import Any

from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.runtime.kafka import record_batches

log = logging.getLogger(__name__)

#: Longest wait, in seconds, for running handlers when partitions are reassigned or the worker stops. Events that are
#: not done by then stay uncommitted and are delivered again.
WAIT_EMPTY_S = 8.0

#: Deliveries without a wait, after which the consumer yields to the event loop.
DELIVERIES_PER_YIELD = 16

#: Bytes of events, of one app, that were received and are not done. Faust's buffer counts records only: 2,048 of them,
#: of 850 kB each, were 1.7 GB. The objects that a handler parses from a large JSON event take up to ten times its size.
HELD_BYTES = 8 << 20

#: Bytes that Kafka sends an app at once, unless the first record is larger. aiokafka's default is 50 MB.
FETCH_BYTES = 4 << 20


class Offsets:
    """By partition, the offsets that were received and not acknowledged, and so the offset that is safe to commit."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, dict[int, None]] = {}
        self._next: dict[Hashable, int] = {}

    def received(self, partition: Hashable, offset: int) -> None:
        """Note a delivered event. Until it is acknowledged, no higher offset is committed."""
        self._pending.setdefault(partition, {})[offset] = None
        self._next[partition] = max(offset + 1, self._next.get(partition, 0))

    def acked(self, partition: Hashable, offset: int) -> None:
        """Note that an event's work is durable. Unknown offsets (from before a rebalance) are ignored."""
        self._pending.get(partition, {}).pop(offset, None)

    def committable(self, partition: Hashable) -> int | None:
        """The offset to commit (that of the next event to read); None while there is none.

        It is the lowest pending offset, or the one after the last received if none is pending. It is never 0: that has
        the same effect in Kafka as no committed offset, and Faust treats it as none.
        """
        pending = self._pending.get(partition)
        lowest = min(pending) if pending else self._next.get(partition)
        return lowest or None

    def unfinished(self, partition: Hashable) -> int | None:
        """The lowest offset that is not acknowledged, or None."""
        return min(self._pending.get(partition) or (), default=None)

    @property
    def idle(self) -> bool:
        """Whether every received event is acknowledged."""
        return not any(self._pending.values())

    def forget(self, partitions: Iterable[Hashable]) -> None:
        """Drop the state of partitions that are revoked, or that will be read again from the committed offset."""
        for partition in list(partitions):
            self._pending.pop(partition, None)
            self._next.pop(partition, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._next))


class HeldBytes:
    """Limits the bytes of events that were received and are not done yet."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self._sizes: dict[Hashable, dict[int, int]] = {}
        self._bytes = 0
        self._freed = asyncio.Event()

    async def add(self, partition: Hashable, offset: int, size: int) -> None:
        """Wait until `size` bytes are below the limit. An event above the limit is added when there is no other."""
        while self._bytes and self._bytes + size > self._limit:
            self._freed.clear()
            await self._freed.wait()
        self.drop(partition, offset)
        self._bytes += size
        self._sizes.setdefault(partition, {})[offset] = size

    def drop(self, partition: Hashable, offset: int) -> None:
        """Subtract an event that is done. Unknown offsets are ignored."""
        self._bytes -= self._sizes.get(partition, {}).pop(offset, 0)
        self._freed.set()

    def forget(self, partitions: Iterable[Hashable]) -> None:
        """Subtract all events of these partitions."""
        for partition in list(partitions):
            self._bytes -= sum(self._sizes.pop(partition, {}).values())
        self._freed.set()


class _ReadCommittedThread(driver.AIOKafkaConsumerThread):
    """A consumer thread with isolation level `read_committed`: no stage receives a batch that the relay aborted."""

    logger = driver.logger

    def _create_worker_consumer(self, transport: Any) -> Any:
        record_batches.install()
        consumer = super()._create_worker_consumer(transport)
        # Faust offers no setting for this outside exactly_once; the attribute is read when the consumer starts.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        consumer._fetch_max_bytes = FETCH_BYTES  # noqa: SLF001
        return consumer

    def _stopped_set(self) -> None:
        """Stop the thread, unless it has ended: after a crash it ends by itself, and closes its loop."""
        with contextlib.suppress(RuntimeError):
            super()._stopped_set()


class _StartedCoroutine:
    """Makes a coroutine awaitable whose first step has been run by `send(None)`, and which waits for `awaited`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coroutine, self._awaited = coroutine, awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        awaited = self._awaited
        while True:
            try:
                try:
                    value = yield awaited
                except BaseException as exc:  # noqa: BLE001 - cancellation, too, is the coroutine's to handle
                    awaited = self._coroutine.throw(exc)
                else:
                    awaited = self._coroutine.send(value)
            except StopIteration as end:
                return end.value


class Unraced:
    """A mixin of `mode.Service` that skips asyncio.wait when the first awaitable completes synchronously.

    Faust waits for the delivery of each record and for the end of the flow at once, in four tasks that take three
    iterations of the event loop: a busy loop delivered 80 records a second. Mostly the queue has room, and a delivery
    completes without waiting.
    """

    _unraced = 0

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """As mode's; None if the first awaitable completed synchronously. Raises what that awaitable raises."""
        first, *others = coros
        if not isinstance(first, Coroutine):
            return await super().wait_first(*coros, timeout=timeout)  # type: ignore[misc]
        try:
            awaited = first.send(None)
        except BaseException as end:  # it returned or raised
            for other in others:
                if isinstance(other, Coroutine):
                    other.close()
            if not isinstance(end, StopIteration):
                raise
            self._unraced += 1
            if self._unraced % DELIVERIES_PER_YIELD == 0:
                await asyncio.sleep(0)
            return None
        return await super().wait_first(_StartedCoroutine(first, awaited), *others, timeout=timeout)  # type: ignore[misc]


class KeepingConsumer(Unraced, driver.Consumer):
    """Faust's consumer, which commits what `Offsets` allows and holds no more than `HELD_BYTES`."""

    logger = driver.logger

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offsets = Offsets()
        self.held = HeldBytes()
        #: By topic, how often a position was beyond the log's end.
        self.lost_positions: Counter[str] = Counter()
        self._deliver: Callable[[Any], Awaitable[None]] = self.callback
        self.callback: Callable[[Any], Awaitable[None]] = self._receive

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _receive(self, message: Any) -> None:
        if self.app.topics.acks_enabled_for(message.topic):
            self.offsets.received(message.tp, message.offset)
            await self.held.add(message.tp, message.offset, _size(message))
        await self._deliver(message)

    def ack(self, message: Any) -> bool:
        """Acknowledge a message whose work is durable; True the first time."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        self.offsets.acked(message.tp, message.offset)
        self.held.drop(message.tp, message.offset)
        waiting = self._waiting_for_ack
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.offsets if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.offsets.committable(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Ignore gaps (transaction markers, compaction): only offsets of received events are pending."""

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, and to the beginning of partitions without one.

        aiokafka's `seek_to_committed` ignores partitions without a committed offset, and Faust treats 0 as none: after
        a rebalance they would be read on from the previous position.
        """
        # The caller resumes the flow after the seek, and Faust then empties the queues of its streams: events that are
        # received in between (after a table's recovery the flow is on) would be neither handled nor delivered again. In
        # 5 of 17 runs of tests/system/test_track.py on a busy machine `track` stayed behind.
        self.stop_flow()
        self.held.forget(self.offsets)
        self.offsets.forget(self.offsets)
        await super().perform_seek()
        await self._forget_positions_beyond_the_end()
        fresh = [tp for tp in self.assignment() if self._is_fresh(tp)]
        if fresh:
            await self._thread.seek_to_beginning(*map(driver.ensure_aiokafka_TP, fresh))
            self._read_offset.update(dict.fromkeys(map(ensure_TP, fresh)))

    def _is_fresh(self, tp: Any) -> bool:
        return self.app.topics.acks_enabled_for(tp.topic) and not self._committed_offset.get(ensure_TP(tp))

    async def _forget_positions_beyond_the_end(self) -> None:
        """Drop committed offsets after the last record: the topic was deleted and created again, or Kafka restored.

        aiokafka would read such a partition from the beginning, and Faust would silently drop its records as read.
        """
        committed = {tp: offset for tp in self.assignment() if (offset := self._committed_offset.get(ensure_TP(tp)))}
        if not committed:
            return
        ends = await self.highwaters(*map(driver.ensure_aiokafka_TP, committed))
        for tp, end in ends.items():
            if committed.get(ensure_TP(tp), 0) > end:
                self._restart_partition(ensure_TP(tp), committed[ensure_TP(tp)], end)
                self._committed_offset[ensure_TP(tp)] = None

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """As Faust's. A record below the read offset, in a log that ends below it, belongs to another log: then the
        partition is read from its beginning.
        """
        async for tp, message in super().getmany(timeout):
            position = self._read_offset.get(tp)
            if position is not None and message.offset < position and (self.highwater(tp) or 0) < position:
                self._restart_partition(tp, position, self.highwater(tp) or 0)
            yield tp, message

    def _restart_partition(self, tp: TP, position: int, end: int) -> None:
        self.lost_positions[tp.topic] += 1
        text = "%s/%d: the position %d is beyond the log's end %d: it is another log, which is read from its beginning"
        log.error(text, tp.topic, tp.partition, position, end)
        self.held.forget([tp])
        self.offsets.forget([tp])
        self._read_offset[tp] = None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit the offsets of what is done, then drop the state of these partitions."""
        await super().on_partitions_revoked(revoked)
        self.held.forget(revoked)
        self.offsets.forget(revoked)

    async def wait_empty(self) -> None:
        """Wait for running handlers, at most `WAIT_EMPTY_S`, within which the group does not expel the consumer. Events
        of the other handlers are delivered again.
        """
        if self.crashed:  # its thread has ended, or is about to, and answers no requests
            return
        deadline = time.monotonic() + WAIT_EMPTY_S
        while not self.should_stop and self._unacked_messages and time.monotonic() < deadline:
            await self.commit()
            await self._wait_for_ack(timeout=1)
            self._clean_unacked_messages()
        await self.commit_and_end_transactions()


def _size(message: Any) -> int:
    return (
        len(message.key or b"")
        + len(message.value or b"")
        + sum(len(name) + len(value or b"") + 100 for name, value in message.headers or ())
    )


class Transport(driver.Transport):
    """Faust's aiokafka transport with `KeepingConsumer` as its consumer."""

    Consumer = KeepingConsumer
