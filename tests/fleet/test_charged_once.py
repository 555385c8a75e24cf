"""However late a provider accepts a request, and however incomplete its list is, a recording is charged once.

One suite for every recognizer that bills over a network. The fleet is in memory, and the providers' servers use its
clock, so that the minutes in which a lost request may still arrive take no time.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from agents.asr.assemblyai import AssemblyAI
from agents.asr.scripted import Scripted
from agents.commands.operations.requests import decide, recover
from agents.runtime.in_memory import Clock
from schemas.events.job import JobReprocess
from tests.contract.test_recognizers import batch
from tests.fleet.conftest import Scenario
from tests.servers import assemblyai, gcs, google_speech, scripted

#: A provider of the slow kind: accepts after 12 s, and lists after 5 more.
SLOW = {"late_s": 12.0, "listed_s": 5.0}

#: The list is refused; submissions are not.
UNREADABLE = {"forbidden": True, "on": ["find", "list"]}


def job(number: int) -> str:
    return f"4711ca11-0000-4000-8000-{number:012}"


@dataclass
class Vendor:
    """A recognizer and its server, which is on a story's clock."""

    recognizer: Any
    server: Any
    #: What a charge is known by.
    by: str
    kind: Callable[..., Any]

    def switch(self, **switches: Any) -> None:
        self.server.switches = self.kind(**switches)
        self.server.changed()


@contextlib.asynccontextmanager
async def over_http(folder, clock):
    server = scripted.Server(folder / "ledger.jsonl", clock=clock)
    async with TestServer(server.app()) as running:
        recognizer = Scripted("scripted-a", str(running.make_url("/")), timeout_s=0.3)
        yield Vendor(recognizer, server, "marker", scripted.Switches)
        await recognizer.close()


@contextlib.asynccontextmanager
async def assemblyai_sdk(folder, clock):
    server = assemblyai.Server(folder / "ledger.jsonl", clock=clock)
    async with TestServer(server.app()) as running:
        recognizer = AssemblyAI("assemblyai", "key", str(running.make_url("/")), timeout_s=0.3)
        yield Vendor(recognizer, server, "audio_url", assemblyai.Switches)
        server.changed()
        await recognizer.close()


@contextlib.asynccontextmanager
async def google_batch(folder, clock):
    storage = gcs.Server(folder)
    async with TestServer(storage.app()) as lent:
        lending = str(lent.make_url("")).rstrip("/")
        server = google_speech.Server(folder / "ledger.jsonl", storage=lending, clock=clock)
        async with google_speech.serving(server) as endpoint:
            recognizer = batch(endpoint, lending, timeout_s=1.0)
            yield Vendor(recognizer, server, "uri", _of_google)
            await recognizer.close()


def _of_google(*, error_5xx: int = 0, **switches: Any) -> google_speech.Switches:
    return google_speech.Switches(unavailable=error_5xx, **switches)


VENDORS = {"scripted": over_http, "assemblyai": assemblyai_sdk, "google": google_batch}


@dataclass
class VendorCase:
    """A story with one vendor in it."""

    vendor: Vendor
    scenario: Scenario

    @property
    def charges(self) -> Counter[str]:
        self.vendor.server.accept()
        return Counter(charge[self.vendor.by] for charge in self.vendor.server.ledger.charges)

    async def row(self):
        [row] = await self.scenario.fleet.database.requests("t", job(0), 1)
        return row

    async def uploaded(self, jobs=1):
        for number in range(jobs):
            await self.scenario.upload(job(number))

    async def ends_well(self, jobs=1):
        await self.scenario.fleet.run()
        self.scenario.fleet.clock.advance(3600)  # whatever arrives late has arrived
        assert sorted(self.scenario.terminal()) == [("persisted", job(number), 1) for number in range(jobs)]
        assert sorted(self.charges.values()) == [1] * jobs


@pytest.fixture(params=VENDORS)
async def case(request, make_scenario, tmp_path):
    """A fleet that has a quarter of an hour for a recording, and one vendor."""
    clock = Clock()
    async with VENDORS[request.param](tmp_path, lambda: clock().timestamp()) as vendor:
        it = VendorCase(vendor, make_scenario(vendor.recognizer, deadline_s=900, clock=clock))
        if listing := getattr(vendor.recognizer, "_list", None):
            listing.clock, listing.apart_s = lambda: clock().timestamp(), 0.0
        yield it


async def test_what_is_accepted_late_and_listed_later_is_charged_once(case):
    case.vendor.switch(late=3, late_answer=["slow", "cut", "504"], page=2, repeat=True, **SLOW)
    await case.uploaded(4)

    await case.ends_well(4)


async def test_what_is_accepted_at_the_last_moment_and_missing_in_most_lists_is_charged_once(case):
    """The first reading that must have it leaves it out, too."""
    settles_s = case.vendor.recognizer.settles_s
    case.vendor.switch(late=1, late_s=settles_s - 5, listed_s=4.9, late_answer="cut", gap=True)
    await case.uploaded()
    await case.scenario.fleet.run(until=timedelta(seconds=settles_s - 1))
    assert (await case.row()).state == "intended"
    case.vendor.switch(gap=1)

    await case.ends_well()


