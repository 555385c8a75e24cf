"""The HTTP service over its doubles: who sees what, which answer wins, what a stranger may send."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from uuid import uuid4

import jsonschema
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from yarl import URL

from schemas.errors import SettingsError, Unavailable
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import File, Job, Transcript
from schemas.jobs.status import status_of, status_version
from schemas.words import Decision, Quality, Reading, Reconciliation, adapter
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from web.app import make_app
from web.auth import ApiKeys
from web.callbacks import HEADER, Callbacks, token_of
from web.connections import Bounds
from web.memory import MemoryJobs
from web.ports import Health
from web.status_feed import StatusFeeds

KEYS = "acme=acme-key,bolt=bolt-key,acme=acme-second,*=root-key"
ACME, BOLT, ROOT = ({"X-API-Key": f"{name}-key"} for name in ("acme", "bolt", "root"))
AUDIO = bytes(range(256)) * 40


class Worker:
    """A track worker's web service: its database may be shared with others, its table is its own."""

    def __init__(self, database=None, *, store=None, reader=None, feeds=None, keys=KEYS, **more):
        self.database = database or MemoryDatabase()
        self.reader = reader or MemoryReader(self.database)
        self.store = store or MemoryStore()
        self.live = MemoryJobs()
        self.feeds = feeds
        self.health = Health(alive=True, ready=True, details={"kafka": "ok"})
        ports = {"metrics": lambda: b"concord_jobs 1\n", "health": self.check} | more
        self.app = make_app(
            live=self.live, reader=self.reader, store=self.store, keys=ApiKeys.parse(keys), feeds=feeds, **ports
        )
        self.client = TestClient(TestServer(self.app))

    async def check(self):
        return self.health

    async def __aenter__(self):
        await self.client.start_server()
        return self

    async def __aexit__(self, *exc):
        await self.client.close()

    @property
    def url(self):
        return str(self.client.make_url("/"))

    async def get(self, path, headers=ACME, **more):
        return await self.client.get(path, headers=headers, **more)

    async def json(self, path, headers=ACME, **more):
        response = await self.get(path, headers, **more)
        assert response.status == 200, await response.text()
        return await response.json()

    async def created(self, job_id="j", tenant="acme", **more):
        job = Job(tenant_id=tenant, job_id=job_id, filename="Zoë's call.wav", audio_uri="s3://b/a", **more)
        await self.commit("intake", Outcome(tenant_id=tenant, job_id=job_id, create=job))
        return await self.tabled(job_id, tenant)

    async def moved(self, status, job_id="j", tenant="acme", **more):
        progress = Progress(run=1, status=status, stage="reconcile", step=StepState(state="done"))
        await self.commit("reconcile", Outcome(tenant_id=tenant, job_id=job_id, progress=progress, **more))
        return status_of(await self.database.job(tenant, job_id))

    async def commit(self, stage, outcome):
        await self.database.commit([Step(stage, uuid4(), outcome)])

    async def tabled(self, job_id="j", tenant="acme"):
        """The table takes the newest status."""
        status = status_of(await self.database.job(tenant, job_id))
        self.live.rows[tenant, job_id] = status
        return status

    async def stored_audio(self, job_id="j", tenant="acme", kind="audio/wav"):
        blob = await self.store.put(f"{tenant}/{job_id}/original.wav", AUDIO, kind)
        file = File(tenant_id=tenant, job_id=job_id, run=1, kind="original", **of_blob(blob))
        await self.commit("intake", Outcome(tenant_id=tenant, job_id=job_id, files=(file,)))

    async def finished(self, job_id="j", tenant="acme"):
        raw = adapter(Reconciliation).dump_json(DECIDED)
        blob = await self.store.put(f"{tenant}/{job_id}/raw_transcript.json", raw, "application/json")
        await self.moved("completed", job_id, tenant, transcript=transcript(job_id, tenant, blob.uri))
        await self.tabled(job_id, tenant)


def of_blob(blob):
    names = ("uri", "size_bytes", "content_type", "sha256")
    return {name: getattr(blob, name) for name in names}


DECIDED = Reconciliation(
    (Decision(Reading("hello", ("a", "b"), 0.9, 0, 400), (Reading("hallo", ("c",), 0.1),), "calibrated", "A"),),
    "calibrated",
    Quality(0.9, 0.5, 1.0, 0.1),
    ("a", "b", "c"),
)


def transcript(job_id, tenant, uri, run=1):
    return Transcript(
        tenant_id=tenant,
        job_id=job_id,
        run=run,
        text="hello",
        words=1,
        speakers=["A"],
        segments=[{"start_ms": 0, "end_ms": 400, "speaker": "A", "text": "hello", "confidence": 0.9}],
        language="en",
        confidence=0.9,
        agreement=0.5,
        method="calibrated",
        provider_confidences={"a": 0.8, "b": None},
        reconciliation_notes=[],
        quality={},
        raw_transcript_uri=uri,
        agent_optimized_uri="memory://secret/agent_optimized.json",
        duration_ms=400,
    )


@pytest.fixture
async def worker():
    async with Worker() as worker:
        yield worker


