"""What every database must tell of conversations; see `sinks.ports.conversations`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from schemas.accounts.settings import AccountSettings
from schemas.conversations import names
from schemas.conversations.processing import WALK, processing
from schemas.conversations.rows import ConversationDay, ConversationDays, IssuedUrl
from schemas.errors import Unavailable
from schemas.events.job import StepState
from schemas.jobs.outcome import Failure, Outcome, Progress, Step, failed_progress
from schemas.jobs.rows import File, Job
from sinks.memory.conversations.history import MemoryConversationHistory
from sinks.memory.database import MemoryDatabase
from sinks.ports.reads import Cursor
from sinks.postgres.conversations.history import PostgresConversationHistory
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.reader import Reader
from sinks.postgres.sql.tables import JOBS
from tests.contract.databases.cases import created
from tests.unit.test_conversations import WALK as ROWS

PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def conversation(id: str = "conv_1", tenant: str = "acme", **more) -> Job:
    return Job(
        tenant_id=tenant,
        job_id=names.job_id(tenant, id),
        reference=names.reference(id),
        audio_uri=names.reference(id),
        filename=names.filename(id),
        **{"options": {"mail_to": ["zoe@example.com"]}} | more,
    )


def file(of: Job, folder: str = "reports", extension: str = "pdf") -> File:
    id = names.conversation_of(of)
    return File(
        tenant_id=of.tenant_id,
        job_id=of.job_id,
        run=of.run,
        kind=folder,
        uri=f"s3://b/{of.tenant_id}/{folder}/{id}.{extension}",
        size_bytes=7,
        content_type="application/pdf",
        sha256="5" * 64,
    )


def ended(of: Job, code: str) -> Step:
    progress = failed_progress(of.run, "fetch", Failure("no", code))
    return Step("fetch", uuid4(), Outcome(tenant_id=of.tenant_id, job_id=of.job_id, progress=progress, audit="failed"))


@pytest.fixture
def told(under_test):
    """A database to write to, and what tells of its conversations."""
    database = under_test.database
    if isinstance(database, MemoryDatabase):
        return database, MemoryConversationHistory(database)
    return database, PostgresConversationHistory(Reader(under_test.pool))


async def test_conversations_are_listed_newest_first_without_uploads_and_others(told):
    database, history = told
    for number in range(5):
        await database.commit([created(conversation(f"conv_{number}")), created(conversation("conv_x", "bolt"))])
    await database.commit([created(replace(conversation("upload"), audio_uri="https://example.com/a", reference=None))])

    first, cursor = await history.conversations("acme", limit=3)
    rest, end = await history.conversations("acme", limit=3, before=cursor)

    assert [row.conversation_id for row in [*first, *rest]] == [f"conv_{n}" for n in (4, 3, 2, 1, 0)]
    assert cursor == Cursor(first[-1].created_at, first[-1].job_id)
    assert end is None
    assert {(row.email_id, row.status, row.progress) for row in first} == {("zoe@example.com", "pending", 0)}
    assert await history.conversations("nobody", limit=3) == ([], None)


async def test_conversations_are_found_by_their_status(told):
    database, history = told
    for number in range(5):
        await database.commit([created(conversation(f"conv_{number}"))])
    await database.commit([ended(conversation("conv_1"), "not_found"), ended(conversation("conv_3"), "cancelled")])

    found = {}
    for status in ("failed", "cancelled", "pending", "completed"):
        rows, _ = await history.conversations("acme", frozenset({status}), limit=9)
        found[status] = [row.conversation_id for row in rows]
    two = frozenset({"failed", "pending"})
    page, cursor = await history.conversations("acme", two, limit=2)
    rest, _ = await history.conversations("acme", two, limit=9, before=cursor)

    assert found.pop("pending") == ["conv_4", "conv_2", "conv_0"]
    assert found == {"failed": ["conv_1"], "cancelled": ["conv_3"], "completed": []}
    assert [row.conversation_id for row in [*page, *rest]] == ["conv_4", "conv_2", "conv_1", "conv_0"]


async def test_failures_since_a_moment_are_listed_newest_first(told):
    database, history = told
    await database.commit([created(conversation(f"conv_{number}")) for number in range(4)])
    for number in (2, 0, 1):
        await database.commit([ended(conversation(f"conv_{number}"), "not_found")])
    await database.commit([ended(conversation("conv_3"), "cancelled")])

    page, cursor = await history.failed_conversations("acme", PAST, limit=2)
    rest, end = await history.failed_conversations("acme", PAST, limit=2, before=cursor)

    assert [row.conversation_id for row in [*page, *rest]] == ["conv_1", "conv_0", "conv_2"]
    assert end is None
    assert (page[0].error_message, page[0].error_code, page[0].current_step) == ("no", "not_found", "fetch")
    assert await history.failed_conversations("acme", FUTURE, limit=2) == ([], None)
    assert await history.failed_conversations("bolt", PAST, limit=2) == ([], None)


async def test_conversations_of_some_days_are_counted_by_status(told):
    database, history = told
    await database.commit([created(conversation(f"conv_{number}")) for number in range(3)])
    await database.commit([created(conversation("conv_x", "bolt")), ended(conversation("conv_1"), "not_found")])
    [row], _ = await history.failed_conversations("acme", PAST, limit=2)
    day = f"{row.created_at:%Y-%m-%d}"

    numbers = await history.conversation_days("acme", PAST, FUTURE)

    assert numbers == ConversationDays((ConversationDay(day, {"failed": 1, "pending": 2}, None),), None)
    assert await history.conversation_days("acme", FUTURE, FUTURE) == ConversationDays((), None)


async def test_the_median_is_of_all_that_are_complete_with_their_files_or_without(told):
    """Of three archived conversations and two that have their files; the medians of the groups are others."""
    database, history = told
    for number in range(5):
        of = conversation(f"conv_{number}", options={})
        await database.commit([created(of, files=(file(of),) if number in (1, 2) else ())])
        await asyncio.sleep(0.02 * number)
        progress = Progress(run=1, status="completed", stage="persist", step=StepState(state="done"))
        await database.commit(
            [Step("persist", uuid4(), Outcome(tenant_id="acme", job_id=of.job_id, progress=progress))]
        )
    rows, _ = await history.conversations("acme", limit=9)
    took = sorted((row.completed_at - row.created_at).total_seconds() for row in rows)

    numbers = await history.conversation_days("acme", PAST, FUTURE)

    assert numbers.days[0].by_status == {"archived": 3, "completed": 2}
    assert numbers.median_s == pytest.approx(took[2])
    assert numbers.days[0].median_s == pytest.approx(took[2])


async def test_urls_are_kept_of_files_that_there_are_and_go_with_them(told):
    database, _ = told
    of = conversation()
    await database.commit([created(of, files=(file(of), file(of, "audio", "mp3")))])
    kept = IssuedUrl(tenant_id="acme", job_id=of.job_id, uri=file(of).uri, url="https://s3/?sig=1", expires_at=FUTURE)
    newer = replace(kept, url="https://s3/?sig=2")

    await database.keep_issued_urls([kept, replace(kept, uri="s3://b/acme/reports/other.pdf")])
    assert await database.issued_urls(of.key) == [kept]
    await database.keep_issued_urls([newer])
    assert await database.issued_urls(of.key) == [newer]
    assert await database.issued_urls(("bolt", of.job_id)) == []
    assert "sig=" not in repr(newer)
    await database.commit([ended(of, "not_found")])
    await database.begin_deletion(of.key, "somebody", "files")
    assert await database.issued_urls(of.key) == []


async def test_an_agent_of_a_tenants_settings_is_looked_at_by_one_worker_at_a_time(told):
    database, _ = told
    assert await database.claim_look(60) is None
    agents = AccountSettings(conversation_agents={"agent_1": "zoe@example.com"})
    await database.save_account_settings("acme", agents, 0, "me")
    await database.save_account_settings("bolt", AccountSettings(audio_days=3), 0, "me")

    look = await database.claim_look(60)

    assert (look.tenant_id, look.agent_id, look.email_id) == ("acme", "agent_1", "zoe@example.com")
    assert look.looked_to == look.began_at, "it begins at the present"
    assert await database.claim_look(60) is None
    seen = look.began_at + timedelta(seconds=5)
    await database.end_look(look, seen, 3, 0)
    again = await database.claim_look(0)
    assert (again.looked_to, again.token) == (seen, look.token + 1)
    third = await database.claim_look(60)
    await database.end_look(again, FUTURE, 0, 0, "of a claim that has lapsed")
    await database.end_look(third, third.looked_to, 0, 3600)
    assert third.looked_to == seen
    assert await database.claim_look(60) is None


async def test_an_agents_owners_are_found_by_its_id(told):
    database, _ = told
    for tenant, agents in (("bolt", {"a1": "b@example.com"}), ("acme", {"a1": "a@example.com", "a2": "c@example.com"})):
        await database.save_account_settings(tenant, AccountSettings(conversation_agents=agents), 0, "me")

    assert await database.owners_of_agent("a1") == [("acme", "a@example.com"), ("bolt", "b@example.com")]
    assert await database.owners_of_agent("a3") == []


async def inserted(db, row: Job) -> None:
    columns = dict(zip(JOBS.written, JOBS.values([row])[0], strict=True))
    columns |= {"created_at": PAST, "updated_at": PAST}
    places = ", ".join(f"${n}" for n, _ in enumerate(columns, 1))
    await db.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({places})", *columns.values())


@pytest.mark.parametrize("files", [True, False], ids=["with files", "without"])
async def test_the_view_says_what_is_derived_from_a_row(migrated, files):
    """`schemas.conversations.processing` and the view's SQL are the same function of a row."""
    pool = await connect_pool(migrated)
    differences = []
    async with pool.acquire() as db:
        for case, (row, _) in ROWS.items():
            row = replace(
                row, job_id=names.job_id("acme", case), audio_uri=f"elevenlabs:{len(differences)}", reference=case
            )
            await inserted(db, row)
            if files:
                await db.execute("INSERT INTO files VALUES ($1, 1, 'x', 'acme', 'u', 1, 't', 's', now())", row.job_id)
            view = await db.fetchrow("SELECT * FROM conversation_processing WHERE job_id = $1", row.job_id)
            state = processing(row, has_files=files)
            derived = (state.status, state.progress, state.current_step, state.error, state.code, state.ended_at)
            shown = ("status", "progress", "current_step", "error_message", "error_code", "completed_at")
            if tuple(view[name] for name in shown) != derived:
                differences.append((case, derived, dict(view)))
            assert view["processing_id"] == names.processing_id(row.job_id)
    await pool.close()

    assert differences == []
    assert set(WALK) == {"summary", "report", "mail"}


