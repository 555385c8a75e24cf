"""Offsets are kept here, not by Faust: what is committed never passes an event that is still being handled.

Stock faust-streaming 0.15.3 commits past events in flight: on the first commit of a group, when a handler finishes out
of order after one, and on every topic that a transactional producer writes, because the record after a transaction
marker is counted as a gap and thereby as done (upstream issue 606). A kill -9 then loses the event. `Offsets` is the
arithmetic that replaces it, `KeepingConsumer` puts it into Faust's consumer. This is the most dangerous file of the
repository: a mistake here loses recordings silently, and shows only when a worker dies.
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

#: Longest wait, in seconds, for handlers in flight when partitions move or the worker stops. What is not done by then
#: stays uncommitted and is delivered again.
WAIT_EMPTY_S = 8.0

#: Deliveries after which others have their turn of the event loop.
TURN = 16

#: Bytes of events, of one app, that were received and are not done. Faust's buffer counts records only: 2,048 of them,
#: of 850 kB each, were 1.7 GB. What a handler makes of a large event in JSON is up to ten times its size.
HELD_BYTES = 8 << 20

#: Bytes that Kafka sends an app at once, if the first record is not larger. aiokafka's own limit is 50 MB.
FETCH_BYTES = 4 << 20


class Offsets:
    """Per partition: which offsets were received and are not acked yet, and so how far it is safe to commit."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, dict[int, None]] = {}
        self._next: dict[Hashable, int] = {}

    def received(self, partition: Hashable, offset: int) -> None:
        """An event was delivered to us; until it is acked, nothing at or above it may be committed."""
        self._pending.setdefault(partition, {})[offset] = None
        self._next[partition] = max(offset + 1, self._next.get(partition, 0))

    def acked(self, partition: Hashable, offset: int) -> None:
        """The work of an event is durable. Unknown offsets (from before a rebalance) are ignored."""
        self._pending.get(partition, {}).pop(offset, None)

    def committable(self, partition: Hashable) -> int | None:
        """The offset to commit (that of the next event to read), or None while there is none to commit.

        The lowest pending offset; with nothing pending, the one after the last received. Never 0: to Kafka that says no
        more than having committed nothing, and Faust takes it for that.
        """
        pending = self._pending.get(partition)
        lowest = min(pending) if pending else self._next.get(partition)
        return lowest or None

    def unfinished(self, partition: Hashable) -> int | None:
        """The lowest offset that is not acked, or None."""
        return min(self._pending.get(partition) or (), default=None)

    @property
    def idle(self) -> bool:
        """Whether nothing that was received is still being handled."""
        return not any(self._pending.values())

    def forget(self, partitions: Iterable[Hashable]) -> None:
        """These partitions are another's now, or will be read again from what is committed."""
        for partition in list(partitions):
            self._pending.pop(partition, None)
            self._next.pop(partition, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._next))


class Held:
    """Bytes of what was received and is not done yet."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self._sizes: dict[Hashable, dict[int, int]] = {}
        self._bytes = 0
        self._room = asyncio.Event()

    async def add(self, partition: Hashable, offset: int, size: int) -> None:
        """Wait until there is room for so many bytes. What alone is too much comes in when nothing else is there."""
        while self._bytes and self._bytes + size > self._limit:
            self._room.clear()
            await self._room.wait()
        self.drop(partition, offset)
        self._bytes += size
        self._sizes.setdefault(partition, {})[offset] = size

    def drop(self, partition: Hashable, offset: int) -> None:
        """An event is done. Unknown ones are ignored."""
        self._bytes -= self._sizes.get(partition, {}).pop(offset, 0)
        self._room.set()

    def forget(self, partitions: Iterable[Hashable]) -> None:
        """What was received of these partitions is no concern of ours any more."""
        for partition in list(partitions):
            self._bytes -= sum(self._sizes.pop(partition, {}).values())
        self._room.set()


class _ReadCommitted(driver.AIOKafkaConsumerThread):
    """Reads only what its producer has committed: a relay's aborted batch never reaches a stage."""

    logger = driver.logger

    def _create_worker_consumer(self, transport: Any) -> Any:
        record_batches.install()
        consumer = super()._create_worker_consumer(transport)
        # Faust offers no setting for this outside exactly_once; the attribute is read when the consumer starts.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        consumer._fetch_max_bytes = FETCH_BYTES  # noqa: SLF001
        return consumer

    def _stopped_set(self) -> None:
        """Have the thread end, unless it has: after a crash it ends by itself, and closes its loop."""
        with contextlib.suppress(RuntimeError):
            super()._stopped_set()