async def problem(response, status):
    """The problem document of an error, checked for what every one of them must be."""
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    assert not re.search(r"Traceback|memory://|file:|-key|\.py", text)
    document = json.loads(text)
    assert document["status"] == status
    assert document["detail"]
    return document


# Which answer wins


async def test_the_table_answers_when_the_database_says_that_its_row_is_the_newest(worker):
    await worker.created()
    current = await worker.get("/jobs/j/status")
    await worker.moved("transcribing")
    behind = await worker.get("/jobs/j/status")
    await worker.tabled()
    again = await worker.get("/jobs/j/status")

    said = [(r.headers["X-Concord-Source"], (await r.json())["version"]) for r in (current, behind, again)]
    assert said == [("table", 1), ("database", 2), ("table", 2)]


def stored(job_id, tenant="acme", version=1, status="uploaded", **more):
    known = {"created_at": datetime(2026, 5, 1, tzinfo=UTC), "updated_at": datetime(2026, 5, 1, tzinfo=UTC)} | more
    of = {"tenant_id": tenant, "job_id": job_id, "version": version, "status": status}
    return Job(**of, filename="a.wav", audio_uri="s3://b/a", **known)


class Away(MemoryReader):
    """A database that does not answer, and says more than strangers should read."""

    def __init__(self):
        super().__init__(MemoryDatabase())

    async def find(self, *_, **__):
        raise Unavailable("memory://10.0.0.7 does not answer for root-key")

    job = jobs = status_version = transcript = files = tenants = find


class Holds(MemoryReader):
    """A database with just these rows, changed at will."""

    def __init__(self, **rows):
        super().__init__(MemoryDatabase())
        object.__setattr__(self, "rows", rows)

    async def find(self, tenant, name, limit=20):
        job = self.rows.get(name)
        return [job] if job and tenant in (None, job.tenant_id) else []

    async def job(self, tenant, job_id):
        return next(iter(await self.find(tenant, job_id)), None)

    async def status_version(self, tenant, job_id):
        job = await self.job(tenant, job_id)
        return job and status_version(status_of(job))


async def test_what_the_table_does_not_have_is_answered_from_the_database(worker):
    await worker.created()
    worker.live.rows.clear()
    response = await worker.get("/jobs/j/status")

    assert response.headers["X-Concord-Source"] == "database"
    assert (await response.json())["links"]["events"] == "/jobs/j/events"


async def test_a_table_that_is_behind_takes_nothing_back_that_another_worker_has_shown():
    """The relay is away: what is committed is in no table yet, and whoever has no row shows PostgreSQL's."""
    async with two() as (first, second):
        await first.created()
        before = await first.json("/jobs/j/status")
        await first.moved("transcribing")
        shown = await second.json("/jobs/j/status")
        after = await first.json("/jobs/j/status")

        assert [before["version"], shown["version"], after["version"]] == [1, 2, 2]


@contextlib.asynccontextmanager
async def two(**of_second):
    """Two workers on one database, each with a table of its own."""
    async with Worker() as first, Worker(first.database, **of_second) as second:
        yield first, second


async def test_a_table_that_is_behind_does_not_contradict_a_list_of_another_worker():
    async with two() as (first, second):
        await first.created()
        await first.json("/jobs/j/status")
        await first.moved("completed")
        listed = await second.json("/tenants/acme/jobs")

        assert listed["jobs"][0]["status"] == (await first.json("/jobs/j/status"))["status"] == "completed"


async def test_a_status_that_only_the_table_has_is_not_believed():
    """Whoever speaks to the broker can write it there; what is true was committed first."""
    async with Worker(reader=Holds(j=stored("j", version=3))) as worker:
        worker.live.rows["acme", "j"] = status_of(stored("j", version=9, status="completed"))

        assert (await worker.json("/jobs/j/status"))["version"] == 3


async def test_an_id_that_is_used_again_after_its_job_was_deleted_begins_anew():
    old, new = stored("j", version=9), stored("j", version=1, created_at=datetime(2026, 6, 1, tzinfo=UTC))
    reader = Holds(j=old)
    async with Worker(reader=reader) as worker:
        worker.live.rows["acme", "j"] = status_of(old)
        assert (await worker.json("/jobs/j/status"))["version"] == 9
        reader.rows["j"] = new
        assert (await worker.json("/jobs/j/status"))["version"] == 1
        del reader.rows["j"]
        await problem(await worker.get("/jobs/j/status"), 404)


# Tenants


PATHS = ("/jobs/{}/status", "/jobs/{}/events", "/jobs/{}/transcript", "/jobs/{}/transcript/raw", "/jobs/{}/audio")


@pytest.mark.parametrize("path", PATHS)
async def test_another_tenants_job_is_exactly_like_an_unknown_one(worker, path):
    await worker.created("theirs", "bolt")
    await worker.stored_audio("theirs", "bolt")
    await worker.finished("theirs", "bolt")
    foreign = await worker.get(path.format("theirs"))
    unknown = await worker.get(path.format("unknown"))

    assert await problem(foreign, 404) == await problem(unknown, 404)
    assert {k: v for k, v in foreign.headers.items() if k != "Date"} == {
        k: v for k, v in unknown.headers.items() if k != "Date"
    }
    assert (await worker.get(path.format("theirs"), BOLT)).status == 200
    assert (await worker.get(path.format("theirs"), ROOT)).status == 200


