"""A recognizer that bills piece by piece among the others: what it may cost when things go wrong, and what it never
costs twice.
"""

from __future__ import annotations

import pytest

from agents.answers import Kept
from agents.providers.google import Google
from agents.providers.google_speech import Speech
from schemas.errors import Unavailable
from schemas.events import JobReprocess
from sinks.memory_store import MemoryStore
from tests.fleet.conftest import Speaker, recording
from tests.servers.google_speech import Server, Switches, bursts, serving


@pytest.fixture
async def server(tmp_path):
    """Google on this machine, and a recognizer that asks it."""
    server = Server(tmp_path / "ledger.jsonl")
    async with serving(server) as endpoint:
        google = Google(Speech("google", project="p", endpoint=endpoint), retries=0, parallel=1)
        yield server, google
        await google.close()
    server.ledger.close()


async def test_its_transcript_is_reconciled_with_the_others(server, story):
    told = story(server[1], Speaker("a"))
    await told.upload(content=recording(3))
    await told.fleet.run()

    assert told.terminal() == [("persisted", "j", 1)]
    assert set(server[0].charges().values()) == {1}


async def test_a_second_run_is_not_billed_for_what_the_first_was_told(server, story):
    served, google = server
    told = story(google)

    def once(samples, rate):
        served.switches = Switches(forbidden=True)
        return bursts(samples, rate)

    served.hear = once
    await told.upload(content=recording(130))
    await told.fleet.run()
    assert told.terminal() == [("job.failed", "j", 1)]
    told_already = served.charges().total()

    served.hear, served.switches = bursts, Switches()
    again = JobReprocess(tenant_id="t", job_id="j", run=2)
    told.fleet.publish("intake.due", again, b"j", (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await told.fleet.run()

    assert ("persisted", "j", 2) in told.terminal()
    assert 0 < told_already < served.charges().total()
    assert set(served.charges().values()) == {1}


async def test_answers_that_are_lost_for_ever_are_not_paid_for_for_ever(server, story):
    server[0].switches = Switches(lose_answer=True, delay_s=2.5)  # longer than one look
    told = story(server[1], Speaker("a"))
    await told.upload(content=recording(3))
    await told.fleet.run()

    assert told.terminal() == [("persisted", "j", 1)]
    assert list(server[0].charges().values()) == [4]  # the first time, and three retries


class Away(MemoryStore):
    """A store that is away for the next calls."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    async def put(self, name, content, content_type):
        if self.calls:
            self.calls -= 1
            raise Unavailable("the store is away")
        return await super().put(name, content, content_type)


async def test_an_answer_that_is_paid_for_waits_for_the_store():
    answers = Kept(Away(1), "t", "j", "google")
    assert await answers.get("k") is None

    await answers.put("k", b"{}")

    assert await answers.get("k") == b"{}"
