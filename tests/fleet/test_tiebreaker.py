"""Recordings whose recognizers disagree, when a third recognizer gets the disputed intervals: a good one, and one that
fails.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from agents.asr.google.recognize import Google
from agents.asr.google.speech import Speech
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.llm.scripted import ScriptedAdjudicator
from agents.media.decoding.decoder import decode
from agents.runtime.in_memory import MemoryFleet
from agents.text.reconcile import compare
from schemas.errors import ProviderError, RateLimited, Transient
from schemas.events.job import JobReprocess
from schemas.jobs.rows import Job
from schemas.words import Hypothesis, Reconciliation, Word, adapter
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from tests.fleet.conftest import JOB, FakeRecognizer
from tests.servers.google_speech import Server, serving

#: Four disputes in a hundred words, far apart, one word every 400 ms; the third recognizer sides with the second.
SAID = [f"word{n}" for n in range(100)]
DISPUTES = {10: ("house", "mousetrap"), 35: ("four", "fourteen"), 60: ("can", "cannot"), 85: ("rod", "Rodney")}
ONE, OTHER = (" ".join({**dict(enumerate(SAID)), **{n: d[k] for n, d in DISPUTES.items()}}.values()) for k in (0, 1))
STEP_MS = 400


def ramp(seconds: float = 41) -> bytes:
    """A recording whose level is its time, 4 ms a step: who hears a part of it can tell which part."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((np.arange(int(16_000 * seconds)) // 64).astype("<i2").tobytes())
    return content.getvalue()


@dataclass
class Third:
    """A `LocalRecognizer` for ramps: says the words of `text` that are in the part it hears, after raising what
    `trouble` holds for the next calls.
    """

    text: str = OTHER
    trouble: list[Exception | None] = field(default_factory=list)
    #: Seconds that a call takes, from the second on.
    slow_s: float = 0.0
    name: str = "third"
    at_once: int = 1
    #: Start and end of every part it was given, ms.
    heard: list[tuple[int, int]] = field(default_factory=list)

    async def transcribe(self, audio, request, progress):
        levels = np.rint(np.concatenate(list(decode(audio))) * 32768) * 4
        start, end = int(levels[0]), int(levels.max()) + 4
        self.heard.append((start, end))
        await asyncio.sleep(self.slow_s if len(self.heard) > 1 else 0)
        if trouble := self.trouble.pop(0) if self.trouble else None:
            raise trouble
        words = [
            Word(text, n * STEP_MS - start, n * STEP_MS + 350 - start, 0.9)
            for n, text in enumerate(self.text.split())
            if start <= n * STEP_MS and n * STEP_MS + 350 <= end
        ]
        return Hypothesis(self.name, tuple(words), "en", end - start)

    async def close(self): ...


def pair() -> tuple[FakeRecognizer, FakeRecognizer]:
    return FakeRecognizer("a", ONE), FakeRecognizer("b", OTHER)


def pair_heard() -> list[Hypothesis]:
    return [
        Hypothesis(
            recognizer.name,
            tuple(Word(w, n * STEP_MS, n * STEP_MS + 350) for n, w in enumerate(recognizer.text.split())),
        )
        for recognizer in pair()
    ]


async def decided(scenario, job_id: str = JOB) -> Reconciliation:
    [event] = [e for e in scenario.fleet.events("reconciled") if e["job_id"] == job_id][-1:]
    return adapter(Reconciliation).validate_json(await scenario.store.get(event["raw_uri"]))


async def run(scenario, **more) -> Reconciliation:
    await scenario.upload(content=ramp(), **more)
    await scenario.fleet.run()
    assert scenario.terminal() == [("persisted", JOB, 1)]
    return await decided(scenario)


async def without(make_scenario) -> Reconciliation:
    return await run(make_scenario(*pair()))


def usage(fleet: MemoryFleet) -> Counter[str]:
    used: Counter[str] = Counter()
    for row in fleet.database.usage:
        if row.provider in ("third", "google"):
            used[row.unit] += row.quantity
    return used