async def test_another_tenants_list_is_like_that_of_one_who_does_not_exist(worker):
    await worker.created("theirs", "bolt")
    foreign, unknown = await worker.get("/tenants/bolt/jobs"), await worker.get("/tenants/nobody/jobs")

    assert await problem(foreign, 404) == await problem(unknown, 404)
    assert len((await worker.json("/tenants/bolt/jobs", ROOT))["jobs"]) == 1


async def test_everyone_learns_whose_jobs_they_may_see(worker):
    await worker.created("a")
    await worker.created("b", "bolt")

    assert await worker.json("/tenants", BOLT) == {"tenants": ["bolt"], "operator": False}
    assert await worker.json("/tenants", ROOT) == {"tenants": ["acme", "bolt"], "operator": True}


@pytest.fixture
async def both(worker):
    """A job of the same id and reference of two tenants, with a recording and a transcript each."""
    for tenant in ("acme", "bolt"):
        await worker.created(UUID, tenant, reference="call 1/2 ü")
        await worker.stored_audio(UUID, tenant)
        await worker.finished(UUID, tenant)
    return worker


UUID = "4711ca11-0000-4000-8000-00000000000a"
NAMES = (UUID, UUID.upper(), UUID.replace("-", ""), "call%201%2F2%20%C3%BC")


async def by(worker, path, name, headers, **query):
    url = URL(str(worker.client.make_url("/"))[:-1] + path.format(name), encoded=True).update_query(query)
    return await worker.client.session.get(url, headers=headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
async def test_two_tenants_with_one_name_see_their_own(both, path, name):
    for headers in (ACME, BOLT):
        assert (await by(both, path, name, headers)).status == 200
    if path in ("/jobs/{}/status", "/jobs/{}/transcript"):
        for tenant, headers in (("acme", ACME), ("bolt", BOLT)):
            shown = await (await by(both, path, name, headers)).json()
            assert (shown["tenant_id"], shown["job_id"]) == (tenant, UUID)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
async def test_an_operator_is_asked_whose_job_is_meant_and_says_so(both, path, name):
    asked = await problem(await by(both, path, name, ROOT), 409)
    answer = await by(both, path, name, ROOT, tenant="bolt")

    assert asked["tenants"] == ["acme", "bolt"]
    assert "?tenant=" in asked["detail"]
    assert answer.status == 200
    for tenant in ("nobody", "../x"):
        await problem(await by(both, path, name, ROOT, tenant=tenant), 404)


@pytest.mark.parametrize("path", PATHS)
async def test_a_tenant_cannot_say_that_it_is_another(both, path):
    assert (await by(both, path, UUID, ACME, tenant="acme")).status == 200
    foreign = await problem(await by(both, path, UUID, ACME, tenant="bolt"), 404)

    assert foreign == await problem(await by(both, path, "unknown", ACME), 404)


async def test_links_lead_an_operator_to_the_job_that_was_shown(both):
    for path in ("/jobs/{}/status", "/jobs/{}/transcript"):
        shown = await (await by(both, path, UUID, ROOT, tenant="bolt")).json()
        for link in shown["links"].values():
            assert (await both.get(link, ROOT)).status == 200
    listed = await both.json("/tenants/bolt/jobs", ROOT)
    assert (await both.get(listed["jobs"][0]["links"]["transcript"], ROOT)).status == 200


async def test_a_watch_by_reference_is_told_of_its_own_tenants_job_only():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created(UUID, "acme", reference="call 1")
        await worker.created(UUID, "bolt", reference="call 1")
        response = await worker.get("/jobs/call 1/events")
        await lines(response, 1)
        await worker.moved("completed", UUID, "bolt")
        worker.feeds.publish(await worker.tabled(UUID, "bolt"))
        await worker.moved("transcribing", UUID, "acme")
        worker.feeds.publish(await worker.tabled(UUID, "acme"))
        [(_, told)] = await lines(response, 1)

        assert (told["tenant_id"], told["status"]) == ("acme", "transcribing")


async def test_what_one_tenants_job_has_shown_holds_back_nobody_elses():
    """Both have the same id, and one is further than the other."""
    async with Worker() as worker:
        await worker.created(UUID, "acme")
        await worker.moved("transcribing", UUID, "acme")
        await worker.tabled(UUID, "acme")
        await worker.created(UUID, "bolt")

        assert (await worker.json(f"/jobs/{UUID}/status", ACME))["version"] == 2
        assert (await worker.json(f"/jobs/{UUID}/status", BOLT))["version"] == 1


async def test_jobs_that_a_path_cannot_name_are_unknown(worker):
    for job_id in ("..", "%2e%2e", "a%2Fb", "..%2f..%2fetc", "x" * 129, "a%00", "%ff", "%C3%A9", ".hidden", "a%0d%0ab"):
        for path in PATHS:
            url = URL(str(worker.client.make_url("/"))[:-1] + path.format(job_id), encoded=True)
            response = await worker.client.session.get(url, headers=ACME)
            await problem(response, 404)


async def test_a_path_that_climbs_is_taken_as_it_stands(worker):
    """Not by a client that tidies paths up first."""
    await worker.created()
    for path in (b"/jobs/../jobs/j/status", b"/static/../app.py", b"/static/%2e%2e/app.py", b"//jobs/j/status"):
        answer = await said(worker, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nX-API-Key: acme-key\r\n\r\n")

        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:200]


async def said(worker, request):
    """The raw answer to raw bytes."""
    port = worker.client.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return await asyncio.wait_for(reader.read(65536), 5)
    finally:
        writer.close()
        await writer.wait_closed()


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "acme-key"},
        {"X-API-Key": " acme-second "},
        {"Authorization": "Bearer acme-key"},
        {"Authorization": "bearer  acme-key"},
        {"Authorization": "Basic eA==", "X-API-Key": "acme-key"},
    ],
)
async def test_a_key_is_taken_from_either_header(worker, headers):
    await worker.created()

    assert (await worker.get("/jobs/j/status", headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "ACME-KEY"},
        {"X-API-Key": "acme-key2"},
        {"X-API-Key": "\xfc" * 500},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense", "X-API-Key": "acme-key"},
        {"Authorization": "acme-key"},
    ],
)
async def test_without_a_known_key_nothing_is_told_but_what_to_do(worker, headers):
    await worker.created()
    for path in (*(p.format("j") for p in PATHS), "/tenants", "/tenants/acme/jobs"):
        response = await worker.get(path, headers)
        told = await problem(response, 401)

        assert "Authorization: Bearer" in told["detail"]
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_key_in_the_address_is_no_key(worker):
    await problem(await worker.get("/tenants?api_key=acme-key&key=acme-key", {}), 401)


