"""Committed offsets: the table of cases in which stock Faust loses an event, and properties for any order."""

from __future__ import annotations

import asyncio

import pytest
from faust.transport.drivers.aiokafka import Consumer
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.offsets import HeldBytes, KeepingConsumer, Offsets

P = ("topic", 0)


def offsets(received: list[int], acked: list[int]) -> Offsets:
    kept = Offsets()
    for offset in received:
        kept.received(P, offset)
    for offset in acked:
        kept.acked(P, offset)
    return kept


@pytest.mark.parametrize(
    ("received", "acked", "commit"),
    [
        ([], [], None),
        ([0], [], None),
        ([0, 1], [1], None),  # stock: 2
        ([0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7], None),  # stock: 8
        ([0, 1, 2, 3, 4], [3, 4], None),  # stock: 5
        ([10, 11], [11], 10),  # stock: 12
        ([10, 11, 12, 13, 14, 16, 17], [10, 11, 12, 13, 14, 17], 16),  # 15 is a transaction marker; stock: 18
        ([0], [0], 1),
        ([10, 11, 12], [10, 11, 12], 13),
        ([10, 12, 14], [10, 12, 14], 15),
        ([10, 11, 12], [12, 10], 11),
    ],
)
def test_what_is_committed_never_passes_an_event_in_flight(received, acked, commit):
    assert offsets(received, acked).committable(P) == commit


def test_a_partition_that_moved_away_is_forgotten():
    kept = offsets([5, 6], [5])
    kept.forget([P])

    assert kept.committable(P) is None
    assert list(kept) == []


def test_an_ack_from_before_a_rebalance_changes_nothing():
    kept = offsets([5, 6], [])
    kept.forget([P])
    kept.acked(P, 5)
    kept.received(P, 7)

    assert kept.committable(P) == 7


def test_partitions_are_counted_apart():
    kept = offsets([5], [5])
    kept.received(("topic", 1), 90)

    assert kept.committable(P) == 6
    assert kept.committable(("topic", 1)) == 90


@given(st.lists(st.integers(0, 500), unique=True, min_size=1), st.data())
def test_whatever_the_order_of_acks_the_lowest_unfinished_event_is_read_again(numbers, data):
    received = sorted(numbers)
    acked = data.draw(st.lists(st.sampled_from(received), unique=True))
    pending = set(received) - set(acked)

    commit = offsets(received, acked).committable(P)

    if pending:
        assert commit == (min(pending) or None)
    else:
        assert commit == received[-1] + 1


@given(st.permutations(list(range(100, 130))))
def test_commits_only_rise(order):
    kept = offsets(list(range(100, 130)), [])
    seen = []
    for offset in order:
        kept.acked(P, offset)
        seen.append(kept.committable(P))

    assert seen == sorted(seen)
    assert seen[-1] == 130


async def waits(held: HeldBytes, offset: int, size: int, partition=P) -> asyncio.Task[None]:
    task = asyncio.create_task(held.add(partition, offset, size))
    await asyncio.sleep(0)
    return task


async def test_bytes_beyond_the_limit_wait_until_others_are_done():
    held = HeldBytes(limit=10)
    await held.add(P, 0, 6)
    second = await waits(held, 1, 5)
    assert not second.done()

    held.drop(P, 0)
    await asyncio.wait_for(second, 1)
    held.drop(P, 0)  # once more, as after a rebalance: that is no room
    third = await waits(held, 2, 6)
    assert not third.done()
    held.drop(P, 1)
    await asyncio.wait_for(third, 1)


async def test_what_is_larger_than_the_limit_comes_alone():
    held = HeldBytes(limit=10)
    await asyncio.wait_for(held.add(P, 0, 500), 1)
    small = await waits(held, 1, 1)
    assert not small.done()

    held.drop(P, 0)
    await asyncio.wait_for(small, 1)


async def test_a_partition_that_moved_away_holds_nothing():
    held = HeldBytes(limit=10)
    await held.add(P, 0, 6)
    await held.add(("topic", 1), 0, 4)
    waiting = await waits(held, 1, 6)
    held.forget([P])

    await asyncio.wait_for(waiting, 1)
    assert not (await waits(held, 2, 1)).done()


async def test_a_cancelled_waiter_holds_nothing():
    held = HeldBytes(limit=10)
    await held.add(P, 0, 10)
    (await waits(held, 1, 10)).cancel()
    held.drop(P, 0)

    await asyncio.wait_for(held.add(P, 2, 10), 1)


async def test_nothing_is_delivered_while_positions_are_set(monkeypatch):
    """What comes in before Faust resumes the flow is thrown out of the streams' queues when it does."""
    consumer = object.__new__(KeepingConsumer)
    consumer.offsets, consumer.held = Offsets(), HeldBytes()
    consumer.flow_active, consumer.can_resume_flow, consumer.suspend_flow = True, asyncio.Event(), asyncio.Event()
    flowing = []

    async def seek(self):
        flowing.append(self.flow_active)

    monkeypatch.setattr(Consumer, "perform_seek", seek)
    monkeypatch.setattr(KeepingConsumer, "_forget_positions_beyond_the_end", seek)
    monkeypatch.setattr(KeepingConsumer, "assignment", set)
    await consumer.perform_seek()

    assert flowing == [False, False]
    assert not consumer.flow_active  # whoever seeks resumes it
    assert consumer.suspend_flow.is_set()