async def test_the_tiebreaker_gets_the_disputed_intervals_only_and_its_readings_count(make_scenario):
    third = Third()
    scenario = make_scenario(*pair(), third=third)
    call = await run(scenario)
    named = [n for n, d in enumerate(call.decisions) if "third" in str(d)]

    assert call.text == OTHER
    assert named == [*DISPUTES]
    assert [call.decisions[n].chosen.providers for n in named] == [("b", "third")] * 4
    assert call.method == "calibrated"
    assert call.providers == ("a", "b", "third")
    assert "third was asked as well about 4 disputed intervals, 13.4 s of sound." in call.notes
    # What is heard is where the words are, and a second and a half around them.
    for (start, end), n in zip(sorted(third.heard), DISPUTES, strict=True):
        assert (start, end) == pytest.approx((n * STEP_MS - 1500, n * STEP_MS + 350 + 1500), abs=4)


async def test_what_both_heard_stays_whatever_the_third_hears(make_scenario):
    calibrated = await without(make_scenario)
    call = await run(make_scenario(*pair(), third=Third(" ".join("nonsense" for _ in SAID))))
    agreed = [n for n, d in enumerate(calibrated.decisions) if d.rule == "unanimous"]

    assert len(call.decisions) == len(calibrated.decisions)
    assert [call.decisions[n] for n in agreed] == [calibrated.decisions[n] for n in agreed]
    assert {word.text for word in call.words} <= {*ONE.split(), *OTHER.split(), "nonsense"}


async def test_what_it_cost_is_recorded_under_its_name(make_scenario):
    scenario = make_scenario(*pair(), third=Third())
    await run(scenario)

    assert usage(scenario.fleet) == {"audio_seconds": pytest.approx(13.4), "requests": 4}


async def test_the_tiebreaker_gets_no_more_than_its_seconds(make_scenario):
    third = Third()
    call = await run(make_scenario(*pair(), third=third, seconds=7))

    assert len(third.heard) == 2
    assert "third was not asked about 2 disputes: the limit is 7 s of sound." in call.notes


async def test_a_second_run_and_a_redelivery_ask_nothing_again(make_scenario):
    third = Third()
    scenario = make_scenario(*pair(), third=third)
    first = await run(scenario)
    for result in list(scenario.fleet.log["asr.results"]):
        scenario.fleet.deliver_again(result)
    again = JobReprocess(tenant_id="t", job_id=JOB, run=2)
    scenario.fleet.publish("intake.due", again, JOB.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"1")))
    await scenario.fleet.run()

    assert len(third.heard) == 4
    assert (await decided(scenario)).decisions == first.decisions


async def test_an_english_only_tiebreaker_is_not_asked_about_another_language(make_scenario):
    third, german = Third(name="third.en"), [replace(recognizer, language="de") for recognizer in pair()]
    call = await run(make_scenario(*german, third=third))

    assert third.heard == []
    assert call.language == "de"


async def test_recognizers_that_agree_or_are_alone_need_no_third(make_scenario):
    third = Third()
    for recognizers in (
        (FakeRecognizer("a"), FakeRecognizer("b")),
        (FakeRecognizer("a"),),
        (FakeRecognizer("a"), FakeRecognizer("b", "fails")),
    ):
        await run(make_scenario(*recognizers, third=third))

    assert third.heard == []


@pytest.mark.parametrize("refusal", [ProviderError("no weights"), RateLimited("slow down")])
async def test_after_a_refusal_no_other_interval_is_begun(make_scenario, refusal):
    third = Third(trouble=[refusal] * 4)
    calibrated, call = await without(make_scenario), await run(make_scenario(*pair(), third=third))

    assert len(third.heard) <= 4
    assert call.decisions == calibrated.decisions
    assert call.providers == ("a", "b")
    assert f"third did not hear 4 disputed intervals, which stay as they were: {refusal}." in call.notes


async def test_a_failure_is_tried_again_once_then_left(make_scenario):
    third = Third(trouble=[Transient("its process ended")] * 5)
    call = await run(make_scenario(*pair(), third=third))
    asked = sum("third" in str(d) for d in call.decisions)

    assert 3 <= asked <= 4
    assert len(third.heard) in (8, 9)


async def test_after_its_time_what_is_heard_counts_and_the_rest_stays(make_scenario):
    third = Third(slow_s=60)
    scenario = make_scenario(*pair(), third=third)
    call = await run(scenario)

    assert sum("third" in str(d) for d in call.decisions) == 1
    assert "third did not hear 3 disputed intervals, which stay as they were: no answer within 3 s" in " ".join(
        call.notes
    )
    assert len(scenario.fleet.log["reconcile.due"]) >= 1  # the event was not held meanwhile