async def test_probes_metrics_and_the_console_need_no_key(worker):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/"):
        assert (await worker.get(path, {})).status == 200


async def test_without_any_keys_a_program_on_this_machine_is_an_operator():
    async with Worker(keys=None) as worker:
        await worker.created("j", "bolt")

        assert (await worker.get("/jobs/j/status", {})).status == 200
        assert (await worker.get("/jobs/j/status", {"X-API-Key": "whatever"})).status == 200
        assert (await worker.json("/tenants", {}))["operator"]


STRANGERS = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "127.0.0.1"},
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:80"},
    {"Host": "localhost.evil.example"},
]


@pytest.mark.parametrize("headers", STRANGERS)
async def test_without_keys_neither_a_proxys_guest_nor_a_web_page_is_taken_for_a_neighbour(headers):
    async with Worker(keys=None) as worker:
        told = await problem(await worker.get("/tenants", headers), 401)

        assert "CONCORD_API_KEYS" in told["detail"]
        assert (await worker.get("/healthz", headers)).status == 200


class Peer(asyncio.Transport):
    """A connection from this address."""

    def __init__(self, address):
        super().__init__({"peername": address})


def asked_by(address, **headers):
    return make_mocked_request("GET", "/", {"Host": "10.0.0.5:8080"} | headers, transport=Peer(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_keys_this_machine_is_known_by_any_of_its_own_addresses(address):
    assert ApiKeys().caller(asked_by((address, 5))).tenant is None


@pytest.mark.parametrize(
    "address", [("203.0.113.9", 5), ("::ffff:203.0.113.9", 5), ("fe80::1%eth0", 5, 0, 2), "", None]
)
def test_without_keys_another_machine_is_told_what_to_do(address):
    with pytest.raises(web.HTTPUnauthorized) as refused:
        ApiKeys().caller(asked_by(address))

    assert "set CONCORD_API_KEYS" in refused.value.text


@pytest.mark.parametrize("text", ["acme", "acme=", "=key", "acme=key,", "a b=key", "../x=key", "acme=ke y", "acme=kéy"])
def test_a_setting_that_is_no_list_of_keys_is_refused_by_place_and_without_the_key(text):
    if text == "acme=key,":
        assert repr(ApiKeys.parse(text)) == "ApiKeys(1)"
        return
    with pytest.raises(SettingsError, match="entry 2") as said:
        ApiKeys.parse(f"first=hunter2,{text}")

    assert "hunter2" not in str(said.value)
    assert "key" not in str(said.value).replace("API_KEYS", "").replace("tenant=key", "").replace("*=key", "").replace(
        "the key of entry", ""
    )


def test_one_key_cannot_be_two_tenants():
    with pytest.raises(SettingsError, match="have the same key"):
        ApiKeys.parse("acme=hunter2,*=hunter2")


def test_keys_are_nowhere_in_memory_or_print():
    keys = ApiKeys.parse("acme=hunter2")

    assert "hunter2" not in repr(keys) + repr(vars(keys))
    assert sha256(b"hunter2").digest() in next(iter(keys._tenants.values()))[0]


# Lists


async def test_a_list_goes_on_where_its_page_ended(worker):
    for n in range(5):
        await worker.created(f"j{n}")
    first = await worker.json("/tenants/acme/jobs?limit=3")
    second = await worker.json(f"/tenants/acme/jobs?limit=3&cursor={first['next']}")

    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == ["j4", "j3", "j2", "j1", "j0"]
    assert second["next"] is None


async def test_a_page_is_bounded_in_bytes_and_goes_on_where_it_was_cut(worker, monkeypatch):
    monkeypatch.setattr("web.views.PAGE_BYTES", 5_000)
    for n in range(12):
        await worker.created(f"j{n:02}")
        failed = Progress(run=1, stage="intake", step=StepState(state="failed", error="x" * 1_500), status="failed")
        await worker.commit("intake", Outcome(tenant_id="acme", job_id=f"j{n:02}", progress=failed))
    seen, cursor = [], ""
    while cursor is not None:
        response = await worker.get(f"/tenants/acme/jobs?limit=10{cursor and '&cursor=' + cursor}")
        assert len(await response.read()) < 6_000
        page = await response.json()
        seen += [job["job_id"] for job in page["jobs"]]
        cursor = page["next"]

    assert seen == [f"j{n:02}" for n in reversed(range(12))]


async def test_a_list_can_be_narrowed_to_a_status(worker):
    await worker.created("a")
    await worker.created("b")
    await worker.moved("failed", "a")

    failed = await worker.json("/tenants/acme/jobs?status=failed")

    assert [job["job_id"] for job in failed["jobs"]] == ["a"]
    assert failed["jobs"][0]["progress"] == 1.0


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "limit: a whole number from 1 to 500"),
        ("limit=501", "limit: a whole number"),
        ("limit=99999999999999999999", "limit: a whole number"),
        ("limit=-1", "limit: a whole number"),
        ("limit=ten", "limit: a whole number"),
        ("cursor=broken", "cursor: use `next`"),
        ("cursor=%00", "cursor: use `next`"),
        ("status=done", "status: use one of uploaded"),
    ],
)
async def test_a_wrong_parameter_is_named_with_what_would_be_right(worker, query, says):
    assert says in (await problem(await worker.get(f"/tenants/acme/jobs?{query}"), 400))["detail"]


