"""Which jobs a list has, by what people look for; see `sinks.ports.reads.JobFilter`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sinks.ports.reads import JobFilter
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.reader import Reader
from sinks.postgres.reading import job_list
from sinks.postgres.reading.job_list import JobListQuery, following_prefix
from tests.contract.databases.test_reads import completed, created, everything, stored

__all__ = ["stored"]


async def listed(reader, tenant="acme", **wanted) -> set[str]:
    pages = await everything(reader, tenant, limit=2, **wanted)
    ids = [id for page in pages for id in page]
    assert len(ids) == len(set(ids))
    return set(ids)


def job(id, filename=None, **more):
    step = created(id, **more)
    if filename:
        step = replace(step, outcome=replace(step.outcome, create=replace(step.outcome.create, filename=filename)))
    return step


async def test_the_oldest_come_first_if_asked_for(stored):
    database, reader = stored
    for n in range(3):
        await database.commit([created(f"{n}-{m}") for m in range(3)])

    newest, oldest = (
        await everything(reader, "acme", limit=2),
        await everything(reader, "acme", limit=2, oldest_first=True),
    )

    assert [id for page in oldest for id in page] == [id for page in newest for id in page][::-1]


async def test_a_part_of_the_filename_is_found_in_any_case(stored):
    database, reader = stored
    await database.commit([job("a", "Call 100%_Zoe.WAV"), job("b", "call 1000.wav"), job("c", "other.mp3")])
    await database.commit([job("d", "call.wav", tenant="bolt")])

    assert await listed(reader, filename="CALL") == {"a", "b"}
    assert await listed(reader, filename="100%_z") == {"a"}
    assert await listed(reader, filename="wav", statuses={"uploaded", "failed"}) == {"a", "b"}
    assert await listed(reader, filename="nothing") == set()


async def test_references_are_found_whole_or_by_their_beginning(stored):
    database, reader = stored
    refs = {"a": "order 7", "b": "order 71", "c": "Order 7", "d": "order 7🎉", "e": None, "f": "order 8"}
    await database.commit([job(id, reference=reference) for id, reference in refs.items()])
    await database.commit([job("z", tenant="bolt", reference="order 7")])

    assert await listed(reader, reference="order 7") == {"a"}
    assert await listed(reader, reference_prefix="order 7") == {"a", "b", "d"}
    assert await listed(reader, reference_prefix="order 7", filename="b.wav") == {"b"}
    assert await listed(reader, reference="order 9") == set()
    assert await listed(reader, reference="order 7", statuses={"failed"}) == set()
    assert await listed(reader, reference_prefix="order 7", statuses={"uploaded"}) == {"a", "b", "d"}


async def test_metadata_are_found_by_pairs_of_their_top_level(stored):
    database, reader = stored
    metadata = {"agent": "Zoë", "team": 7, "vip": True, "nested": {"agent": "Bob"}, "share": 0.5}
    await database.commit([job("a", metadata=metadata), job("b", metadata={"agent": "Zoë", "team": 8}), job("c")])
    await database.commit([job("d", tenant="bolt", metadata=metadata)])

    assert await listed(reader, metadata={("agent", "Zoë")}) == {"a", "b"}
    assert await listed(reader, metadata={("agent", "Zoë"), ("team", "7")}) == {"a"}
    assert await listed(reader, metadata={("vip", "true"), ("share", "0.5")}) == {"a"}
    assert await listed(reader, metadata={("agent", "Zoë")}, statuses={"uploaded"}, filename="B.wav") == {"b"}
    assert await listed(reader, metadata={("agent", "Bob")}) == set()
    assert await listed(reader, metadata={("agen", "tZoë")}) == set()


async def test_times_and_languages_narrow_a_list(stored):
    database, reader = stored
    await database.commit([job("a"), job("b", language="de-AT"), job("c")])
    await database.commit([completed("a")])
    first = await reader.job("acme", "a")
    at, moment = first.completed_at, timedelta(microseconds=1)

    assert await listed(reader, created_from=first.created_at) == {"a", "b", "c"}
    assert await listed(reader, created_to=first.created_at) == set()
    assert await listed(reader, completed_from=at, completed_to=at + moment) == {"a"}
    assert await listed(reader, completed_to=at) == await listed(reader, completed_from=at + moment) == set()
    assert await listed(reader, language="en") == {"a"}
    assert await listed(reader, language="de") == await listed(reader, language="de-at") == {"b"}
    assert await listed(reader, language="d") == set()


async def test_a_page_that_has_looked_at_enough_jobs_is_short_and_the_next_looks_on(stored, monkeypatch):
    for name in ("SCANNED_ROWS", "SCANNED_ENTRIES", "FEW"):
        monkeypatch.setattr(job_list, name, 3)
    monkeypatch.setattr("sinks.postgres.reader.FEW", 3)
    database, reader = stored
    for n in range(12):
        await database.commit(
            [job(f"{n:02}", "wanted" if n in (2, 8) else "other", reference=f"r{n}", metadata={"n": 1})]
        )

    for wanted in (
        {"filename": "WANT"},
        {"filename": "want", "reference_prefix": "r"},
        {"filename": "want", "metadata": {("n", "1")}},
        {"filename": "want", "statuses": frozenset({"uploaded"})},
        {"filename": "want", "statuses": frozenset({"uploaded"}), "metadata": {("n", "1")}},
    ):
        pages = await everything(reader, "acme", limit=2, **wanted)
        assert [id for page in pages for id in page] == ["08", "02"]
        assert all(len(page) <= 2 for page in pages)


async def test_metadata_follow_an_upload_that_replaces_them_and_end_with_the_job(db):
    columns = (
        "job_id, tenant_id, run, status, version, filename, audio_uri, language, priority, options, metadata, steps"
    )
    values = "'t', 1, 'uploaded', 1, 'a', 'file:///a', 'en', 5, '{}', '{\"a\": 1, \"b\": [2]}', '{}', now(), now()"
    await db.execute(f"INSERT INTO jobs ({columns}, created_at, updated_at) VALUES ('j', {values}), ('k', {values})")
    await db.execute("UPDATE jobs SET metadata = '{\"c\": 3}' WHERE job_id = 'j'")
    kept = await db.fetch(
        "SELECT job_id FROM job_metadata WHERE pair IN (metadata_pair('a', '1'), metadata_pair('c', '3'))"
    )
    await db.execute("DELETE FROM jobs")

    assert sorted(row["job_id"] for row in kept) == ["j", "k"]
    assert await db.fetchval("SELECT count(*) FROM job_metadata") == 0


WANTED = [
    JobFilter(),
    JobFilter(oldest_first=True),
    JobFilter(statuses=frozenset({"failed"})),
    JobFilter(statuses=frozenset({"failed", "completed"}), filename="x"),
    JobFilter(filename="x"),
    JobFilter(metadata=frozenset({("a", "1"), ("b", "2")})),
    JobFilter(language="en"),
]


@pytest.mark.parametrize("wanted", WANTED, ids=range(len(WANTED)))
async def test_a_list_reads_no_table_from_its_beginning(db, wanted):
    query = JobListQuery(wanted, 50, None)
    await db.execute("SET enable_seqscan = off")
    async with db.transaction():
        await db.execute("SET LOCAL ROLE concord_tenant; SELECT set_config('concord.tenant', 'acme', true)")
        plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {query.sql}", *query.arguments))

    assert "Seq Scan" not in plan
    assert "tenant_id = " in plan


def test_what_follows_a_prefix_is_behind_every_text_that_begins_with_it():
    assert following_prefix("ab") == "ac"
    assert following_prefix("a\U0010ffff") == "b"
    assert following_prefix("\ud7ff") == "\ue000"
    assert following_prefix("\U0010ffff") > "\U0010ffff" * 200


async def test_metadata_of_earlier_jobs_are_indexed_in_slices(migrated, db):
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    await database.commit(
        [job(f"j{n}", metadata={"n": n}) for n in range(5)] + [job("j1", tenant="bolt", metadata={"n": 1})]
    )
    await db.execute("DELETE FROM job_metadata; INSERT INTO job_metadata_missing VALUES ('', '')")

    rounds = [await database.index_metadata(4) for _ in range(4)]

    assert rounds == [True, True, False, False]
    assert await db.fetchval("SELECT count(*) FROM job_metadata") == 6
    assert await listed(Reader(pool), metadata={("n", "1")}) == {"j1"}
    await pool.close()
