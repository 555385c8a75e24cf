"""Adjudication of recordings whose recognizers disagree: by a good adjudicator, and by one that fails."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from agents.asr import paid_calls
from agents.llm.adjudicator import RunId, SpanAdjudicator
from agents.llm.gemini import Gemini
from agents.llm.scripted import ScriptedAdjudicator
from agents.text.reconcile import reconcile as reconcile_text
from schemas.errors import ProviderError, RateLimited, Transient, Unavailable
from schemas.events.job import JobReprocess
from schemas.words import Hypothesis, Reconciliation, Word, adapter
from sinks.memory.database import MemoryDatabase
from tests.conftest import need
from tests.fleet.conftest import JOB, FakeRecognizer
from tests.servers.gemini import KEY, gemini_server

CORPORA = Path(__file__).parents[2].parent / "shared" / "corpora"

#: Four disputes in a hundred words, far apart; the second recognizer's are the longer ones.
SAID = [f"word{n}" for n in range(100)]
DISPUTES = {10: ("house", "mousetrap"), 35: ("four", "fourteen"), 60: ("can", "cannot"), 85: ("rod", "Rodney")}
ONE, OTHER = (" ".join({**dict(enumerate(SAID)), **{n: d[k] for n, d in DISPUTES.items()}}.values()) for k in (0, 1))
HEARD = {*ONE.split(), *OTHER.split()}


def pair() -> tuple[FakeRecognizer, FakeRecognizer]:
    return FakeRecognizer("a", ONE), FakeRecognizer("b", OTHER)


#: Another job.
OTHER_JOB = "4711ca11-0000-4000-8000-000000000001"


async def decided(scenario, job_id: str = JOB) -> Reconciliation:
    [event] = [e for e in scenario.fleet.events("reconciled") if e["job_id"] == job_id][-1:]
    return adapter(Reconciliation).validate_json(await scenario.store.get(event["raw_uri"]))


@pytest.fixture
async def server():
    need("google.genai")
    async with gemini_server() as running:
        yield running


@pytest.fixture
async def gemini(server):
    adjudicator = Gemini(KEY, "gemini-3.8-flash", server.url, timeout_s=1)
    await adjudicator.prepare()  # importing the SDK takes longer than a story has
    yield adjudicator
    await adjudicator.close()


async def test_an_adjudicator_chooses_among_the_readings_and_signs(make_scenario, server, gemini):
    scenario = make_scenario(*pair(), adjudicator=gemini)
    await scenario.upload()
    await scenario.fleet.run()
    call = await decided(scenario)
    signed = [d for d in call.decisions if d.rule == "gemini/gemini-3.8-flash/v1"]

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert {d.chosen.text for d in signed} == {"mousetrap", "fourteen", "cannot", "Rodney"}
    assert call.method == "gemini"
    assert "judged 4 of 4 disputed spans" in scenario.fleet.database.transcripts["t", JOB, 1].reconciliation_notes[0]
    assert len(server.asked) == 1


async def test_what_it_used_up_is_in_the_database(make_scenario, gemini):
    scenario = make_scenario(*pair(), adjudicator=gemini)
    await scenario.upload()
    await scenario.fleet.run()
    rows = [row for row in scenario.fleet.database.usage if row.provider == "gemini"]

    assert {row.unit for row in rows} == {
        *("requests", "prompt_tokens", "candidates_tokens", "thoughts_tokens", "total_tokens")
    }
    assert {(row.tenant_id, row.job_id, row.run, row.provider, row.ref) for row in rows} == {
        ("t", JOB, 1, "gemini", "response-1")
    }
    assert {row.quantity for row in rows if row.unit == "prompt_tokens"} == {540.0}


async def test_the_same_words_again_and_a_reprocessing_are_answered_from_memory(make_scenario, server, gemini):
    scenario = make_scenario(*pair(), adjudicator=gemini)
    await scenario.upload()
    await scenario.fleet.run()
    first = await decided(scenario)
    await scenario.upload(OTHER_JOB)
    await scenario.fleet.run()
    again = JobReprocess(tenant_id="t", job_id=JOB, run=1)
    scenario.fleet.publish("intake.due", again, JOB.encode(), headers=(("ce_type", b"job.reprocess"),))
    await scenario.fleet.run()

    assert len(server.asked) == 1
    assert ("persisted", OTHER_JOB, 1) in scenario.terminal()
    assert (await decided(scenario, OTHER_JOB)).decisions == first.decisions
    assert (await decided(scenario, JOB)).decisions == first.decisions


async def test_another_tenant_is_asked_for_anew(make_scenario, server, gemini):
    scenario = make_scenario(*pair(), adjudicator=gemini)
    await scenario.upload(JOB, "t")
    await scenario.upload("k", "u")
    await scenario.fleet.run()

    assert len(server.asked) == 2


MODES = (
    *("truncate", "block", "safety", "invent", "unknown", "twice", "some", "loop", "malformed", "prose", "nonsense"),
    *("empty", "stall", "rate", "fail", "key", "drop", "refuse", "echo_key"),
)


@pytest.mark.parametrize("mode", MODES)
async def test_however_it_misbehaves_the_job_completes_with_what_was_heard(make_scenario, server, gemini, mode):
    calibrated = make_scenario(*pair())
    await calibrated.upload()
    await calibrated.fleet.run()
    server.misbehave(mode)
    scenario = make_scenario(*pair(), adjudicator=gemini)
    record = await scenario.upload()
    await scenario.fleet.run()
    scenario.fleet.deliver_again(record)
    for result in list(scenario.fleet.log["asr.results"]):
        scenario.fleet.deliver_again(result)
    await scenario.fleet.run()
    call, expected = await decided(scenario), await decided(calibrated)

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert {word.text for word in call.words} <= HEARD
    assert len(server.asked) <= 1  # asked once, also in vain
    if mode != "some":
        assert call.decisions == expected.decisions
        assert call.method == "calibrated"
        assert "4 disputed spans, which stay as calibrated" in " ".join(call.notes)
    assert KEY not in str(scenario.fleet.log)
    assert KEY not in str(call)


async def test_half_an_answer_is_used_span_by_span(make_scenario, server, gemini):
    server.misbehave("some")
    scenario = make_scenario(*pair(), adjudicator=gemini)
    await scenario.upload()
    await scenario.fleet.run()
    call = await decided(scenario)

    assert sum(d.rule.startswith("gemini/") for d in call.decisions) == 2
    assert "did not judge 2 disputed spans" in " ".join(call.notes)


async def test_neither_leaves_the_calibrated_choice_and_is_not_asked_again(make_scenario):
    adjudicator = ScriptedAdjudicator(pick=lambda question: None)
    scenario = make_scenario(*pair(), adjudicator=adjudicator)
    await scenario.upload()
    await scenario.upload("k")
    await scenario.fleet.run()
    call = await decided(scenario)

    assert call.method == "calibrated"
    assert all(d.rule in ("unanimous", "calibrated") for d in call.decisions)
    assert len(adjudicator.asked) == 1


async def test_only_the_most_doubtful_are_asked_within_the_budget(make_scenario):
    adjudicator = ScriptedAdjudicator()
    scenario = make_scenario(*pair(), adjudicator=adjudicator, max_spans=3)
    await scenario.upload()
    await scenario.fleet.run()
    call = await decided(scenario)

    assert sum(map(len, adjudicator.asked)) == 3
    assert "the budget is 3" in " ".join(call.notes)
    assert scenario.terminal() == [("persisted", JOB, 1)]


async def test_recognizers_that_agree_or_are_alone_need_no_adjudicator(make_scenario):
    adjudicator = ScriptedAdjudicator()
    for recognizers in (
        (FakeRecognizer("a"), FakeRecognizer("b")),
        (FakeRecognizer("a"),),
        (FakeRecognizer("a"), FakeRecognizer("b", "fails")),
    ):
        scenario = make_scenario(*recognizers, adjudicator=adjudicator)
        await scenario.upload()
        await scenario.fleet.run()

        assert scenario.terminal() == [("persisted", JOB, 1)]
    assert adjudicator.asked == []


async def test_after_a_refusal_no_other_call_is_begun_after_a_failure_they_are(make_scenario):
    for trouble, calls in ((RateLimited("slow down"), 1), (ProviderError("wrong key"), 1), (Transient("away"), 12)):
        adjudicator = ScriptedAdjudicator(many=1, trouble=[trouble] * 4)
        one = " ".join(f"w{n} x y z {'house' if n < 12 else ''}" for n in range(12))
        scenario = make_scenario(
            FakeRecognizer("a", one), FakeRecognizer("b", one.replace("house", "mousetrap")), adjudicator=adjudicator
        )
        await scenario.upload()
        await scenario.fleet.run()

        assert scenario.terminal() == [("persisted", JOB, 1)]
        assert len(adjudicator.asked) == calls
        assert (await decided(scenario)).method == ("gemini" if calls == 12 else "calibrated")


@dataclasses.dataclass
class Slow(ScriptedAdjudicator):
    """Answers its first call, then never."""

    async def adjudicate(self, questions, language):
        if self.asked:
            self.asked.append(list(questions))
            await asyncio.sleep(3600)
        return await super().adjudicate(questions, language)


async def test_after_its_time_what_is_unanswered_stays_as_calibrated(make_scenario):
    adjudicator = Slow(many=2)
    scenario = make_scenario(*pair(), adjudicator=adjudicator)
    await scenario.upload()
    await scenario.fleet.run()
    call = await decided(scenario)

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert sum(d.rule == adjudicator.name for d in call.decisions) == 2
    assert "no answer within 3 s" in " ".join(call.notes)
    assert len(scenario.fleet.log["reconcile.due"]) >= 1  # the event was not held meanwhile


def real_call() -> tuple[Hypothesis, ...]:
    """Three recognizers of a consultation from the corpora; without those, words made up."""
    path = next(iter(sorted((CORPORA / "primock57").glob("*.json.gz"))), None)
    if path is None:
        chance = random.Random(1)
        texts = ([w if chance.random() > 0.1 else f"{w}s" for w in SAID * 3] for _ in range(3))
        return tuple(Hypothesis(f"r{n}", tuple(map(Word, text)), "en") for n, text in enumerate(texts))
    heard = json.loads(gzip.decompress(path.read_bytes()))["hypotheses"]
    return tuple(Hypothesis(n, tuple(Word(*w[:3]) for w in words), "en") for n, words in [*heard.items()][:3])


async def test_on_a_real_call_no_misbehaviour_puts_in_a_word_of_no_recognizer(server):
    hypotheses = real_call()
    heard = {word.text for h in hypotheses for word in h.words}
    calibrated = reconcile_text(hypotheses)
    agreed = [n for n, d in enumerate(calibrated.decisions) if d.rule == "unanimous"]
    adjudicator = Gemini(KEY, "gemini-3.8-flash", server.url, timeout_s=0.5)
    await adjudicator.check()
    for mode in (*MODES, ""):
        server.misbehave(mode)
        server.asked.clear()
        result = await SpanAdjudicator(adjudicator, MemoryDatabase(), 200, limit_s=3).adjudicated(
            calibrated, RunId("t", JOB, 1)
        )

        assert {word.text for word in result.words} <= heard, mode
        assert [result.decisions[n] for n in agreed] == [calibrated.decisions[n] for n in agreed], mode
        assert max(Counter(server.spans).values(), default=1) == 1, mode
        assert result.method == ("gemini" if mode in ("some", "") else "calibrated"), mode
    await adjudicator.close()

    assert any(d.rule.startswith("gemini/") for d in result.decisions)


@dataclasses.dataclass
class Away(MemoryDatabase):
    """Is away for writing a judge's answers while `away` is set."""

    away: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    refused: int = 0

    async def keep_adjudications(self, rows):
        if self.away.is_set():
            self.refused += 1
            raise Unavailable("away")
        await super().keep_adjudications(rows)