async def test_jobs_wait_for_each_other_and_each_has_its_own_time(clips):
    store = MemoryStore()
    blob = await store.put(f"t/{JOB}/original.wav", ramp(), "audio/wav")
    job = Job(tenant_id="t", job_id=JOB, filename="f", audio_uri="x", original_uri=blob.uri)
    third = Third(slow_s=1.5)
    database = MemoryDatabase()
    tiebreak = Tiebreaker(third, database, store, clips, ProviderLimiter(database, third.name), 120, limit_s=5)
    heard = pair_heard()
    jobs = (tiebreak.settled(compare(heard), replace(job, job_id=f"j{n}")) for n in range(4))
    calls = await asyncio.gather(*jobs)

    assert [call.text for call in calls] == [OTHER] * 4


async def test_a_recording_that_is_gone_costs_a_note(clips):
    third, store = Third(), MemoryStore()
    heard = [
        Hypothesis(s.name, tuple(Word(w, n * 400, n * 400 + 350) for n, w in enumerate(s.text.split()))) for s in pair()
    ]
    job = Job(tenant_id="t", job_id=JOB, filename="f", audio_uri="x", original_uri=store.uri(f"t/{JOB}/original.wav"))
    compared = compare(heard)
    database = MemoryDatabase()
    tiebreak = Tiebreaker(third, database, store, clips, ProviderLimiter(database, third.name), 120)
    call = await tiebreak.settled(compared, job)

    assert third.heard == []
    assert call.decisions == compared.decided.decisions
    assert "third did not hear 4 disputed intervals" in " ".join(call.notes)


@dataclass
class Timeless(FakeRecognizer):
    """Does not say when."""

    async def poll(self, provider_id):
        heard = await super().poll(provider_id)
        return replace(heard, words=tuple(Word(word.text) for word in heard.words))


async def test_without_times_nothing_is_cut(make_scenario):
    third = Third()
    call = await run(make_scenario(Timeless("a", ONE), Timeless("b", OTHER), third=third))

    assert third.heard == []
    assert "third was not asked about 4 disputes: no recognizer says when they were said." in call.notes
    await run(make_scenario(Timeless("a", ONE), FakeRecognizer("b", OTHER), third=third))
    assert len(third.heard) == 4


async def test_an_adjudicator_is_asked_after_the_tiebreaker_and_sees_three(make_scenario):
    adjudicator = ScriptedAdjudicator()
    third = Third(OTHER.replace("mousetrap", "mouse"))
    call = await run(make_scenario(*pair(), third=third, adjudicator=adjudicator))
    first = [q for questions in adjudicator.asked for q in questions if "mousetrap" in q.readings]

    assert [set(q.readings) for q in first] == [{"house", "mousetrap", "mouse"}]
    assert call.method == "gemini"


async def test_google_can_be_the_third_and_is_paid_once(make_scenario, tmp_path):
    server = Server(tmp_path / "ledger.jsonl")
    async with serving(server) as endpoint:
        google = Google(Speech("google", project="p", endpoint=endpoint), retries=0)
        scenario = make_scenario(*pair(), third=google, third_limit_s=60)  # importing the SDK takes its time
        await run(scenario)
        for result in list(scenario.fleet.log["asr.results"]):
            scenario.fleet.deliver_again(result)
        await scenario.fleet.run()
        await google.close()
    charges = server.charges()
    server.ledger.close()

    assert len(charges) == 4
    assert set(charges.values()) == {1}
    assert usage(scenario.fleet)["requests"] == 4


async def test_google_is_not_asked_within_a_pause_that_others_caused(make_scenario, tmp_path):
    server = Server(tmp_path / "ledger.jsonl")
    async with serving(server) as endpoint:
        google = Google(Speech("google", project="p", endpoint=endpoint), retries=0)
        scenario = make_scenario(*pair(), third=google, third_limit_s=60)
        await scenario.limiters["google"].failed(RateLimited("not so fast", retry_after=86_400))
        call = await run(scenario)
        await google.close()
    server.ledger.close()

    assert server.arrivals == []
    assert "google did not hear 4 disputed intervals, which stay as they were: google is not called" in " ".join(
        call.notes
    )