# Transcripts and recordings


async def test_a_transcript_is_shown_with_where_its_words_come_from(worker):
    await worker.created()
    await worker.finished()
    shown = await worker.json("/jobs/j/transcript")
    raw = await worker.get(shown["links"]["raw"])

    assert shown["text"] == "hello"
    assert shown["segments"][0]["speaker"] == "A"
    assert "memory://" not in json.dumps(shown)
    assert adapter(Reconciliation).validate_json(await raw.read()) == DECIDED
    assert raw.content_type == "application/json"


async def test_a_transcript_that_is_not_there_yet_says_how_the_job_stands(worker):
    await worker.created()
    early = await problem(await worker.get("/jobs/j/transcript"), 404)
    await worker.moved("failed")
    late = await problem(await worker.get("/jobs/j/transcript/raw"), 404)
    beyond = await problem(await worker.get("/jobs/j/transcript?run=2"), 404)

    assert "the job is uploaded" in early["detail"]
    assert "failed" in late["detail"]
    assert "1 runs" in beyond["detail"]
    await problem(await worker.get("/jobs/j/transcript?run=0"), 400)


async def test_a_blob_that_the_store_has_lost_is_missing_without_saying_where(worker):
    await worker.created()
    await worker.stored_audio()
    await worker.finished()
    for uri in [uri async for uri in worker.store.list("")]:
        await worker.store.delete(uri)

    await problem(await worker.get("/jobs/j/transcript/raw"), 404)
    assert "not in the storage" in (await problem(await worker.get("/jobs/j/audio"), 404))["detail"]


async def test_a_recording_is_sent_whole_or_in_part(worker):
    await worker.created()
    await worker.stored_audio()
    whole = await worker.get("/jobs/j/audio")
    part = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=100-299"})
    end = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=-5"})

    assert await whole.read() == AUDIO
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert "filename*=UTF-8''Zo%C3%AB%27s%20call.wav" in whole.headers["Content-Disposition"]
    assert (part.status, await part.read()) == (206, AUDIO[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(AUDIO)}"
    assert (end.status, await end.read()) == (206, AUDIO[-5:])


async def test_a_range_behind_the_end_is_refused_with_the_length(worker):
    await worker.created()
    await worker.stored_audio()
    response = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=999999-"})

    await problem(response, 416)
    assert response.headers["Content-Range"] == f"bytes */{len(AUDIO)}"


async def test_a_recording_the_client_has_already_is_not_sent_again(worker):
    await worker.created()
    await worker.stored_audio()
    head = await worker.client.head("/jobs/j/audio", headers=ACME)
    same = await worker.get("/jobs/j/audio", ACME | {"If-None-Match": head.headers["ETag"]})
    changed = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=0-1", "If-Range": '"other"'})

    assert head.headers["Content-Length"] == str(len(AUDIO))
    assert await head.read() == b""
    assert same.status == 304
    assert await changed.read() == AUDIO


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/javascript", "application/xhtml+xml"])
async def test_a_recording_is_never_taken_for_a_page(worker, kind):
    await worker.created()
    await worker.stored_audio(kind=kind)
    response = await worker.get("/jobs/j/audio")

    assert response.content_type == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]


