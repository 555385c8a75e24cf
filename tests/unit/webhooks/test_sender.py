"""Sending webhooks: from events to a receiver that refuses, hangs, redirects or is away, in simulated time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from agents.media.source.audio_url import AllowedHosts
from agents.webhooks.poster import Answer, Poster
from agents.webhooks.sender import LEASE_S, Sender
from agents.webhooks.stored_secrets import encrypt_stored
from schemas import topics
from schemas.accounts.sealing import Seals, new_key
from schemas.errors import Unavailable
from schemas.events.job import JobFailed
from schemas.jobs.outcome import Later
from schemas.webhooks.rows import Attempt, Endpoint
from schemas.webhooks.signature import new_secret
from sinks.memory.database import MemoryDatabase
from tests.contract.databases.cases import created, job, persisted_event
from tests.servers.receiver import receiver


async def drain(sender: Sender) -> None:
    """Send all that is due now."""
    while await sender._start_due() or sender._sending:
        await asyncio.wait(sender._sending, return_when=asyncio.FIRST_COMPLETED)


class World:
    """A database whose clock the test sets, a sender, and a receiver."""

    def __init__(self, received, timeout_s=5.0, **more) -> None:
        self.ahead = timedelta()
        self.database = MemoryDatabase(clock=lambda: datetime.now(UTC) + self.ahead)
        self.receiver = received
        self.poster = Poster(AllowedHosts.of(["127.0.0.1"]), timeout_s)
        self.sender = Sender(self.database, self.poster, **more)

    async def endpoint(self, path="/", tenant="t", **more) -> None:
        secret = self.receiver.secrets[path] = new_secret()
        endpoint = Endpoint(
            tenant_id=tenant, webhook_id=f"wh{path}", url=f"{self.receiver.url}{path}", events=["*"], **more
        )
        await self.database.create_webhook(endpoint, secret)

    async def job_fails(self, *ids, tenant="t") -> None:
        for id in ids:
            event = JobFailed(tenant_id=tenant, job_id=id, stage="x", code="stuck", error="no", attempts=1)
            await self.database.commit([created(job(id, tenant), later=(Later(topics.FAILED.name, event),))])

    async def two_events(self, id="j") -> None:
        """A job with two events, one after the other."""
        event = JobFailed(tenant_id="t", job_id=id, stage="x", code="stuck", error="no", attempts=1)
        second = persisted_event().model_copy(update={"job_id": id})
        later = (Later(topics.FAILED.name, event), Later(topics.PERSISTED.name, second))
        await self.database.commit([created(job(id), later=later)])

    async def passes(self, seconds: float, *, step_s: float = 5.0) -> None:
        """Let time pass, in which the sender sends what becomes due."""
        until = self.ahead + timedelta(seconds=seconds)
        while self.ahead < until:
            await drain(self.sender)
            due = [d.due_at for d in self.database._deliveries.values() if d.state == "pending"]
            wait = min((d - self.database.clock() for d in due), default=timedelta(seconds=seconds))
            self.ahead = min(until, self.ahead + max(wait, timedelta(seconds=step_s)))
        await drain(self.sender)

    @property
    def states(self) -> set[str]:
        return {delivery.state for delivery in self.database._deliveries.values()}


@pytest.fixture
async def world():
    async with receiver() as received:
        it = World(received)
        yield it
        await it.poster.close()


def order(received, id="j"):
    return [one.event["type"] for one in received if one.event["subject"] == id]


async def test_an_event_arrives_once_signed_and_as_a_cloud_event(world):
    await world.endpoint()
    await world.job_fails("j")
    await drain(world.sender)
    await drain(world.sender)
    (one,) = world.receiver.accepted

    assert (one.event["specversion"], one.event["type"], one.id) == ("1.0", "job.failed", one.event["id"])
    assert one.event["data"]["job_id"] == "j"
    assert abs(one.timestamp - time.time()) < 60
    assert world.receiver.forged == 0
    assert world.states == {"delivered"}


async def test_one_that_is_dead_for_an_hour_gets_everything_in_order_under_the_same_ids(world):
    await world.endpoint()
    world.receiver.answer = 503
    for n in range(3):
        await world.two_events(f"j{n}")
    await world.passes(3600)
    assert world.receiver.accepted == []
    world.receiver.answer = 204
    await world.passes(24 * 3600)

    assert world.states == {"delivered"}
    for n in range(3):
        assert order(world.receiver.accepted, f"j{n}") == ["job.failed", "job.completed"]
    ids = {one.id for one in world.receiver.received}
    assert len(ids) == 6
    assert sorted(ids) == sorted(one.id for one in world.receiver.accepted)
    assert (await world.database.webhook("t", "wh/")).failing_since is None


async def test_one_that_answers_every_other_time_gets_everything_in_order(world):
    await world.endpoint()
    seen = 0

    async def unsteady(_):
        nonlocal seen
        seen += 1
        return 500 if seen % 2 else 200

    world.receiver.answer = unsteady
    for n in range(5):
        await world.two_events(f"j{n}")
    await world.passes(24 * 3600)

    assert world.states == {"delivered"}
    assert all(order(world.receiver.accepted, f"j{n}") == ["job.failed", "job.completed"] for n in range(5))


async def test_one_that_never_answers_is_paused_after_a_day_and_told_when_it_is_back(world):
    await world.endpoint()
    await world.endpoint("/other")
    world.receiver.answer = lambda one: asyncio.sleep(0, 204 if one.path == "/other" else 500)
    await world.job_fails("j")
    await world.passes(28 * 3600)
    paused = await world.database.webhook("t", "wh/")
    assert "it answered 500" in paused.paused_reason
    assert [one.event["type"] for one in world.receiver.accepted] == ["job.failed", "webhook.paused"]
    await world.job_fails("k")
    before = len(world.receiver.received)
    await world.passes(3600)
    assert [one.path for one in world.receiver.received[before:]] == ["/other"]
    world.receiver.answer = 204
    await world.database.update_webhook(paused, resume=True, by="k1")
    await world.database.replay("t", "wh/", "k1")
    await world.passes(120)

    assert {one.event["subject"] for one in world.receiver.accepted if one.path == "/"} == {"j", "k"}


async def test_a_redirect_to_loopback_is_a_failure_and_goes_nowhere(world):
    await world.endpoint()
    moved = web.HTTPTemporaryRedirect(f"{world.receiver.url}/elsewhere")
    world.receiver.answer = lambda _: asyncio.sleep(0, web.Response(status=307, headers=moved.headers))
    await world.job_fails("j")
    await drain(world.sender)
    (delivery,) = await world.database.deliveries("t", "wh/", None, None, 9)
    (attempt,) = await world.database.attempts("t", delivery.id)

    assert "redirects are not followed" in attempt.error
    assert {one.path for one in world.receiver.received} == {"/"}
    assert world.receiver.forged == 0


async def test_one_that_hangs_delays_neither_other_endpoints_nor_other_tenants():
    async with receiver() as received:
        world = World(received, timeout_s=1.0, slots=16)
        for n in range(3):
            await world.endpoint(f"/hangs{n}")
        await world.endpoint("/fine", "bolt")
        await world.endpoint("/also-fine")
        received.answer = lambda one: asyncio.sleep(60 if "hangs" in one.path else 0, 204)
        await world.job_fails(*(f"j{n}" for n in range(20)))
        await world.job_fails("b", tenant="bolt")
        running = asyncio.create_task(world.sender.run())
        began = time.monotonic()
        while not any(one.path == "/fine" for one in received.accepted):
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.02)
        waited = time.monotonic() - began
        while sum(one.path == "/also-fine" for one in received.accepted) < 20:
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await world.poster.close()

    assert waited < 3


async def test_of_one_job_one_delivery_is_under_way_at_a_time(world):
    await world.endpoint()
    world.receiver.answer = lambda _: asyncio.sleep(0.05, 204)
    await world.two_events("j")
    await drain(world.sender)

    assert world.receiver.most == 1
    assert order(world.receiver.accepted) == ["job.failed", "job.completed"]


async def test_a_sender_that_was_killed_after_the_request_sends_it_again_under_the_same_id(world):
    await world.endpoint()
    await world.job_fails("j")
    await world.database.claim_deliveries({}, {}, 9, LEASE_S)  # and dies
    await drain(world.sender)
    assert world.receiver.received == []
    await world.passes(LEASE_S + 1)

    assert len(world.receiver.accepted) == 1


class Away:
    """A database that does not answer some calls."""

    def __init__(self, database, failures) -> None:
        self._database, self.failures = database, failures

    async def claim_deliveries(self, *arguments):
        return await self._call("claim_deliveries", *arguments)

    async def record_attempt(self, *arguments):
        return await self._call("record_attempt", *arguments)

    async def _call(self, name, *arguments):
        if self.failures.get(name):
            self.failures[name] -= 1
            raise Unavailable("the database is away")
        return await getattr(self._database, name)(*arguments)


async def test_a_database_that_is_away_for_a_moment_costs_no_second_request(world):
    await world.endpoint()
    await world.job_fails("j")
    away = Away(world.database, {"claim_deliveries": 1, "record_attempt": 1})
    sender = Sender(away, world.poster)
    running = asyncio.create_task(sender.run())
    while world.states != {"delivered"}:
        await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert len(world.receiver.received) == 1


async def test_an_orderly_stop_waits_for_requests_that_are_under_way(world):
    await world.endpoint()
    world.receiver.answer = lambda _: asyncio.sleep(0.5, 204)
    await world.job_fails("j")
    running = asyncio.create_task(world.sender.run())
    while not world.receiver.received:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert world.states == {"delivered"}


async def test_a_bug_in_one_delivery_does_not_stop_the_others(world, caplog):
    await world.endpoint()
    await world.job_fails("j", "k")

    class Breaks:
        seen = 0

        async def post(self, url, headers, body):
            self.seen += 1
            if self.seen == 1:
                raise RuntimeError("a bug")
            return Answer(Attempt(status=200, duration_ms=1))

    await drain(Sender(world.database, Breaks()))

    assert sorted(d.state for d in world.database._deliveries.values()) == ["delivered", "pending"]
    assert "failed here" in caplog.text
    assert "whsec" not in caplog.text


async def test_what_is_signed_with_an_encrypted_secret_is_verified_by_the_receiver(world):
    await world.endpoint()
    world.sender.seals = Seals.parse(new_key())
    await encrypt_stored(world.database, world.sender.seals)
    await world.job_fails("j")
    await drain(world.sender)

    assert (len(world.receiver.accepted), world.receiver.forged) == (1, 0)


async def test_a_lost_key_pauses_the_endpoint_and_loses_no_event(world, caplog):
    kept, lost = (Seals.parse(new_key()) for _ in range(2))
    await world.endpoint("/lost")
    await encrypt_stored(world.database, lost)
    await world.endpoint("/kept")
    world.sender.seals = kept
    await world.job_fails("j", "k")
    await world.passes(3600)
    paused = await world.database.webhook("t", "wh/lost")

    assert sorted(one.path for one in world.receiver.accepted if one.event["type"] == "job.failed") == ["/kept"] * 2
    assert [one.event["data"]["webhook_id"] for one in world.receiver.accepted if "paused" in one.event["type"]] == [
        "wh/lost"
    ]
    assert paused.paused_reason.startswith("nothing can be signed: its secret is encrypted with the key")
    assert "the webhook wh/lost of t is paused, and its events wait" in caplog.text
    waiting = await world.database.deliveries("t", "wh/lost", "pending", None, 9)
    assert [(one.job_id, one.failures) for one in waiting] == [("k", 0), ("j", 0)]

    world.sender.seals = Seals((*kept.keys, *lost.keys))  # the key is found
    await encrypt_stored(world.database, world.sender.seals)
    await drain(world.sender)
    assert {one.event["subject"] for one in world.receiver.accepted if one.path == "/lost"} == {"j", "k"}
    assert world.receiver.forged == 0


async def test_where_the_key_stays_lost_another_secret_goes_on(world):
    await world.endpoint("/lost")
    await encrypt_stored(world.database, Seals.parse(new_key()))
    world.sender.seals = Seals.parse(new_key())
    await world.job_fails("j")
    await drain(world.sender)
    secret = world.receiver.secrets["/lost"] = new_secret()
    await world.database.rotate_secret("t", "wh/lost", world.sender.seals.seal(secret, "t", "wh/lost"), "k1")
    await world.database.update_webhook(await world.database.webhook("t", "wh/lost"), resume=True, by="k1")
    await world.passes(60)

    assert ([one.event["subject"] for one in world.receiver.accepted], world.receiver.forged) == (["j"], 0)
