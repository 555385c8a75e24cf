"""What every database must say about its outbox; see `sinks.ports.outbox`."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from schemas import topics
from schemas.events.asr import AsrDeadline
from schemas.jobs.outcome import Later
from schemas.messages import Message, dump_headers, load_headers
from tests.contract.databases.cases import created, job, moved, poll

DEADLINE = topics.RECONCILE_DUE.name
STATUS = topics.STATUS.name


def deadline(job_id: str, tenant: str = "t", seconds: float = 3600) -> Later:
    return Later(DEADLINE, AsrDeadline(tenant_id=tenant, job_id=job_id), seconds=seconds, kind="asr.deadline")


async def published(under_test) -> None:
    """All events that are due are published."""
    for topic in {topic for topic, _ in await under_test.outbox()} - {DEADLINE}:
        await under_test.set_aside(topic, "published, as far as the outbox knows")


async def test_a_database_is_idle_when_nothing_is_open_and_nothing_is_due(under_test):
    database = under_test.database
    assert await database.idle()
    await database.commit([created(job(status="transcribing")), created(job("ended", status="completed"))])
    assert not await database.idle()
    assert not await database.idle(("t", "ended"))  # its status is not published
    await published(under_test)
    assert await database.idle(("t", "ended"))
    assert await database.idle(("other", "j"))
    assert not await database.idle(("t", "j"))
    await database.commit([moved("completed")])
    assert not await database.idle(("t", "j"))
    await published(under_test)

    assert await database.idle()
    assert await database.idle(("t", "j"))


async def test_events_that_are_due_much_later_are_not_waited_for(under_test):
    database = under_test.database
    await database.commit([created(job("later", status="completed"), later=(deadline("later"),))])
    await database.commit([created(job("soon", status="completed"), later=(deadline("soon", seconds=2),))])
    await published(under_test)

    assert await database.idle(("t", "later"))
    assert not await database.idle(("t", "soon"))


async def test_an_open_enrichment_is_not_idle(under_test):
    database = under_test.database
    await database.commit([created(job(status="persisting"))])
    end = moved("completed")
    await database.commit([replace(end, outcome=replace(end.outcome, new_enrichments=("document",)))])
    await published(under_test)

    assert not await database.idle()
    assert not await database.idle(("t", "j"))


async def test_refused_events_are_counted_by_topic_and_told_newest_first(under_test):
    database = under_test.database
    assert await database.count_refused() == {}
    assert await database.refused(10) == []
    await database.commit([created(job(), "a", later=(poll("j", "a"),)), created(job("k", tenant="u"))])
    sent = dict(await under_test.outbox())
    await under_test.set_aside(topics.requests("a").name, "too large")
    await under_test.set_aside(STATUS, "not allowed")

    assert await database.count_refused() == {topics.requests("a").name: 1, STATUS: 2}
    rows = await database.refused(10)
    assert [(row["topic"], row["tenant_id"], row["job_id"], row["error"]) for row in rows] == [
        (STATUS, "u", "k", "not allowed"),
        (STATUS, "t", "j", "not allowed"),
        (topics.requests("a").name, "t", "j", "too large"),
    ]
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids, reverse=True)
    assert rows[2]["event_id"] == sent[topics.requests("a").name]
    assert (rows[2]["key"], b'"job_id":"j"' in rows[2]["value"]) == (b"j", True)
    assert dict(load_headers(rows[2]["headers"]))
    now = await database.now()
    assert rows[0]["due_at"] <= rows[0]["refused_at"] <= now < rows[2]["due_at"]
    assert [row["id"] for row in await database.refused(2)] == ids[:2]
    assert [row["id"] for row in await database.refused(10, [ids[2], ids[0], 10**9])] == [ids[0], ids[2]]
    assert await database.refused(10, []) == []


async def test_what_is_settled_is_published_or_dropped_once(under_test):
    database = under_test.database
    await database.commit([created(job("j")), created(job("k")), created(job("l"))])
    await under_test.set_aside(STATUS, "not allowed")
    third, second, first = await database.refused(10)
    whose = {name: first[name] for name in ("tenant_id", "job_id", "run")}
    again = Message(first["event_id"], STATUS, first["key"], first["value"], load_headers(first["headers"]), **whose)
    unsettled = replace(again, id=uuid4())

    assert await database.settle_refused([]) == set()
    plans = [(first["id"], again), (second["id"], None), (10**9, unsettled)]
    assert await database.settle_refused(plans) == {first["id"], second["id"]}
    assert await database.settle_refused(plans) == set()

    assert await under_test.outbox() == [(STATUS, again.id)]
    assert [row["id"] for row in await database.refused(10)] == [third["id"]]
    await under_test.set_aside(STATUS, "not allowed again")
    newest = (await database.refused(1))[0]
    assert {name: newest[name] for name in whose} == whose
    assert (newest["value"], newest["headers"]) == (first["value"], dump_headers(again.headers))
