"""The web service with edits and a review queue, and a job whose transcript has disputed words."""

from __future__ import annotations

import orjson

from agents.corrections.editor import Editor
from agents.stages.persist import agent_optimized
from agents.text.corrections.review import review_items
from schemas import blob_names
from schemas.jobs.outcome import Outcome, Progress
from schemas.jobs.rows import Job, Transcript
from schemas.rendering.segments import segments, speakers
from schemas.words import Decision, Quality, Reading, Reconciliation, adapter
from sinks.blobs.memory import MemoryStore
from sinks.fair_slots import FairSlots
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.web.service import ACME, Worker
from web.resources.corrections.edits import Edits
from web.resources.corrections.review import ReviewQueue
from web.resources.corrections.voices import Voices


def reading(text, providers, probability=0.95, at=0):
    return Reading(text, tuple(providers), probability, at, at + 300)


#: "My name is Meyer uh from Acme", where `b` heard "Mayor" and no "uh", and both disagree on the last word.
DECIDED = Reconciliation(
    (
        Decision(reading("My", "ab"), speaker="A"),
        Decision(reading("name", "ab", at=300), speaker="A"),
        Decision(reading("is", "ab", at=600), speaker="A"),
        Decision(reading("Meyer", "a", 0.5, 900), (reading("Mayor", "b", 0.45, 910),), "calibrated", "A"),
        Decision(reading("uh", "a", 0.6, 1200), (Reading(None, ("b",), 0.4),), "calibrated", "A"),
        Decision(reading("from", "ab", at=1500), speaker="B"),
        Decision(reading("Acme", "a", 0.8, 1800), (reading("acne", "b", 0.2, 1800),), "calibrated", "B"),
    ),
    "calibrated",
    Quality(0.8, 0.5, 1.0, 0.1),
    ("a", "b"),
)


class CorrectingWorker(Worker):
    """A worker that serves edits."""

    def __init__(self, database=None, store=None, versions=None, reader=None, resources=(), **more):
        database, store = database or MemoryDatabase(), store or MemoryStore()
        reader = reader or MemoryReader(database)
        editor = Editor(versions or reader, store, database, FairSlots(4, 2))
        resources = [Edits(reader, editor), ReviewQueue(reader, database, editor), Voices(database), *resources]
        more |= {
            "store": store,
            "reader": reader,
            "resources": resources,
            "earlier": editor.earlier,
            "words": editor.words,
        }
        super().__init__(database, **more)

    async def transcribed(self, job_id="j", tenant="acme", decided=DECIDED):
        """A job whose run has completed, as `persist` completes it."""
        if await self.database.job(tenant, job_id) is None:
            await self.created(job_id, tenant)
        job = await self.database.job(tenant, job_id)
        names = (tenant, job_id, job.run)
        raw = await self._put(blob_names.raw_transcript(*names), adapter(Reconciliation).dump_json(decided))
        optimized = await self._put(blob_names.agent_optimized(*names), orjson.dumps(agent_optimized(job, decided)))
        progress = Progress(run=job.run, status="completed", stage="persist")
        await self.commit(
            "persist",
            Outcome(
                tenant_id=tenant,
                job_id=job_id,
                progress=progress,
                transcript=row(job, decided, raw, optimized),
                review=review_items(job, decided),
                new_enrichments=("document",),
            ),
        )

    async def _put(self, name, content):
        return (await self.store.put(name, content, "application/json")).uri

    async def change(self, *changes, if_match="*", job="j", headers=ACME, **more):
        """PATCH these changes."""
        sent = headers | ({"If-Match": if_match} if if_match else {})
        body = {"changes": list(changes)} | more
        return await self.client.patch(f"/jobs/{job}/transcript", json=body, headers=sent)

    async def write(self, body, if_match="*", job="j", headers=ACME):
        """PUT this text."""
        sent = headers | ({"If-Match": if_match} if if_match else {})
        return await self.client.put(f"/jobs/{job}/transcript", json=body, headers=sent)

    async def words(self, job="j", **query):
        """By id, the words' texts."""
        return {word["id"]: word["text"] for word in await self.full_words(job, **query)}

    async def full_words(self, job="j", **query):
        return (await self.json(f"/jobs/{job}/transcript/words", params=query))["words"]

    async def text(self, job="j", **query):
        return (await self.json(f"/jobs/{job}/transcript", params=query))["text"]

    def events(self, topic="transcript.edited"):
        return [orjson.loads(message.value) for _, message in self.database.outbox if message.topic == topic]


def row(job, decided, raw, optimized):
    return Transcript(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        text=decided.text,
        words=len(decided.words),
        speakers=speakers(decided.words),
        segments=segments(decided.words),
        language="en",
        confidence=0.8,
        agreement=0.5,
        method="calibrated",
        provider_confidences={},
        reconciliation_notes=[],
        quality={},
        raw_transcript_uri=raw,
        agent_optimized_uri=optimized,
        duration_ms=2100,
    )


def job(**more):
    return Job(tenant_id="acme", job_id="j", filename="a.wav", audio_uri="s3://b/a", **more)
