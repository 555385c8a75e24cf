"""What is new of a tenant's jobs, and that neither this nor a report reads a table from its beginning."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.jobs.status import status_of, status_version
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.memory.reading.changes import MemoryChanges
from sinks.postgres.reader import Reader
from sinks.postgres.reading.changes import PostgresChanges
from sinks.postgres.sql.queries import SQL
from tests.contract.databases.test_reads import completed, created


@pytest.fixture
def followed(under_test):
    """A database to write to, what tells its changes, and what reads it."""
    database = under_test.database
    if isinstance(database, MemoryDatabase):
        return database, MemoryChanges(database), MemoryReader(database)
    reader = Reader(under_test.pool)
    return database, PostgresChanges(reader), reader


async def test_the_last_change_of_each_changed_job_is_told_oldest_first(followed):
    database, changes, reader = followed
    for step in (created("a"), created("b"), created("z", "bolt"), completed("a")):
        await database.commit([step])
    at = (await reader.job("acme", "a")).updated_at

    since = await changes.changes("acme", datetime(2000, 1, 1, tzinfo=UTC), 9)
    found = since.found

    assert [change.job_id for change in found] == ["b", "a"]
    assert found[1].at == at <= since.at <= await changes.now()
    assert found[1].version == status_version(status_of(await reader.job("acme", "a")))
    assert (await changes.changes("acme", at, 9)).found == found[1:]
    assert (await changes.changes("acme", datetime(2000, 1, 1, tzinfo=UTC), 1)).found == found[:1]
    none = await changes.changes("nobody", datetime(2000, 1, 1, tzinfo=UTC), 9)
    assert none.found == []
    assert since.at <= none.at <= await changes.now()


async def test_statuses_are_read_by_ids_of_the_tenants_own_jobs(followed):
    database, changes, reader = followed
    for step in (created("a"), created("b"), created("a", "bolt"), completed("a")):
        await database.commit([step])

    assert await changes.statuses("acme", ["a", "b", "x"]) == [
        status_of(await reader.job("acme", id)) for id in ("b", "a")
    ]
    assert [status.tenant_id for status in await changes.statuses("bolt", ["a", "b"])] == ["bolt"]


MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
ASKED = {
    "read_changes": (MOMENT, 10),
    "read_statuses": (["a"],),
    "report_audit": ("j", 0, 10),
    "report_work": ("j", 1),
    "report_requests": ("j", 1),
    "report_quality": ("j", 1),
    "report_job_usage": ("j", 1),
    "report_days": (MOMENT, MOMENT),
    "report_completions": (MOMENT, MOMENT),
    "report_disputed": (MOMENT, MOMENT),
    "report_failures": (MOMENT, 3),
    "report_usage": (MOMENT, MOMENT, "day", "", "", "", 10),
    "report_usage_by_job": (MOMENT, MOMENT, "", "", "", 10),
    "jobs_by_reference": ("a", "b", 10),
    "jobs_by_end": (MOMENT, MOMENT, 10),
    "jobs_by_metadata": ("a", "b", 10),
}


@pytest.mark.parametrize("name", ASKED)
async def test_no_report_reads_a_table_from_its_beginning(reading, name):
    await reading.execute("SET enable_seqscan = off")
    async with reading.transaction():
        await reading.execute("SET LOCAL ROLE concord_tenant; SELECT set_config('concord.tenant', 'acme', true)")
        plan = "\n".join(row[0] for row in await reading.fetch(f"EXPLAIN {SQL[name]}", *ASKED[name]))
    conditions = [line for line in plan.splitlines() if "Index Cond" in line or "Recheck Cond" in line]

    assert "Seq Scan" not in plan
    assert any("tenant_id = " in line or "job_id = " in line for line in conditions), plan