@pytest.mark.parametrize("case", ["assemblyai"], indirect=True)
@pytest.mark.parametrize("safeguard", ["the time within which it may still arrive", "the second reading"])
async def test_without_a_safeguard_the_same_stories_charge_twice(case, safeguard, monkeypatch):
    """Else these stories would prove nothing."""
    settles_s = case.vendor.recognizer.settles_s
    if safeguard == "the second reading":
        find = case.vendor.recognizer.find
        monkeypatch.setattr(case.vendor.recognizer, "find", lambda asked, **_: find(asked, proof=False))
        case.vendor.switch(late=1, late_answer="cut", gap=True, **SLOW)
    else:
        case.vendor.recognizer.settles_s = 0.0
        case.vendor.switch(late=1, late_s=settles_s, late_answer="cut")
    await case.uploaded()
    await case.scenario.fleet.run()
    case.scenario.fleet.clock.advance(3600)

    assert sorted(case.charges.values()) == [2]


async def test_what_was_never_accepted_is_asked_again_when_that_is_sure_and_what_was_refused_after_the_pause(case):
    began = case.scenario.fleet.clock().timestamp()
    case.vendor.switch(refuse_429=1, retry_after_s=3, on=["submit", "batch"])
    await case.uploaded()
    await case.scenario.fleet.run(until=timedelta(minutes=1))
    case.vendor.switch(error_5xx=1, on=["submit", "batch"])
    await case.scenario.upload(job(1))
    await case.ends_well(2)
    refused, lost = (charge["charged_at"] for charge in case.vendor.server.ledger.charges)

    assert 3 <= refused - began < 10
    assert lost - began >= case.vendor.recognizer.settles_s


async def test_a_list_that_cannot_be_read_parks_the_request_until_it_can(case):
    case.vendor.switch(late=1, late_answer="cut", **SLOW, **UNREADABLE)
    await case.uploaded()
    await case.scenario.fleet.run(until=timedelta(minutes=10))
    row, status = await case.row(), case.scenario.fleet.status("t", job(0))
    case.vendor.switch()

    assert row.state == "parked"
    assert "may have been accepted, and is not asked again" in row.error
    assert status.steps[f"transcribe.{row.provider}"].error == row.error
    assert sorted(case.charges.values()) == [1]
    await case.ends_well()
    assert (await case.row()).error is None


async def test_a_later_run_takes_over_what_an_earlier_one_did_not_wait_for(case):
    """Accepted after the end of the run, or never answered within it: it is not paid for again."""
    case.vendor.switch(delay_s=86_400, **({"poll_s": 60} if case.vendor.by == "marker" else {}))
    await case.uploaded()
    await case.scenario.fleet.run()
    assert case.scenario.terminal() == [("job.failed", job(0), 1)]
    again = JobReprocess(tenant_id="t", job_id=job(0), run=2)
    case.scenario.fleet.publish("intake.due", again, job(0).encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    case.vendor.server.ledger.charges[0]["ready_at"] = 0
    await case.scenario.fleet.run()

    assert case.scenario.terminal() == [("persisted", job(0), 2), ("job.failed", job(0), 1)]
    assert sorted(case.charges.values()) == [1]


async def test_a_parked_request_holds_its_run_until_the_deadline_and_is_looked_for_by_the_next_one(case):
    case.vendor.switch(late=1, late_answer="cut", **SLOW, **UNREADABLE)
    await case.uploaded()
    await case.scenario.fleet.run()
    [failed] = case.scenario.fleet.events("job.failed")
    case.vendor.switch()
    again = JobReprocess(tenant_id="t", job_id=job(0), run=2)
    case.scenario.fleet.publish("intake.due", again, job(0).encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await case.scenario.fleet.run(until=timedelta(minutes=1))

    assert "may have been accepted, and is not asked again" in failed["error"]
    assert case.scenario.terminal() == [("persisted", job(0), 2), ("job.failed", job(0), 1)]
    assert sorted(case.charges.values()) == [1]


async def restored_and_sent(case, make_scenario, number):
    """A fleet with the database of before job 0, after an upload of job `number`; and the request it has forgotten."""
    clock = case.scenario.fleet.clock
    backup = clock()
    await case.uploaded()
    await case.scenario.fleet.run()
    clock.advance(300)
    restored = make_scenario(case.vendor.recognizer, deadline_s=900, clock=clock)
    [stray] = await recover(restored.fleet.database, case.vendor.recognizer, backup)
    await restored.upload(job(number))
    await restored.fleet.run(until=timedelta(minutes=5))
    return restored, stray


async def test_after_a_restore_nothing_is_asked_for_that_the_provider_was_asked_for_already(case, make_scenario):
    """The database is that of before the upload, and Kafka has the upload still. An upload to AssemblyAI has a URL that
    nobody can derive again: such a request waits for a person.
    """
    restored, stray = await restored_and_sent(case, make_scenario, 0)
    if case.vendor.by == "audio_url":
        [row] = await restored.fleet.database.doubtful(10)
        assert "requests of before the restore that nobody knows" in row.error
        assert restored.terminal() == []
        await decide(restored.fleet.database, row, "found", stray.provider_id)
        await restored.fleet.run()

    assert restored.terminal() == [("persisted", job(0), 1)]
    assert sorted(case.charges.values()) == [1]
    assert await restored.fleet.database.strays(case.vendor.recognizer.name) == []


async def test_after_a_restore_what_the_provider_was_not_asked_for_is_submitted(case, make_scenario):
    restored, stray = await restored_and_sent(case, make_scenario, 1)
    if case.vendor.by == "audio_url":
        [row] = await restored.fleet.database.doubtful(10)
        await decide(restored.fleet.database, row, "retry")
        await restored.fleet.run()

    assert restored.terminal() == [("persisted", job(1), 1)]
    assert sorted(case.charges.values()) == [1, 1]
    assert await restored.fleet.database.strays(case.vendor.recognizer.name) == [stray]