class Signing(MemoryStore):
    """Object storage that gives links."""

    async def presigned_url(self, uri, expires_s):
        return f"https://bucket.example/{uri.removeprefix('memory://')}?signed={expires_s}"


async def test_object_storage_sends_its_recordings_itself_unless_asked_not_to():
    async with Worker(store=Signing()) as worker:
        await worker.created()
        await worker.stored_audio()
        response = await worker.get("/jobs/j/audio", allow_redirects=False)

        assert response.status == 302
        assert response.headers["Location"] == "https://bucket.example/acme/j/original.wav?signed=900"
        assert response.headers["Cache-Control"] == "no-store"
        assert await (await worker.get("/jobs/j/audio?direct=no")).read() == AUDIO


async def test_a_recording_not_fetched_yet_says_so(worker):
    await worker.created()

    assert "not stored yet" in (await problem(await worker.get("/jobs/j/audio"), 404))["detail"]


class Breaking(MemoryStore):
    """A store that goes away after the first piece."""

    async def stream(self, uri, start=0, end=None):
        yield (await self.get(uri))[:100]
        raise Unavailable(f"{uri} is out of reach")


async def test_a_recording_that_breaks_off_is_not_taken_for_the_whole():
    async with Worker(store=Breaking()) as worker:
        await worker.created()
        await worker.stored_audio()
        response = await worker.get("/jobs/j/audio")

        with pytest.raises(Exception, match=r"payload|closed|reset") as broken:
            await response.read()
        assert type(broken.value).__module__.startswith("aiohttp")


# Events


