"""What every database must do with reports over many calls: tell what is known of these, and have one mailed a tick."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from agents.reports import delivery, overview_mail
from agents.reports.delivery import Delivery
from agents.reports.overview_mail import OverviewMails
from agents.reports.templates import rendered
from agents.upkeep import scheduler
from agents.upkeep.scheduler import Scheduler
from schemas.accounts.schedules import OVERVIEW
from schemas.errors import Transient
from schemas.mail.rows import Attempt
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.memory.reading.overviews import MemoryOverviews
from sinks.postgres.reader import Reader
from sinks.postgres.reading.overviews import PostgresOverviews
from tests.contract.databases.api.test_schedules import ID, schedule
from tests.contract.databases.cases import created, job
from tests.contract.databases.searching import summarized

ANN = "ann@reader.example"


class Killed(Exception):
    """Of the worker, at this moment."""


class Server:
    """Takes mails, after raising what `trouble` has for the next calls: before the content, or behind it."""

    def __init__(self):
        self.taken = []
        self.before, self.behind = [], []

    async def send(self, sender, recipients, content, about_to):
        if self.before:
            raise self.before.pop(0)
        await about_to()
        self.taken.append((tuple(recipients), content.decode()))
        if self.behind:
            raise self.behind.pop(0)
        return Attempt(accepted=tuple(recipients), answer="250 taken")


class Here:
    """Renders in this process."""

    reports = ()

    async def pdf(self, report):
        self.reports = (*self.reports, report)
        return b"%PDF"

    async def mail(self, templates, values):
        return rendered(templates, values)


@pytest.fixture
def it(under_test, monkeypatch):
    database = under_test.database
    if isinstance(database, MemoryDatabase):
        reads, facts = MemoryReader(database), MemoryOverviews(database)
    else:
        reads = Reader(under_test.pool)
        facts = PostgresOverviews(reads)
    monkeypatch.setattr(scheduler, "LEASE_S", 40.0)
    monkeypatch.setattr(delivery, "SETTLES_S", 0.05)
    monkeypatch.setattr(overview_mail, "wait_s", lambda _: 0.05)
    under_test.server, under_test.renderer, under_test.facts = Server(), Here(), facts
    delivering = Delivery(database, under_test.server, "concord@sender.example")
    mails = OverviewMails(
        database, reads, facts, MemoryStore(), under_test.renderer, delivering, "https://calls.example/"
    )
    under_test.scheduler = Scheduler(database, reads, (), mails)
    return under_test


async def filled(it, many=3):
    database = it.database
    await database.commit([created(job(f"j{n}", status="completed", duration_ms=60_000)) for n in range(many)])
    await database.commit([created(job("other", "u", status="completed"))])
    await summarized(database, "j0", "positive", "Acme")
    await summarized(database, "j1", "mixed", "ACME")


async def due(it, **more):
    fields = {"enrichment": OVERVIEW, "jobs": {}, "mail_to": [ANN], "name": "Our week"}
    return await it.database.add_schedule(schedule(await it.database.now(), **fields | more))


async def carried_out(it):
    """Turns, with a lease that lapses at once, until the tick has ended."""
    while (await it.database.schedule("t", ID)).last_tick_at is None:
        with contextlib.suppress(Killed):
            await it.scheduler.turn()
        await asyncio.sleep(0.06)
        if isinstance(it.database, MemoryDatabase):
            one, _ = it.database._schedules[ID]
            it.database._schedules[ID] = one, it.database.clock()
        else:
            await it.pool.execute("UPDATE schedules SET turn_at = now() WHERE last_tick_at IS NULL")
    return await it.database.schedule("t", ID)


async def test_facts_and_items_of_calls_are_told(it):
    await filled(it)
    facts = {one.job_id: one for one in await it.facts.call_facts("t", ["j0", "j2", "nobody", "other"])}
    items = await it.facts.items_of_calls("t", ["j0", "j1", "other"], "entity", 5)

    assert {id: (one.duration_ms, one.sentiment) for id, one in facts.items()} == {
        "j0": (60_000, "positive"),
        "j2": (60_000, None),
    }
    assert sorted(one.text for one in items) == ["ACME", "Acme"]
    assert len(await it.facts.items_of_calls("t", ["j0", "j1"], "entity", 1)) == 1
    assert await it.facts.items_of_calls("t", ["j0"], "action_item", 5) == []


async def test_one_mail_says_how_many_calls_there_were_and_how_they_went(it):
    await filled(it)
    await due(it, cron="0 3 * * 1")
    ended = await carried_out(it)

    [(recipients, content)] = it.server.taken
    assert (recipients, ended.last_asked, ended.last_error) == ((ANN,), 3, None)
    assert ended.due_at > await it.database.now()
    assert "Subject: Our week" in content
    assert "https://calls.example/#/t/j0" in content
    [report] = it.renderer.reports
    facts = {fact.name: fact.value for fact in report.facts}
    assert (facts["Calls"], facts["Length"], facts["Sentiment"]) == ("3", "3:00", "mixed 1, positive 1")
    [named, calls] = report.sections
    assert (len(calls.items), [(item.time, item.text) for item in named.items]) == (3, [("2", "ACME")])


async def test_a_filter_that_finds_nothing_is_told_too(it):
    await filled(it)
    await due(it, jobs={"filename": "nothing"})
    await carried_out(it)

    [report] = it.renderer.reports
    assert (report.about, report.sections, len(it.server.taken)) == (("No calls were found.",), (), 1)


async def test_a_worker_killed_before_the_content_leaves_it_to_the_next(it):
    await filled(it)
    await due(it)
    it.server.before = [Killed(), Transient("450 later"), Killed()]
    ended = await carried_out(it)

    assert (len(it.server.taken), ended.last_error) == (1, None)


async def test_a_worker_killed_behind_the_content_sends_nothing_again(it):
    await filled(it)
    await due(it)
    it.server.behind = [Killed()]
    ended = await carried_out(it)

    assert len(it.server.taken) == 1
    assert ended.last_error.startswith("in doubt")


async def test_two_workers_in_one_tick_send_one_mail(it):
    await filled(it)
    one = await due(it)
    results = await asyncio.gather(*[it.scheduler.overviews.send(one) for _ in range(3)], return_exceptions=True)

    assert len(it.server.taken) == 1
    assert any(result == (3, None) for result in results)


async def test_mails_of_a_deleted_schedule_are_forgotten(it):
    await filled(it)
    await due(it)
    await carried_out(it)
    assert len(await it.database.mails(("sent",), 9)) == 1
    assert await it.database.acting_as("t").delete_schedule("t", ID)

    assert await it.database.mails(("sent",), 9) == []
