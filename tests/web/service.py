"""The web service over in-memory doubles, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from datetime import UTC, datetime
from uuid import uuid4

from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from agents.corrections.editor import Editor
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import File, Job, Transcript, file_kind
from schemas.jobs.status import status_of, status_version
from schemas.words import Decision, Quality, Reading, Reconciliation, adapter
from sinks.blobs.memory import MemoryStore
from sinks.fair_slots import FairSlots
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from web.app import make_app
from web.auth.api_keys import ApiKeys
from web.memory import MemoryJobs
from web.ports import Health
from web.resources.problems.codes import CODES

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
        editor = Editor(self.reader, self.store, self.database, FairSlots(4, 2))
        ports = {"metrics": lambda: b"concord_jobs 1\n", "health": self.check, "idempotency": self.database}
        ports |= {"queue": self.database}
        ports |= {"earlier": editor.earlier, "words": editor.words} | more
        parsed = keys if isinstance(keys, ApiKeys) else ApiKeys.parse(keys)
        self.app = make_app(live=self.live, reader=self.reader, store=self.store, keys=parsed, feeds=feeds, **ports)
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

    async def stored_audio(self, job_id="j", tenant="acme", kind="audio/wav", content=AUDIO):
        blob = await self.store.put(f"{tenant}/{job_id}/original.wav", content, kind)
        file = File(tenant_id=tenant, job_id=job_id, run=1, kind="original", **of_blob(blob))
        await self.commit("intake", Outcome(tenant_id=tenant, job_id=job_id, files=(file,)))

    async def stored_report(self, version, job_id="j", tenant="acme"):
        content = f"%PDF {version}".encode()
        blob = await self.store.put(f"{tenant}/{job_id}/{version}.pdf", content, "application/pdf")
        kind = file_kind("report", version)
        file = File(tenant_id=tenant, job_id=job_id, run=1, kind=kind, **of_blob(blob))
        await self.commit("report", Outcome(tenant_id=tenant, job_id=job_id, files=(file,)))

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


async def problem(response, status):
    """The problem document of an error, checked for what every one of them must be."""
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    assert not re.search(r"Traceback|memory://|file://|-key|\.py", text)
    document = json.loads(text)
    assert document["status"] == status
    assert document["detail"]
    assert CODES[document["code"]].status == status
    assert document["type"] == f"/problems/{document['code']}"
    assert document.pop("request_id") == response.headers["X-Request-Id"]
    return document


def stored(job_id, tenant="acme", version=1, status="uploaded", **more):
    times = {"created_at": datetime(2026, 5, 1, tzinfo=UTC), "updated_at": datetime(2026, 5, 1, tzinfo=UTC)} | more
    of = {"tenant_id": tenant, "job_id": job_id, "version": version, "status": status}
    return Job(**of, filename="a.wav", audio_uri="s3://b/a", **times)


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


@contextlib.asynccontextmanager
async def two(**of_second):
    """Two workers on one database, each with a table of its own."""
    async with Worker() as first, Worker(first.database, **of_second) as second:
        yield first, second


PATHS = ("/jobs/{}/status", "/jobs/{}/events", "/jobs/{}/transcript", "/jobs/{}/transcript/raw", "/jobs/{}/audio")


UUID = "4711ca11-0000-4000-8000-00000000000a"
NAMES = (UUID, UUID.upper(), UUID.replace("-", ""), "call%201%2F2%20%C3%BC")


async def by(worker, path, name, headers, **query):
    url = URL(str(worker.client.make_url("/"))[:-1] + path.format(name), encoded=True).update_query(query)
    return await worker.client.session.get(url, headers=headers)


async def raw_response(worker, request):
    """The raw answer to raw bytes."""
    port = worker.client.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return await asyncio.wait_for(reader.read(65536), 5)
    finally:
        writer.close()
        await writer.wait_closed()


async def lines(response, count):
    """The next `count` events, as (event, data); comments count as events of None."""
    events = []
    while len(events) < count:
        block = (await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        events.append((fields.get("event"), json.loads(fields["data"]) if "data" in fields else None))
    return events


async def eventually(condition, seconds=3.0):
    """Whether it holds within some seconds."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if await condition():
            return True
        await asyncio.sleep(0.02)
    return False
