"""What an agent has understood, as text and hypothesis; where others hear something else; what a request begins."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from agents.conversations.answers import Conversation, Turn, conversation, page
from agents.conversations.requesting import refused, request_outcome
from agents.conversations.transcript import hypothesis, text
from agents.text.reconcile import reconcile
from schemas.conversations import names
from schemas.conversations.differences import differences
from schemas.errors import Conflict
from schemas.events.conversation import AGENT, ConversationFetch, ConversationRequested
from schemas.events.job import EnrichmentStatus, StepState
from schemas.jobs.outcome import Failure
from schemas.jobs.rows import Job
from schemas.words import Hypothesis, Word

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def said(*turns, duration_ms=20_000):
    turns = tuple(Turn(is_agent, spoken, start) for is_agent, spoken, start in turns)
    return Conversation("done", "done", turns=turns, duration_ms=duration_ms, language="en")


def heard(provider, spoken, step_ms=400):
    words = tuple(Word(word, n * step_ms, n * step_ms + 350, 0.9) for n, word in enumerate(spoken.split()))
    return Hypothesis(provider, words, "en", 20_000, 0.9)


def found(agent, *others):
    of_agent = hypothesis(said((False, agent, 0)))
    decided = reconcile([of_agent, *(heard(f"r{n}", spoken) for n, spoken in enumerate(others))])
    return [(one.written, one.decided) for one in differences(decided, AGENT)]


def test_a_turn_is_a_line():
    assert text(said((True, "Hello.", 0), (False, "Hi\u202e there", 3000))) == "AI: Hello.\nUser: Hi\\u202e there\n"
    assert text(said()) == ""


def test_words_have_the_times_and_the_speaker_of_their_turn():
    words = hypothesis(said((True, "one two", 1000), (False, "three four five", 1200), duration_ms=1500)).words

    assert [(word.text, word.start_ms, word.end_ms, word.speaker) for word in words] == [
        ("one", 1000, 1100, "AI"),
        ("two", 1100, 1200, "AI"),
        ("three", 1200, 1300, "User"),
        ("four", 1300, 1400, "User"),
        ("five", 1400, 1500, "User"),
    ]


def test_a_word_takes_no_longer_than_a_word():
    words = hypothesis(said((True, "one two", 0), (False, "three", 60_000), duration_ms=61_000)).words

    assert [word.start_ms for word in words] == [0, 400, 60_000]


def test_turns_without_times_and_in_another_order_have_words_all_the_same():
    words = hypothesis(said((True, "one", None), (False, "two", 5000), (True, "three", 1000), duration_ms=None)).words

    assert [(word.text, word.start_ms) for word in words] == [("one", None), ("two", 5000), ("three", 1000)]


def test_where_all_hear_the_same_there_is_no_difference():
    assert found("we meet on Monday at ten", "we meet on monday at ten", "We meet on Monday, at ten.") == []


def test_what_others_agree_on_is_what_was_said():
    spoken = "we meet on Monday at ten o'clock in the harbour and nobody is late"
    wrong = spoken.replace("Monday", "Tuesday").replace(" nobody", "")

    assert found(wrong, spoken, spoken) == [("Tuesday", "Monday"), ("", "nobody")]


def test_what_nobody_said_is_told():
    spoken = "we meet on Monday at ten o'clock in the harbour"

    assert found(spoken.replace("harbour", "really harbour"), spoken, spoken) == [("really", "")]


def answered(*turns, **metadata):
    transcript = [{"role": "user", "message": spoken, "time_in_call_secs": at} for spoken, at in turns]
    return conversation(orjson.dumps({"status": "done", "metadata": metadata, "transcript": transcript}))


def test_a_turn_behind_the_calls_end_is_at_its_end_and_a_note_says_so():
    read = answered(("one", 3), ("two", 16), ("three", 17), ("four", 9e8), call_duration_secs=16)

    assert [turn.start_ms for turn in read.turns] == [3000, 16_000, 16_000, 16_000]
    assert read.notes == ("ElevenLabs has 2 turns of the conversation behind its end, at 0:16: shown there.",)
    assert max(word.end_ms for word in hypothesis(read).words) == 16_000
    assert answered(("one", 3), ("two", 16), call_duration_secs=16).notes == ()


def test_words_before_a_turn_without_a_time_do_not_pass_the_calls_end():
    read = answered(("one two three four five", 15), ("six", None), call_duration_secs=16)

    assert max(word.end_ms for word in hypothesis(read).words if word.end_ms is not None) == 16_000


@pytest.mark.parametrize("seconds", [None, "1790000000", -1, 0, 1e300, True, [], float("1e12")])
def test_the_begin_of_a_call_is_a_time_or_nothing(seconds):
    assert answered(start_time_unix_secs=1_790_000_000).started_at == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert answered(start_time_unix_secs=seconds).started_at is None


def test_a_list_has_the_begin_of_each_call():
    listed = {"conversation_id": "c1", "status": "done", "start_time_unix_secs": 1_790_000_000}
    [one] = page(orjson.dumps({"conversations": [listed]})).conversations

    assert one.started_at == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"done"', b"{}", b'{"status": null}', b"[" * 100_000])
def test_what_is_no_conversation_is_refused(body):
    from schemas.errors import Transient

    with pytest.raises(Transient, match="not a conversation"):
        conversation(body)


def request(**more):
    fields = {"account_id": "acme", "conversation_id": "c1", "email_id": "ann@reader.example"} | more
    return ConversationRequested.model_validate(fields)


def job(**more):
    created = request_outcome(request(), None, NOW).create
    assert created is not None
    return replace(created, **more)


def test_a_request_makes_a_job_and_a_first_look():
    outcome = request_outcome(request(options={"verify": True}), None, NOW, first_run=3)
    created, [later] = outcome.create, outcome.later

    assert created.job_id == names.job_id("acme", "c1")
    assert (created.run, created.status, created.audio_uri) == (3, "uploaded", "elevenlabs:c1")
    assert created.options == {"mail_to": ["ann@reader.example"], "verify": True}
    assert later.data == ConversationFetch(
        tenant_id="acme", job_id=created.job_id, run=3, conversation_id="c1", since=NOW
    )


@pytest.mark.parametrize(
    "existing",
    [
        job(),
        job(steps={"fetch": StepState(state="retrying", error="503")}),
        job(status="reconciling"),
        job(status="completed", enrichment={"summary": EnrichmentStatus(state="running")}),
        job(status="completed", enrichment={"mail": EnrichmentStatus(state="done")}),
        job(status="completed", enrichment={"mail": EnrichmentStatus(state="failed", code="mail_in_doubt")}),
    ],
)
def test_a_repeat_changes_nothing(existing):
    outcome = request_outcome(request(email_id="eve@reader.example"), existing, NOW)

    assert (outcome.create, outcome.begin, outcome.later, outcome.audit) == (None, None, (), "repeated")


@pytest.mark.parametrize(
    "existing",
    [
        job(status="failed", code="not_found", reason="no", steps={"fetch": StepState(state="failed")}),
        job(status="failed", code="cancelled"),
        job(status="completed", enrichment={"summary": EnrichmentStatus(state="failed", code="budget_exhausted")}),
        job(status="completed", enrichment={"mail": EnrichmentStatus(state="failed", code="mail_refused")}),
    ],
)
def test_what_has_failed_begins_its_next_run(existing):
    outcome = request_outcome(request(email_id="bob@reader.example"), existing, NOW)

    assert (outcome.begin.run, outcome.begin.status, outcome.begin.reason, outcome.begin.code) == (
        2,
        "uploaded",
        None,
        None,
    )
    assert outcome.begin.options["mail_to"] == ["bob@reader.example"]
    assert [later.data.run for later in outcome.later] == [2]


def test_an_upload_of_the_same_name_is_nobody_elses():
    upload = Job(tenant_id="acme", job_id=names.job_id("acme", "c1"), filename="a.wav", audio_uri="https://a.example/a")
    with pytest.raises(Conflict):
        request_outcome(request(), upload, NOW)


def test_a_refused_request_can_be_asked_about():
    outcome = refused(request(), Failure("no key", "unsupported_option"))

    assert (outcome.create.status, outcome.create.code) == ("failed", "unsupported_option")
    assert [later.topic for later in outcome.later] == ["job.failed", "persist.due"]


def planted(count, seed):
    """A call of 80 turns as its agent has understood it, with so many words wrong, and as two recognizers have heard
    it. The agent's words have no times of their own.
    """
    chance = random.Random(seed)
    turns = [[chance.choice(SPOKEN) for _ in range(chance.randint(3, 20))] for _ in range(80)]
    wrong = [[*words] for words in turns]
    places = [(n, m) for n, words in enumerate(turns) for m in range(len(words))]
    for n, m in chance.sample(places, count):
        wrong[n][m] = chance.choice([word for word in SPOKEN if word != turns[n][m]])
    at, starts, words = 0, [], []
    for spoken in turns:
        starts.append(at)
        words += [(word, at + 300 + 330 * m) for m, word in enumerate(spoken)]
        at += 330 * len(spoken) + chance.randint(200, 3000)
    understood = [(n % 2 == 0, " ".join(spoken), starts[n]) for n, spoken in enumerate(wrong)]
    others = [
        Hypothesis(name, tuple(Word(word, start, start + 300, 0.9) for word, start in words), "en", at, 0.9)
        for name in ("r0", "r1")
    ]
    return [hypothesis(said(*understood, duration_ms=at)), *others]


#: Words of which none is another's beginning, filler or number.
SPOKEN = (
    "appointment harbour dentist morning evening telephone insurance reception customer parking bridge receipt "
    "delivery address invoice signature kitchen window garden market teacher doctor village summer winter"
).split()


@pytest.mark.parametrize("count", [0, 20, 80])
def test_errors_of_an_agent_are_found_although_its_words_have_no_times(count):
    decided = reconcile(planted(count, seed=7))
    found = differences(decided, AGENT)
    wrong = sum(len(one.written.split()) for one in found)

    assert 0.9 * count <= wrong <= 1.1 * count
    assert {word.speaker for word in decided.words} == {"AI", "User"}
