"""What every database must do with usage; see `sinks.ports.providers.usage`."""

from __future__ import annotations

from tests.contract.databases.cases import (
    used,
)


async def test_what_was_used_up_is_counted_once_however_often_it_is_written(under_test):
    rows = [used(), used("total_tokens", 9.5), used(ref="response-2"), used(run=2), used(provider="google")]
    await under_test.database.record_usage(rows)
    await under_test.database.record_usage([*rows, used(quantity=1000)])
    await under_test.database.record_usage([])

    assert sorted(await under_test.usage(), key=str) == sorted(rows, key=str)
