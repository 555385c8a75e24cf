"""What every database must do with steps; see `sinks.ports.steps`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import orjson
import pytest

from schemas import topics
from schemas.errors import StorageRefused
from schemas.events.asr import AsrDeadline
from schemas.events.job import StepState
from schemas.jobs.outcome import IGNORED, Later, Outcome, Progress, Step
from schemas.messages import Message
from tests.contract.databases.cases import (
    answered,
    changed,
    created,
    job,
    moved,
    persisted_event,
    requests,
    used,
)


async def test_a_step_whose_event_was_handled_before_does_nothing(under_test):
    step = created(job())
    first = await under_test.database.commit([step])
    again = await under_test.database.commit([step, step])

    assert first[0] is not None
    assert first[0].applied
    assert again == [None, None]
    assert len(await under_test.outbox()) == 1


async def test_the_same_event_twice_in_one_batch_is_handled_once(under_test):
    step = created(job())
    written = await under_test.database.commit([step, step])

    assert [w is None for w in written] == [False, True]


async def test_a_job_that_exists_is_not_created_again(under_test):
    await under_test.database.commit([created(job(status="transcribing"), "a")])
    written = await under_test.database.commit([created(job(), "a", "b")])

    assert not written[0].applied
    assert (await under_test.database.job("t", "j")).status == "transcribing"
    assert [r.provider for r in await under_test.database.requests("t", "j", 1)] == ["a"]


async def test_two_tenants_with_one_job_id_have_a_job_each(under_test):
    database = under_test.database
    mine, theirs = job(status="transcribing"), job(tenant="other", status="transcribing")
    written = await database.commit([created(mine, "a"), created(theirs, "a")])
    claims = await asyncio.gather(*(database.claim(tenant, "j", 1, "a", 30) for tenant in ("t", "other")))
    await database.commit([moved("failed")])
    await database.record_usage([used(), used(tenant_id="other")])

    assert [w.applied for w in written] == [True, True]
    assert [claim.request.tenant_id for claim in claims] == ["t", "other"]
    assert (await database.job("t", "j")).status == "failed"
    assert (await database.job("other", "j")).status == "transcribing"
    assert {row.tenant_id for row in await under_test.usage()} == {"t", "other"}


async def test_a_reference_is_one_jobs_of_its_tenant(under_test):
    database = under_test.database
    first, other = job(reference="call 1"), job(tenant="other", reference="call 1")
    await database.commit([created(first), created(other)])
    refused = await database.commit([created(job("k", reference="call 1")), created(job("l", reference="call 2"))])
    in_one = await database.commit([created(job("m", reference="x")), created(job("n", reference="x"))])

    assert [w.applied for w in (*refused, *in_one)] == [False, True, True, False]
    assert await database.job("t", "k") is None
    assert {(j.job_id, j.tenant_id) for j in await database.named("t", "j", "call 2")} == {("j", "t"), ("l", "t")}
    assert [j.tenant_id for j in await database.named("other", "nobody", "call 1")] == ["other"]
    assert await database.named("t", "nobody", None) == []


async def test_the_outcome_for_a_taken_reference_is_applied_once(under_test):
    """The outcome's raw messages, such as its dead letter, are published as well."""
    database = under_test.database
    await database.commit([created(job(reference="call 1"))])
    letter = Message(uuid4(), "audio.uploaded.dlq", b"k", b"v", ())
    nameless = Outcome(tenant_id="t", job_id="k", create=job("k", status="failed", reason="taken"))
    step = created(job("k", reference="call 1"), taken=nameless, raw=((letter, 0.0),))
    written = await database.commit([step])
    again = await database.commit([step])

    assert written[0].applied
    assert again == [None]
    row = await database.job("t", "k")
    assert (row.status, row.reference, row.reason) == ("failed", None, "taken")
    assert [topic for topic, _ in await under_test.outbox()].count("audio.uploaded.dlq") == 1


