"""The document of a job in passages, over HTTP."""

from __future__ import annotations

import pytest

from agents.text.chunks.markdown import document_chunks
from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from schemas.jobs.outcome import Outcome
from schemas.jobs.rows import file_kind
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.ports.blobs import file_of
from tests.web.service import BOLT, Worker, problem
from web.resources.exports.document_chunks import JobDocumentChunks

TEXT = "# A call\n\n" + "Somebody calls about an order. " * 20 + "\n\n## What was said\n\n" + "Yes, of course. " * 40


@pytest.fixture
async def worker():
    database, store = MemoryDatabase(), MemoryStore()
    accounts = Accounts(database, AccountSettings(), seconds=0)
    resources = [JobDocumentChunks(MemoryReader(database), store, accounts, document_chunks)]
    async with Worker(database, store=store, resources=resources) as worker:
        await worker.created("j")
        yield worker


async def test_passages_are_as_long_as_the_tenant_has_set(worker):
    await problem(await worker.get("/jobs/j/document/chunks"), 404)
    job = await worker.database.job("acme", "j")
    blob = await worker.store.put(blob_names.document("acme", "j", 1, 1), TEXT.encode(), "text/markdown")
    file = file_of(job, file_kind("document", 1), blob)
    await worker.commit("document", Outcome(tenant_id="acme", job_id="j", files=(file,)))
    whole = await worker.json("/jobs/j/document/chunks")
    await worker.database.save_account_settings("acme", AccountSettings(chunk_tokens=50, chunk_least=20), 0, "me")
    small = await worker.json("/jobs/j/document/chunks")

    assert [chunk["headings"] for chunk in whole["chunks"]] == [["A call"], ["A call", "What was said"]]
    assert len(small["chunks"]) > 4
    assert all(TEXT[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in small["chunks"])
    await problem(await worker.get("/jobs/j/document/chunks", BOLT), 404)