VIEWS = ("conversation_processing", "conversation_files", "processing_audit_log")


async def test_a_tenant_sees_its_own_rows_of_the_views_and_writes_no_others(migrated, db):
    pool = await connect_pool(migrated)
    database, reader = Postgres(pool), Reader(pool)
    for tenant in ("acme", "bolt"):
        of = conversation(tenant=tenant)
        await database.commit([created(of, files=(file(of, "transcripts", "txt"), file(of)))])
        url = IssuedUrl(tenant_id=tenant, job_id=of.job_id, uri=file(of).uri, url="u", expires_at=FUTURE)
        await database.acting_as(tenant).keep_issued_urls([url])
    other = conversation(tenant="bolt")
    stolen = IssuedUrl(tenant_id="bolt", job_id=other.job_id, uri=file(other).uri, url="mine", expires_at=FUTURE)
    await database.acting_as("acme").keep_issued_urls([stolen])
    seen = {view: await reader._fetch("acme", f"SELECT * FROM {view}") for view in (*VIEWS, "issued_urls")}
    with pytest.raises(Unavailable, match="InsufficientPrivilege"):
        await database.acting_as("acme").claim_look(60)
    await pool.close()

    assert {view: {row["tenant_id"] for row in rows} for view, rows in seen.items()} == {
        view: {"acme"} for view in seen
    }
    files = {row["file_type"]: row for row in seen["conversation_files"]}
    assert set(files) == {"transcript", "report"}
    assert files["report"]["url_expires_at"] == FUTURE
    assert files["transcript"]["url_expires_at"] is None
    assert files["report"]["checksum"] == "5" * 64
    assert [row["event"] for row in seen["processing_audit_log"]] == ["completed"]
    assert [row["url"] for row in await db.fetch("SELECT url FROM issued_urls ORDER BY tenant_id")] == ["u", "u"]


async def test_lists_are_read_from_the_partial_indexes(migrated, db):
    """Also under row-level security: uploads cost nothing."""
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    await database.commit([created(conversation(f"conv_{n}")) for n in range(20)])
    await db.execute(
        "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object('job_id', gen_random_uuid()::text, "
        "'reference', NULL, 'audio_uri', 'https://example.com/a'))).* FROM jobs j, generate_series(1, 200)"
    )
    await db.execute("ANALYZE jobs")
    plans = []
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE concord_tenant; SET LOCAL concord.tenant = 'acme'")
        for condition in ("ORDER BY created_at DESC, job_id LIMIT 5", "AND updated_at >= now() - interval '1 hour'"):
            sql = f"EXPLAIN SELECT * FROM conversation_processing WHERE true {condition}"
            plans.append("\n".join(row[0] for row in await connection.fetch(sql)))
    await pool.close()

    assert "conversations_listed" in plans[0], plans[0]
    assert "using conversations_" in plans[1], plans[1]
