"""The console in the system's Chromium, before the web service over doubles."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from playwright.async_api import async_playwright, expect

from agents.media.source.audio_source import AudioSource
from agents.search.searcher import Searcher
from agents.stages.uploads.received import ReceivedUploads
from agents.stages.uploads.runs import Runs
from agents.text.chunks.index import transcript_index
from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from schemas.errors import SettingsError
from schemas.jobs.outcome import EnrichmentChange, Outcome
from schemas.jobs.rows import file_kind
from schemas.summaries import ActionItem, Coverage, Entity, Statement, Summary, items_of
from schemas.transcript_words import words_of
from schemas.words import Decision, Quality, Reading, Reconciliation
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.fair_slots import FairSlots
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.memory.search.reads import MemorySearch
from sinks.ports.blobs import file_of
from tests.fleet.conftest import recording
from tests.web.corrections import DECIDED, CorrectingWorker
from tests.web.walk import accounts_resources
from web.auth.api_keys import ApiKeys
from web.connections.caller_limit import CallerLimit
from web.resources.deletions import Deletions
from web.resources.jobs.details import JobControl
from web.resources.schedules import TenantSchedules
from web.resources.search.search import Search
from web.resources.summaries.summary import JobSummary
from web.resources.uploads.process import ProcessAudio

CHROMIUM = shutil.which("chromium")
WAV = recording()

#: Milliseconds that the browser has for what usually takes a few: two cores may have a fleet to run, too.
PATIENCE_MS = 20_000

#: Bytes that an upload may have here.
LIMIT = 1 << 20


def _no_model(model):
    raise SettingsError(model)


class ConsoleWorker(CorrectingWorker):
    """A worker with all that the console uses."""

    def __init__(self, pool):
        database, store = MemoryDatabase(), MemoryStore()
        accounts = Accounts(database, AccountSettings(requests_per_minute=10_000))
        received = ReceivedUploads(
            database, AudioSource(store, pool, ()), Runs(("a", "b"), 3600.0), accounts, FairSlots(6, 5)
        )

        async def limit(_):
            return LIMIT

        resources = [
            ProcessAudio(received, store, limit, CallerLimit("uploads", 10)),
            Deletions(MemoryReader(database), database),
            JobControl(MemoryReader(database), database, received),
            *accounts_resources(database, accounts),
            JobSummary(MemoryReader(database), store),
            Search(Searcher(MemorySearch(database), _no_model)),
            TenantSchedules(database, ("summary",), mails=True),
        ]
        keys = ApiKeys.parse("acme=acme-key,acme=acme-second,*=root-key", accounts)
        super().__init__(database, store, resources=resources, keys=keys)

    async def heard(self, job_id, tenant="acme", **more):
        """A job with its recording, and a transcript that is in doubt."""
        await self.created(job_id, tenant)
        await self.stored_audio(job_id, tenant, content=WAV)
        await self.transcribed(job_id, tenant, **more)
        await self.tabled(job_id, tenant)

    async def summarised(self, job_id="j"):
        """Its summary, which cites its words, and its index."""
        job = await self.database.job("acme", job_id)
        name = {"words": ("w3",), "quote": "Meyer", "speaker": "A", "start_ms": 900, "end_ms": 1200, "disputed": True}
        acme = {"words": ("w6",), "quote": "Acme", "speaker": "B", "start_ms": 1800, "end_ms": 2100}
        summary = Summary(
            kind="summary",
            template="default/v1",
            transcript_version=1,
            topic="Somebody says who he is.",
            sentiment="neutral",
            key_points=(Statement(text="His name is Meyer.", **name),),
            action_items=(ActionItem(text="Call back", who="Meyer", when="Friday", **name),),
            entities=(Entity(kind="organisation", text="Acme", **acme),),
            coverage=Coverage(words=7, words_read=7, parts=1),
            notes=("Items that rest on words on which the recognizers did not agree: 2.",),
        )
        content = summary.model_dump_json().encode()
        blob = await self.store.put(blob_names.summary("acme", job_id, 1, 1), content, "application/json")
        begun = EnrichmentChange(run=1, kind="summary", state="pending", begins=True)
        await self.commit("summary", Outcome(tenant_id="acme", job_id=job_id, enrichment=begun))
        done = EnrichmentChange(run=1, kind="summary", state="done", result={"sentiment": "neutral"})
        items, files = items_of(summary, job), (file_of(job, file_kind("summary", 1), blob),)
        outcome = Outcome(tenant_id="acme", job_id=job_id, enrichment=done, summary_items=items, files=files)
        await self.commit("summary", outcome)
        words = words_of(DECIDED)
        index = transcript_index(job, job.created_at, 1, DECIDED, words)
        await self.commit("index", Outcome(tenant_id="acme", job_id=job_id, index=index))
        await self.tabled(job_id, "acme")


def long_transcript(count):
    """A transcript of so many words, each tenth of them disputed."""
    decisions = [
        Decision(
            Reading(
                f"word{n}" + "." * (n % 15 == 14), ("a", "b"), 0.6 if n % 10 == 0 else 0.97, n * 240, n * 240 + 200
            ),
            (Reading(f"ward{n}", ("c",), 0.4),) if n % 10 == 0 else (),
            "calibrated",
            "AB"[n // 50 % 2],
        )
        for n in range(count)
    ]
    return Reconciliation(tuple(decisions), "calibrated", Quality(0.9, 0.9, 1.0, 0.1), ("a", "b", "c"))


@contextlib.asynccontextmanager
async def chromium():
    """A browser."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--mute-audio"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def page_of(browser, worker, location="#/acme", key="acme-key", **context):
    """The console at this location. Whatever it writes to its console as an error fails the test."""
    context = await browser.new_context(base_url=worker.url, **context)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    await page.add_init_script(f"sessionStorage.setItem('concord-key', {key!r})")
    try:
        await page.goto(f"/{location}")
        yield page
        assert errors == []
    finally:
        await context.close()
