"""PostgreSQL without pgvector: transcripts are found by their words, and that is all that is said to be possible."""

from __future__ import annotations

import asyncio

import pytest

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
