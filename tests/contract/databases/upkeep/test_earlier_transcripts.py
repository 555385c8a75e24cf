"""What every database must do with completed jobs that were never indexed."""

from __future__ import annotations

from datetime import timedelta

from agents.upkeep.earlier_transcripts import begin_some
from schemas import topics
from tests.contract.databases.cases import created, job


async def uploaded(database, tenant, many, **more):
    fields = {"status": "completed"} | more
    for n in range(many):
        await database.commit([created(job(f"{tenant}{n}", tenant, **fields))])


async def test_tenants_poll_claims_the_newest_of_each_first(under_test):
    await uploaded(under_test.database, "a", 5)
    await uploaded(under_test.database, "b", 1)
    await uploaded(under_test.database, "c", 2)
    found = await under_test.database.never_indexed(4, 100)

    assert [one.tenant_id for one in found] == ["a", "b", "c", "a"]
    assert found[0].created_at > found[3].created_at
    assert len(await under_test.database.never_indexed(100, 100)) == 8


async def test_only_those_that_may_be_indexed_are_found(under_test):
    database = under_test.database
    await uploaded(database, "a", 1, options={"enrich": False})
    await uploaded(database, "b", 1, status="failed")
    await uploaded(database, "c", 1, options={"enrich": True})
    await uploaded(database, "d", 1, options={})

    assert [one.tenant_id for one in await database.never_indexed(9, 9)] == ["c", "d"]


async def test_each_is_asked_for_once_and_not_too_many_wait(under_test, monkeypatch):
    database = under_test.database
    monkeypatch.setattr("agents.upkeep.earlier_transcripts.OPEN", 3)
    await uploaded(database, "a", 2)
    await uploaded(database, "b", 2)

    assert [await begin_some(database) for _ in range(3)] == [3, 0, 0]
    assert len(await database.never_indexed(9, 9)) == 1
    assert (await database.job("a", "a1")).enrichment["index"].state == "pending"
    asked = [id for topic, id in await under_test.outbox() if topic == topics.due_name("index")]
    assert len(asked) == len(set(asked)) == 3


async def test_two_workers_ask_for_the_same_ones_once(under_test):
    database = under_test.database
    await uploaded(database, "a", 3)
    jobs = await database.never_indexed(9, 9)

    async def the_same(limit: int, most_open: int) -> list:
        return jobs

    assert await begin_some(database) == 3
    database.never_indexed = the_same
    assert await begin_some(database) == 0
    assert timedelta(0) <= await database.now() - jobs[0].created_at
