"""Reports of workers and instructions of operators; see `sinks.ports.operations`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.operations import AppFailure, Skip
from sinks.memory.operations import MemoryOperations
from sinks.postgres.operations import PostgresOperations
from tests.contract.databases.doubles import OfMemory

SKIP = Skip("audio.uploaded", 2, 17, "it kills the prober", timestamp_ms=-5, unread=False)


@pytest.fixture
def operations(under_test):
    return MemoryOperations() if isinstance(under_test, OfMemory) else PostgresOperations(under_test.pool)


async def test_a_workers_report_replaces_its_report_before(operations):
    intake = AppFailure("host/1", "intake", 3, 'it\'s "odd"', ("audio.uploaded/2/17", "intake.due/0/3"))
    other = AppFailure("host/2", "track", 2, "OSError: full")
    await operations.keep_failures("host/1", [intake, AppFailure("host/1", "persist", 2, "?")])
    await operations.keep_failures("host/2", [other])
    await operations.keep_failures("host/1", [replace(intake, failures=4)])

    assert [replace(found, seen_s=0.0) for found in await operations.failures()] == [replace(intake, failures=4), other]
    await operations.keep_failures("host/1", [])
    assert [found.worker for found in await operations.failures()] == ["host/2"]


async def test_a_skip_is_kept_until_it_is_asked_for_again(operations):
    await operations.ask(SKIP)
    assert await operations.skips() == [SKIP]
    assert await operations.done_by(SKIP) == []

    await operations.done(SKIP, "intake")
    await operations.done(SKIP, "intake")
    assert await operations.done_by(SKIP) == ["intake"]

    again = replace(SKIP, unread=True, timestamp_ms=None, reason="it kills everything")
    await operations.ask(again)
    assert await operations.skips() == [again]
    assert await operations.done_by(again) == []