async def test_a_job_keeps_its_reference_through_every_change(under_test):
    database = under_test.database
    await database.commit([created(job(reference="call 1", status="persisting"))])
    written = await database.commit([moved("completed", later=(Later("persisted", persisted_event()),))])
    begin = Outcome(tenant_id="t", job_id="j", begin=replace(await database.job("t", "j"), run=2, status="uploaded"))
    await database.commit([Step("intake", uuid4(), begin)])

    assert (await database.job("t", "j")).reference == "call 1"
    said = [orjson.loads(m.value)["reference"] for m, _ in written[0].messages]
    assert said == ["call 1", "call 1"]


async def test_versions_rise_and_every_change_is_announced(under_test):
    await under_test.database.commit([created(job(status="transcribing"))])
    await under_test.database.commit([moved("reconciling"), moved("persisting", stage="y")])

    assert (await under_test.database.job("t", "j")).version == 3
    assert [topic for topic, _ in await under_test.outbox()] == ["job.status"] * 3


async def test_an_unchanged_status_makes_no_version_and_no_event(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"))])
    progress = Progress(run=1, stage="transcribe.a", step=StepState(state="running", progress=0.5))
    for _ in range(3):
        await database.commit([Step("transcribe.a", uuid4(), Outcome(tenant_id="t", job_id="j", progress=progress))])

    assert (await database.job("t", "j")).version == 2
    assert len(await under_test.outbox()) == 2


@pytest.mark.parametrize("late", ["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"])
async def test_a_run_that_has_ended_stays_ended(under_test, late):
    await under_test.database.commit([created(job(status="persisting")), moved("completed")])
    before = await under_test.database.job("t", "j")
    written = await under_test.database.commit([moved(late, later=(Later("job.failed", persisted_event()),))])

    assert not written[0].applied
    assert await under_test.database.job("t", "j") == before
    assert "job.failed" not in [topic for topic, _ in await under_test.outbox()]


async def test_status_never_goes_backwards(under_test):
    await under_test.database.commit([created(job(status="persisting"))])
    written = await under_test.database.commit([moved("transcribing")])

    assert not written[0].applied
    assert (await under_test.database.job("t", "j")).status == "persisting"


async def test_an_event_of_an_earlier_run_is_too_late(under_test):
    await under_test.database.commit([created(job(status="failed"))])
    begin = Outcome(
        tenant_id="t", job_id="j", begin=job(run=2, status="transcribing"), new_requests=requests(job(run=2), "a")
    )
    await under_test.database.commit([Step("intake", uuid4(), begin)])
    written = await under_test.database.commit([moved("completed", run=1)])
    row = await under_test.database.job("t", "j")

    assert not written[0].applied
    assert (row.run, row.status) == (2, "transcribing")
    assert row.version == 2


@pytest.mark.parametrize("known", ["no job", "an earlier run"])
async def test_an_event_of_a_run_that_is_not_known_yet_is_not_remembered(under_test, known):
    """After a restore it may be read again before the upload that makes the job, with the id that it has then."""
    if known == "an earlier run":
        await under_test.database.commit([created(job(status="transcribing"))])
    run = 1 if known == "no job" else 2
    for early in (moved("reconciling", run=run), replace(moved("reconciling"), outcome=IGNORED)):
        assert await under_test.database.commit([early]) != [None]
        assert await under_test.database.commit([early]) != [None]
    letter = Message(uuid4(), "asr.results.dlq", b"k", b"v", ())
    told = replace(early, outcome=Outcome(tenant_id="t", job_id="j", run=run, raw=((letter, 0.0),)))
    assert await under_test.database.commit([told]) != [None]
    assert await under_test.database.commit([told]) == [None]  # or its dead letter would be published twice


async def test_a_new_run_begins_only_after_the_last_one_ended(under_test):
    await under_test.database.commit([created(job(status="transcribing"))])
    begin = Outcome(tenant_id="t", job_id="j", begin=job(run=2))
    written = await under_test.database.commit([Step("intake", uuid4(), begin)])

    assert not written[0].applied
    assert (await under_test.database.job("t", "j")).run == 1


async def test_a_recording_that_was_fetched_twice_is_asked_about_once(under_test):
    """Two looks at one fetch, each with its own event: the second must not make the first one's requests new again."""
    database = under_test.database
    await database.commit([created(job(status="uploaded"))])

    def fetched() -> Step:
        progress = Progress(run=1, status="transcribing", stage="intake", step=StepState(state="done"))
        asked = requests(job(), "a")
        return Step("intake", uuid4(), Outcome(tenant_id="t", job_id="j", progress=progress, new_requests=asked))

    first = await database.commit([fetched()])
    claim = await database.claim("t", "j", 1, "a", 30)
    second = await database.commit([fetched()])
    [row] = await database.requests("t", "j", 1)

    assert (first[0].applied, second[0].applied) == (True, False)
    assert (row.state, row.token) == ("intended", claim.request.token)


async def test_the_last_recognizer_moves_the_job_on(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b")])
    one = await database.commit([answered("a", None)])
    between = (await database.job("t", "j")).status
    two = await database.commit([answered("b", None, state="failed")])

    def remaining(written):
        return [m.value for m, _ in written[0].messages if m.topic == topics.RESULTS.name]

    assert between == "transcribing"
    assert (await database.job("t", "j")).status == "reconciling"
    assert b'"remaining":1' in remaining(one)[0]
    assert b'"remaining":0' in remaining(two)[0]


async def test_giving_up_ends_the_requests_that_have_not_answered(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b", "c"), answered("b", None)])
    await database.commit([Step("reconcile", uuid4(), Outcome(tenant_id="t", job_id="j", give_up="too late"))])
    late = await database.commit([answered("a", None)])

    assert [(r.state, r.error) for r in await database.requests("t", "j", 1)] == [
        ("failed", "too late"),
        ("done", None),
        ("failed", "too late"),
    ]
    assert not late[0].applied


async def test_the_deadline_of_an_earlier_run_ends_nothing(under_test):
    database = under_test.database
    await database.commit([created(job(status="failed"), "a")])
    begin = Outcome(
        tenant_id="t", job_id="j", begin=job(run=2, status="transcribing"), new_requests=requests(job(run=2), "a")
    )
    await database.commit([Step("intake", uuid4(), begin)])
    written = await database.commit(
        [Step("reconcile", uuid4(), Outcome(tenant_id="t", job_id="j", run=1, give_up="late"))]
    )

    assert not written[0].applied
    assert (await database.requests("t", "j", 2))[0].state == "waiting"


async def test_the_deadline_is_taken_back_when_all_have_answered(under_test):
    deadline = Later(topics.RECONCILE_DUE.name, AsrDeadline(tenant_id="t", job_id="j"), seconds=60, kind="asr.deadline")
    await under_test.database.commit([created(job(status="transcribing"), "a", later=(deadline,))])
    waiting = [topic for topic, _ in await under_test.outbox()]
    await under_test.database.commit([answered("a", None)])

    assert "reconcile.due" in waiting
    assert "reconcile.due" not in [topic for topic, _ in await under_test.outbox()]


async def test_what_a_run_leaves_behind_is_marked_if_the_provider_may_have_it(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b", "c", "d")])
    for provider in ("b", "c"):
        await database.claim("t", "j", 1, provider, 0)
    await database.commit([changed("b", 1, state="parked", error="it cannot be listed")])
    await database.commit([changed("d", None, state="submitted", provider_id="p")])
    end = Outcome(tenant_id="t", job_id="j", run=1, give_up="no answer before the deadline")
    await database.commit([Step("reconcile", uuid4(), end)])
    rows = {row.provider: row for row in await database.requests("t", "j", 1)}

    assert {row.state for row in rows.values()} == {"failed"}
    assert [name for name, row in rows.items() if row.abandoned_at] == ["b", "c", "d"]
    assert rows["b"].error == "no answer before the deadline: it cannot be listed"
    assert rows["c"].claimed_until


async def test_a_step_that_cannot_be_stored_is_refused_and_so_is_its_whole_batch(under_test):
    await under_test.database.commit([created(job())])
    before = await under_test.outbox()
    broken = created(job("k", filename="a\x00b"))
    with pytest.raises(StorageRefused):
        await under_test.database.commit([moved("transcribing"), created(job("l")), broken])

    assert (await under_test.database.job("t", "j")).status == "uploaded"
    assert await under_test.database.job("t", "l") is None
    assert await under_test.outbox() == before
    assert (await under_test.database.commit([created(job("l"))]))[0].applied