@pytest.fixture
def impatient(monkeypatch):
    """Waits for PostgreSQL in hundredths of a second."""
    monkeypatch.setattr(paid_calls, "backoff_s", lambda _: 0.01)
    monkeypatch.setattr(paid_calls, "GRACE_S", 0.6)


def disputed() -> Reconciliation:
    said = {"a": ONE, "b": OTHER}
    return reconcile_text([Hypothesis(name, tuple(map(Word, text.split()))) for name, text in said.items()])


def asking_while_away(**limits):
    """A judge, a database that is away, and what asks the one and writes to the other."""
    adjudicator, database = ScriptedAdjudicator(), Away()
    database.away.set()
    return adjudicator, database, SpanAdjudicator(adjudicator, database, 200, **limits)


async def asked_and_cancelled(asking):
    """The work that asks is cancelled while the answer cannot be stored."""
    task = asyncio.create_task(asking.adjudicated(disputed(), RunId("t", "j", 1)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_that_cannot_be_stored_is_kept_and_never_asked_again(impatient):
    adjudicator, database, asking = asking_while_away()
    task = asyncio.create_task(asking.adjudicated(disputed(), RunId("t", "j", 1)))
    await asyncio.sleep(0.2)
    assert not task.done()
    database.away.clear()
    result = await asyncio.wait_for(task, 5)
    again = await asking.adjudicated(disputed(), RunId("t", "k", 1))

    assert result.method == again.method == "gemini"
    assert len(adjudicator.asked) == 1
    assert database.refused > 2


async def test_an_answer_outlives_the_work_that_asked_for_it(impatient):
    """The lease is lost while PostgreSQL is away: the work is cancelled, and begins again when it is back."""
    adjudicator, database, asking = asking_while_away()
    await asked_and_cancelled(asking)
    begun_again = asyncio.create_task(asking.adjudicated(disputed(), RunId("t", "j", 1)))
    await asyncio.sleep(0.1)
    database.away.clear()
    result = await asyncio.wait_for(begun_again, 5)

    assert result.method == "gemini"
    assert len(adjudicator.asked) == 1


async def test_out_of_time_an_answer_that_is_there_counts_although_it_is_not_stored_yet(impatient):
    adjudicator, database, asking = asking_while_away(limit_s=0.1)
    result = await asyncio.wait_for(asking.adjudicated(disputed(), RunId("t", "j", 1)), 5)
    assert result.method == "gemini"
    database.away.clear()
    await asking.paid.settled(RunId("t", "j", 1))

    assert len(await database.adjudications("t", "k", 1, [q.id for [*qs] in adjudicator.asked for q in qs])) == 4


async def test_an_answer_that_comes_late_is_stored_for_the_next_who_asks(impatient):
    class Late(ScriptedAdjudicator):
        async def adjudicate(self, questions, language):
            await asyncio.sleep(0.3)
            return await super().adjudicate(questions, language)

    adjudicator, database = Late(), MemoryDatabase()
    asking = SpanAdjudicator(adjudicator, database, 200, limit_s=0.05)
    first = await asking.adjudicated(disputed(), RunId("t", "j", 1))
    await asking.paid.close()
    second = await asking.adjudicated(disputed(), RunId("t", "k", 1))

    assert (first.method, second.method) == ("calibrated", "gemini")
    assert len(adjudicator.asked) == 1


async def test_stopping_waits_for_answers_within_a_grace_period(impatient):
    _, _, asking = asking_while_away()
    await asked_and_cancelled(asking)
    began = asyncio.get_running_loop().time()
    await asking.paid.close()

    assert 0.5 < asyncio.get_running_loop().time() - began < 2


async def test_when_too_many_answers_wait_to_be_stored_no_request_is_made(impatient):
    adjudicator, database, asking = asking_while_away(paid=paid_calls.PaidCalls(limit=1))
    first = asyncio.create_task(asking.adjudicated(disputed(), RunId("t", "j", 1)))
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable, match="not stored"):
        await asking.adjudicated(disputed(), RunId("t", "k", 1))
    database.away.clear()
    await asyncio.wait_for(first, 5)

    assert len(adjudicator.asked) == 1