class _Rest:
    """What is left of a coroutine that was begun by hand and now waits for something."""

    def __init__(self, begun: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._begun, self._awaited = begun, awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        awaited = self._awaited
        while True:
            try:
                try:
                    sent = yield awaited
                except BaseException as exc:  # noqa: BLE001 - cancellation, too, is the coroutine's to handle
                    awaited = self._begun.throw(exc)
                else:
                    awaited = self._begun.send(sent)
            except StopIteration as end:
                return end.value


class Unraced:
    """Part of a `mode.Service`: a race is not held if the first contender ends without waiting.

    Faust has every record race the end of the flow, in four tasks that take three turns of the event loop: a busy loop
    let 80 records a second through. Mostly there is room in the queue, and a delivery waits for nothing.
    """

    _unraced = 0

    async def wait_first(self, *contenders: Any, timeout: Any = None) -> Any:
        """As mode's; None if there was no race."""
        first, *others = contenders
        if not isinstance(first, Coroutine):
            return await super().wait_first(*contenders, timeout=timeout)  # type: ignore[misc]
        try:
            awaited = first.send(None)
        except BaseException as end:  # it ended, one way or the other
            for other in others:
                if isinstance(other, Coroutine):
                    other.close()
            if not isinstance(end, StopIteration):
                raise
            self._unraced += 1
            if self._unraced % TURN == 0:
                await asyncio.sleep(0)
            return None
        return await super().wait_first(_Rest(first, awaited), *others, timeout=timeout)  # type: ignore[misc]


class KeepingConsumer(Unraced, driver.Consumer):
    """Faust's consumer with the offsets kept by `Offsets`."""

    logger = driver.logger

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offsets = Offsets()
        self.held = Held()
        #: By topic, how often a position turned out to be beyond the log's end.
        self.lost_positions: Counter[str] = Counter()
        self._deliver: Callable[[Any], Awaitable[None]] = self.callback
        self.callback: Callable[[Any], Awaitable[None]] = self._receive

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ReadCommitted(self, loop=self.loop, beacon=self.beacon)

    async def _receive(self, message: Any) -> None:
        if self.app.topics.acks_enabled_for(message.topic):
            self.offsets.received(message.tp, message.offset)
            await self.held.add(message.tp, message.offset, _size(message))
        await self._deliver(message)

    def ack(self, message: Any) -> bool:
        """Mark the message as done; True the first time."""
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
        """Gaps (transaction markers, compaction) need no account: only what was received is waited for."""

    async def perform_seek(self) -> None:
        """Read on from what is committed; from the beginning where nothing is.

        aiokafka's `seek_to_committed` passes over partitions without a committed offset, and Faust takes 0 for none:
        after a rebalance they would be read on from where the last reading stopped.
        """
        # Whoever seeks resumes the flow then, and with that Faust empties the queues of its streams: what came in
        # meanwhile (after a table's recovery the flow is on) would be neither handled nor delivered again. In 5 of 17
        # runs of tests/system/test_track.py on a busy machine `track` stayed behind.
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
        """A committed offset after the last record is one of another log: the topic was made again, or Kafka restored.

        aiokafka would read on from the beginning, and Faust drop all of it as read already, without a word.
        """
        committed = {tp: offset for tp in self.assignment() if (offset := self._committed_offset.get(ensure_TP(tp)))}
        if not committed:
            return
        ends = await self.highwaters(*map(driver.ensure_aiokafka_TP, committed))
        for tp, end in ends.items():
            if committed.get(ensure_TP(tp), 0) > end:
                self._begin_anew(ensure_TP(tp), committed[ensure_TP(tp)], end)
                self._committed_offset[ensure_TP(tp)] = None

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """As Faust's. A record before what was read, in a log that does not reach so far, is one of another log."""
        async for tp, message in super().getmany(timeout):
            read = self._read_offset.get(tp)
            if read is not None and message.offset < read and (self.highwater(tp) or 0) < read:
                self._begin_anew(tp, read, self.highwater(tp) or 0)
            yield tp, message

    def _begin_anew(self, tp: TP, position: int, end: int) -> None:
        self.lost_positions[tp.topic] += 1
        text = "%s/%d: the position %d is beyond the log's end %d: it is another log, which is read from its start"
        log.error(text, tp.topic, tp.partition, position, end)
        self.held.forget([tp])
        self.offsets.forget([tp])
        self._read_offset[tp] = None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is done, then let go of the partitions."""
        await super().on_partitions_revoked(revoked)
        self.held.forget(revoked)
        self.offsets.forget(revoked)

    async def wait_empty(self) -> None:
        """Wait for handlers in flight, but never so long that the group gives us up: the rest is delivered again."""
        if self.crashed:  # its thread has ended, or is about to, and answers no more
            return
        give_up = time.monotonic() + WAIT_EMPTY_S
        while not self.should_stop and self._unacked_messages and time.monotonic() < give_up:
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
    """Faust's aiokafka transport with `KeepingConsumer` in it."""

    Consumer = KeepingConsumer