async def lines(response, count):
    """The next `count` events, as (event, data); comments count as events of None."""
    found = []
    while len(found) < count:
        block = (await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        found.append((fields.get("event"), json.loads(fields["data"]) if "data" in fields else None))
    return found


async def test_a_watcher_is_told_every_newer_status_until_the_run_ends():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events")
        told = await lines(response, 1)
        for status in ("transcribing", "reconciling", "persisting", "completed"):
            await worker.moved(status)
            worker.feeds.publish(await worker.tabled())
            worker.feeds.publish(status_of(stored("j")))  # one that comes late
            told += await lines(response, 1)

        assert [data["version"] for _, data in told] == [1, 2, 3, 4, 5]
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.read() == b""


async def test_a_watcher_is_told_at_once():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events")
        await lines(response, 1)
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await worker.moved("transcribing")
        worker.feeds.publish(await worker.tabled())
        await lines(response, 1)

        assert time.monotonic() - began < 0.5  # without being told it would look after 2 s


async def test_a_row_that_is_in_no_table_here_is_looked_at_often(worker):
    await worker.created()
    worker.live.rows.clear()
    response = await worker.get("/jobs/j/events")
    await lines(response, 1)
    began = time.monotonic()
    await worker.moved("completed")

    assert (await lines(response, 1))[0][1]["version"] == 2
    assert time.monotonic() - began < 1


async def test_a_watcher_that_comes_back_is_not_told_the_same_again():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events", ACME | {"Last-Event-ID": "1"})
        await worker.moved("completed")
        worker.feeds.publish(await worker.tabled())

        assert [data["version"] for _, data in await lines(response, 1)] == [2]
        assert (await worker.get("/jobs/j/events", ACME | {"Last-Event-ID": "2"})).status == 204
        assert (await worker.get("/jobs/j/events", ACME | {"Last-Event-ID": "x"})).status == 200


async def test_a_watch_of_a_job_that_is_deleted_ends():
    reader = Holds(j=stored("j"))
    async with Worker(reader=reader) as worker:
        response = await worker.get("/jobs/j/events")
        await lines(response, 1)
        del reader.rows["j"]

        assert (await lines(response, 1))[0][0] == "gone"


async def test_a_worker_that_stops_ends_its_watches_at_once():
    async with Worker(feeds=StatusFeeds()) as worker:
        await worker.created()
        response = await worker.get("/jobs/j/events")
        await lines(response, 1)
        began = time.monotonic()
        await worker.app.shutdown()

        assert await asyncio.wait_for(response.content.read(), 5) == b""
        assert time.monotonic() - began < 1
        await problem(await worker.get("/jobs/j/events"), 503)


async def test_watchers_of_one_tenant_leave_places_for_those_of_others_and_for_questions():
    async with Worker(feeds=StatusFeeds(), bounds=Bounds(connections=16)) as worker:
        await worker.created()
        await worker.created("k", "bolt")
        watching = [await worker.get("/jobs/j/events") for _ in range(2)]
        refused = await worker.get("/jobs/j/events")

        assert "a caller's share" in (await problem(refused, 429))["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await worker.get("/jobs/j/status")).status == 200
        watching += [await worker.get("/jobs/k/events", BOLT) for _ in range(2)]
        watching += [await worker.get("/jobs/j/events", ROOT) for _ in range(2)]
        assert {response.status for response in watching} == {200}
        watching[0].close()
        assert await eventually(lambda: is_watched(worker))


async def is_watched(worker):
    response = await worker.get("/jobs/j/events")
    response.close()
    return response.status == 200


async def eventually(condition, seconds=3.0):
    """Whether it holds within some seconds."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if await condition():
            return True
        await asyncio.sleep(0.02)
    return False


async def test_recordings_on_their_way_to_one_tenant_are_bounded_too():
    async with Worker(store=Endless(), bounds=Bounds(connections=16)) as worker:
        await worker.created()
        await worker.stored_audio()
        sending = await worker.get("/jobs/j/audio")

        assert sending.status == 200
        assert int((await worker.get("/jobs/j/audio")).headers["Retry-After"]) >= 1
        sending.close()


class Endless(MemoryStore):
    """A store that never comes to an end."""

    async def stream(self, uri, start=0, end=None):
        yield b"x"
        await asyncio.sleep(60)


async def test_a_question_that_takes_too_long_is_given_up(monkeypatch):
    class Slow(MemoryReader):
        async def jobs(self, *_, **__):
            await asyncio.sleep(60)

    monkeypatch.setattr("web.app.REQUEST_S", 0.1)
    async with Worker(reader=Slow(MemoryDatabase())) as worker:
        response = await worker.get("/tenants/acme/jobs")

        await problem(response, 503)
        assert response.headers["Retry-After"] == "2"


async def test_a_body_that_nobody_asked_for_is_refused_by_its_length(worker):
    sizes = [io.BytesIO(bytes(size)) for size in (1_048_576, 1_048_577)]
    assert (await worker.client.get("/tenants", headers=ACME, data=sizes[0])).status == 200
    response = await worker.client.get("/tenants", headers=ACME, data=sizes[1])

    await problem(response, 413)


# Health, errors, schema, console


async def test_probes_say_what_is_wrong(worker):
    worker.health = Health(alive=True, ready=False, details={"database": "away"})

    assert (await worker.get("/healthz", {})).status == 200
    ready = await worker.get("/readyz", {})
    assert ready.status == 503
    assert (await ready.json())["details"] == {"database": "away"}
    worker.health = replace(worker.health, alive=False)
    assert (await worker.get("/healthz", {})).status == 503


async def test_probes_at_one_moment_are_one_check():
    """Who asks needs no key, and a check takes one of the connections that the stages have."""
    checks = []

    async def check():
        checks.append(1)
        await asyncio.sleep(0.1)
        return Health(alive=True, ready=True, details={})

    async with Worker(health=check) as worker:
        answers = await asyncio.gather(*(worker.get("/readyz", {}) for _ in range(50)))

        assert {answer.status for answer in answers} == {200}
        assert len(checks) < 5


async def test_a_check_that_hangs_is_no_reason_to_restart(monkeypatch):
    async def hang():
        await asyncio.sleep(60)

    monkeypatch.setattr("web.site.PROBE_S", 0.1)
    async with Worker(health=hang) as worker:
        assert (await worker.get("/healthz", {})).status == 200
        assert (await worker.get("/readyz", {})).status == 503


async def test_metrics_may_be_collected_at_once_or_take_a_while():
    async def slowly():
        return b"later 1\n"

    async with Worker() as at_once, Worker(metrics=slowly) as later:
        now = await at_once.get("/metrics", {})
        assert await now.text() == "concord_jobs 1\n"
        assert now.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await (await later.get("/metrics", {})).text() == "later 1\n"


async def test_a_database_that_is_away_is_asked_to_be_patient_with_and_not_described():
    async with Worker(reader=Away()) as worker:
        for path in ("/jobs/j/status", "/jobs/j/transcript", "/jobs/j/audio", "/jobs/j/events", "/tenants/acme/jobs"):
            response = await worker.get(path)
            told = await problem(response, 503)
            assert response.headers["Retry-After"] == "2"
            assert "10.0.0.7" not in told["detail"]


async def test_a_fault_of_ours_has_a_number_in_the_log_and_no_traceback_for_the_asker(caplog):
    def broken():
        raise RuntimeError("root-key is in file: memory://secret.py")

    async with Worker(metrics=broken) as worker:
        told = await problem(await worker.get("/metrics", {}), 500)

        assert told["incident"] in caplog.text
        assert "RuntimeError" in caplog.text


async def test_what_is_not_there_and_what_does_not_go_are_problems_too(worker):
    assert "/openapi.json" in (await problem(await worker.get("/nothing"), 404))["detail"]
    response = await worker.client.post("/jobs/j/status", headers=ACME)
    await problem(response, 405)
    assert response.headers["Allow"] == "GET,HEAD"


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


async def test_the_openapi_document_names_every_route_and_every_reference_in_it_leads_somewhere(worker):
    document = await worker.json("/openapi.json")
    routes = {r.resource.canonical for r in worker.app.router.routes()} - {"/"}

    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {route for route in routes if not route.startswith("/static/")}
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    operations = [path["get"] for path in document["paths"].values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


async def test_what_is_answered_is_what_the_document_promises(worker):
    await worker.created()
    await worker.created("other")
    await worker.finished()
    document = await worker.json("/openapi.json")
    asked = {
        "/jobs/{id}/status": "/jobs/j/status",
        "/jobs/{id}/transcript": "/jobs/j/transcript",
        "/jobs/{id}/transcript/raw": "/jobs/j/transcript/raw",
        "/tenants/{tenant}/jobs": "/tenants/acme/jobs?limit=1",
        "/tenants": "/tenants",
        "/healthz": "/healthz",
    }
    for route, path in asked.items():
        schema = document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = schema | {"components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(await worker.json(path))
        told = await problem(await worker.get("/jobs/unknown/status"), 404)
    errors = document["paths"]["/jobs/{id}/status"]["get"]["responses"]["404"]["content"]["application/problem+json"]
    jsonschema.Draft202012Validator(errors["schema"] | {"components": document["components"]}).validate(told)


async def test_the_console_runs_nothing_but_its_own_files(worker):
    page = await worker.get("/", {})
    html = await page.text()
    policy = page.headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://|javascript:", html)
    for link in re.findall(r'(?:src|href)="(/[^"]+)"', html):
        response = await worker.get(link, {})
        assert response.status == 200, link
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_consoles_script_writes_text_and_never_markup():
    """Transcripts, file names and reasons come from strangers."""
    script = files("web").joinpath("static/console.js").read_text()

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|localStorage", script
    )


async def test_every_answer_is_kept_by_nobody_and_told_to_nobody(worker):
    await worker.created()
    for path in ("/jobs/j/status", "/tenants/acme/jobs", "/jobs/unknown/status", "/metrics"):
        headers = (await worker.get(path)).headers

        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


# --- callbacks

TOKEN = token_of("a secret of some length", "assemblyai")
DONE = {"transcript_id": "t-1", "status": "completed"}


class Hastened:
    """Who was to be looked at; a database that is away raises."""

    def __init__(self, error=None):
        self.asked = []
        self.error = error

    async def expedite_poll(self, provider, provider_id):
        if self.error:
            raise self.error
        self.asked.append((provider, provider_id))
        return False


@contextlib.asynccontextmanager
async def called(error=None):
    database = Hastened(error)
    callbacks = Callbacks(database, {"assemblyai": TOKEN})
    assert TOKEN not in repr(callbacks)
    async with Worker(callbacks=callbacks) as it:
        yield it, database


async def test_a_callback_with_its_token_makes_the_next_look_due_and_tells_nothing():
    async with called() as (it, database):
        answer = await it.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

        assert (answer.status, await answer.read()) == (204, b"")
        assert database.asked == [("assemblyai", "t-1")]


@pytest.mark.parametrize("path", ["/webhooks/assemblyai", "/webhooks/google"])
@pytest.mark.parametrize("shown", [{}, {HEADER: "wrong"}, {HEADER: "x" * 64}, {"X-API-Key": "root-key"}])
async def test_a_callback_without_its_token_is_refused_whoever_it_is_for(path, shown):
    async with called() as (it, database):
        answer = await it.client.post(path, json=DONE, headers=shown)
        said = await answer.json()

        assert answer.status == 401
        assert TOKEN not in str(said)
        assert database.asked == []


async def test_a_token_is_of_use_for_its_own_provider_only():
    async with called() as (it, database):
        for shown in (TOKEN, HEADER, token_of("a secret of some length", "google")):
            answer = await it.client.post("/webhooks/google", json=DONE, headers={HEADER: shown})
            assert answer.status == 401
        assert database.asked == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"status": "completed"}', 400),
        (b'{"transcript_id": "", "status": "completed"}', 400),
        (b'{"transcript_id": "a b", "status": "completed"}', 400),
        (b'{"transcript_id": "a\\u0000", "status": "completed"}', 400),
        (b'{"transcript_id": 7, "status": "completed"}', 400),
        (b'{"transcript_id": "%s", "status": "completed"}' % (b"x" * 129), 400),
        (b'{"transcript_id": "t-1", "status": "completed"}' + b" " * 4096, 413),
        (b"x" * (1 << 20), 413),
    ],
    ids=lambda it: str(it)[:40],
)
async def test_a_callback_that_says_nothing_usable_is_refused(body, status):
    async with called() as (it, database):
        answer = await it.client.post("/webhooks/assemblyai", data=body, headers={HEADER: TOKEN})

        assert answer.status == status
        assert database.asked == []


async def test_a_callback_that_we_cannot_keep_is_to_come_again():
    async with called(Unavailable("PostgreSQL does not answer")) as (it, _):
        answer = await it.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

        assert answer.status == 503


async def test_callbacks_have_a_place_in_the_document_and_none_where_there_are_none(worker):
    async with called() as (it, _):
        document = await it.json("/openapi.json")
    without = await worker.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

    assert list(document["paths"]["/webhooks/{provider}"]) == ["post"]
    assert without.status == 404
