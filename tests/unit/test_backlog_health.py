"""What health probes report about events that are due and not published."""

from __future__ import annotations

import pytest

from agents.fleet.fleet import Fleet
from agents.fleet.settings import Settings
from agents.runtime.metrics import Metrics
from sinks.memory.database import MemoryDatabase
from sinks.ports.outbox import Overdue

ONE_TOPIC = Overdue(0, "persisted", 3, 75.4, "UnknownTopicOrPartition", apart=True)
EVERYTHING = Overdue(1, "asr.results", 200, 61.0, "KafkaConnectionError", apart=False)


def fleet(*roles: str, backlog: list[Overdue]) -> Fleet:
    """A fleet whose stages are none, so that nothing else is to be told."""
    it = Fleet(Settings(), roles, Metrics(), MemoryDatabase(), None, None, "http://x", None, None, None)  # type: ignore[arg-type]
    it.backlog = backlog
    return it


@pytest.mark.parametrize(
    ("backlog", "ready"), [([], True), ([ONE_TOPIC], True), ([EVERYTHING], False), ([ONE_TOPIC, EVERYTHING], False)]
)
async def test_a_worker_whose_relay_publishes_nothing_is_not_ready(backlog, ready):
    health = await fleet("relay", backlog=backlog).health()

    assert (health.alive, health.ready) == (True, ready)
    assert sum(name.startswith("outbox ") for name in health.details) == len(backlog)


async def test_every_worker_tells_which_events_wait_and_why():
    health = await fleet(backlog=[ONE_TOPIC, EVERYTHING]).health()

    assert health.ready, "it is not this worker's relay"
    assert health.details["outbox 0 persisted"] == "3 due for up to 75 s: UnknownTopicOrPartition"
    assert "KafkaConnectionError" in health.details["outbox 1 asr.results"]


def test_a_backlog_without_a_reason_says_what_to_look_at():
    assert "does one run" in str(Overdue(0, "persisted", 1, 90.0, None, apart=False))
