"""Answers of vendors that are asked in pieces, of which any value may be missing or wrong; and their settings."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.asr.pieces.deepgram import Listen
from agents.asr.pieces.elevenlabs import Scribe
from agents.asr.pieces.openai import Transcriptions
from agents.asr.pieces.parts import LONGEST_WORD, Span, joined
from agents.asr.pieces.recognizer import _length_ms
from agents.asr.protocols import Request
from agents.fleet.environment import from_env
from agents.fleet.recognizers import KINDS, abilities, kind_of, languages, open_recognizer
from schemas.errors import SettingsError
from tests.transcripts import is_a_transcript

SERVICES = {
    "openai": Transcriptions("openai", "k", "whisper-1"),
    "deepgram": Listen("deepgram", "k", "nova-3"),
    "elevenlabs": Scribe("elevenlabs", "k", "scribe_v2"),
}
SPAN = Span(60_000, 50_000)


def asked(**fields):
    return Request(tenant_id="acme", job_id="job", run=1, marker="m", **fields)


def read(name, answer):
    return SERVICES[name].read(json.dumps(answer).encode(), SPAN)


def whisper(*words, text="", **more):
    return {"text": text, "words": [dict(zip(("word", "start", "end"), word, strict=False)) for word in words]} | more


def listened(*words, **more):
    return {"results": {"channels": [{"alternatives": [{"words": list(words)} | more]}]}}


def scribed(*words, **more):
    return {"text": "", "words": list(words)} | more


# -- hostile values --

#: Values that no field expects.
ODD = [None, True, -1, 1e308, 10**40, math.nan, math.inf, "soon", "", [], {}, ["a"], {"a": 1}, "x" * 5000]
ODD.append("a\x00b\u202e")


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
@pytest.mark.parametrize("name", SERVICES)
def test_a_wrong_value_costs_no_more_than_itself(name, odd):
    """The answer is paid for, and the words beside the wrong one are good."""
    good, times = "good", {"start": 1.0, "end": 2.0}
    for field in ("start", "end", "confidence", "logprob", "speaker", "speaker_id", "type", "word", "text"):
        one = {"word": good, "text": good, "type": "word", **times} | {field: odd}
        two = {"word": "too", "text": "too", "type": "word", "start": 3.0, "end": 4.0}
        answer = {
            "openai": {"text": "", "words": [one, two]},
            "deepgram": listened(one, two),
            "elevenlabs": scribed(one, two),
        }[name]
        part = read(name, answer)
        assert part.words[-1].text == "too"
        assert (part.words[-1].start_ms, part.words[-1].end_ms) == (63_000, 64_000)
        follows_the_rules(name, part)


def follows_the_rules(name, part):
    assert all(len(word.text) <= LONGEST_WORD for word in part.words)
    timed = [word for word in part.words if word.start_ms is not None]
    assert all(60_000 <= word.start_ms <= word.end_ms <= 110_000 for word in timed)
    assert 0 <= part.billed_s <= 110
    if part.words:
        found = joined(name, [part], language="auto", model="m")
        is_a_transcript(found, SERVICES[name])


#: The fields of all answers.
FIELDS = (
    "text words word start end type logprob speaker_id language_code results channels alternatives transcript "
    "confidence speaker metadata duration segments logprobs token avg_logprob usage seconds languages code"
).split()
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=24,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES)
def test_any_json_is_a_transcript_or_is_refused(value):
    for name in SERVICES:
        for answer in (value, {"text": "a", "words": value, "segments": value}, listened(value, value), scribed(value)):
            with contextlib.suppress(ValueError):
                follows_the_rules(name, read(name, answer))


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("answer", [b"", b"\xff", b"<html>", b"[]", b"null", b"7", b'{"text": ', b"[" * 100_000])
def test_what_is_no_answer_is_refused_without_its_text(name, answer):
    with pytest.raises(ValueError, match=r".") as caught:
        SERVICES[name].read(answer, SPAN)
    assert "html" not in str(caught.value)


@pytest.mark.parametrize(("name", "missing"), [("openai", "text"), ("elevenlabs", "text"), ("deepgram", ".")])
def test_an_answer_without_a_text_is_none(name, missing):
    with pytest.raises(ValueError, match=missing):
        read(name, {})


def test_words_out_of_order_are_put_in_order_by_moving_their_starts():
    part = read("openai", whisper(("b", 5.0, 6.0), ("a", 1.0, 2.0), ("c", 99.0, 98.0)))

    assert [(word.start_ms, word.end_ms) for word in part.words] == [
        (65_000, 66_000),
        (65_000, 65_000),
        (110_000, 110_000),
    ]


# -- what each vendor means --


def test_whispers_words_get_the_punctuation_of_its_text_and_the_confidence_of_their_segments():
    segments = [
        {"text": " Well-known, yes?", "start": 0.0, "end": 2.0, "avg_logprob": math.log(0.5)},
        {"text": ' He said "no".', "start": 2.0, "end": 4.0, "avg_logprob": math.log(0.8)},
    ]
    heard = ("Well", 0, 0.5), ("known", 0.5, 1), ("yes", 1, 2), ("He", 2, 2.5), ("said", 2.5, 3), ("no", 3, 4)
    part = read("openai", whisper(*heard, text='Well-known, yes? He said "no".', segments=segments))

    assert [word.text for word in part.words] == ["Well-", "known,", "yes?", "He", "said", '"no".']
    assert [word.confidence for word in part.words] == [0.5] * 3 + [0.8] * 3


def test_whispers_words_stay_as_they_are_where_its_text_has_others():
    part = read("openai", whisper(("ten", 0, 1), ("dollars", 1, 2), text="$10"))

    assert [word.text for word in part.words] == ["ten", "dollars"]


def test_the_probabilities_of_tokens_are_those_of_the_words_that_they_spell():
    tokens = [("Hel", 0.9), ("lo", 0.8), (",", 1.0), (" wor", 0.5), ("ld. Bye", 0.9)]
    logprobs = [{"token": token, "logprob": math.log(sure)} for token, sure in tokens]
    part = read("openai", {"text": "Hello, world. Bye", "logprobs": logprobs})
    other = read("openai", {"text": "Hello, word", "logprobs": logprobs})

    assert [(word.text, word.confidence) for word in part.words] == [("Hello,", 0.72), ("world.", 0.45), ("Bye", 0.9)]
    assert [word.confidence for word in other.words] == [None, None]


@pytest.mark.parametrize(("said", "tag"), [("english", "en"), ("de", "de"), ("Cantonese", "yue"), ("klingon!", "")])
def test_whispers_languages_are_names_or_codes(said, tag):
    assert read("openai", whisper(("a", 0, 1), language=said)).language == tag


@pytest.mark.parametrize(("said", "tag"), [("eng", "en"), ("cmn", "zh"), ("fil", "fil"), ("und", ""), ("???", "")])
def test_scribes_languages_are_codes_of_three_letters(said, tag):
    assert read("elevenlabs", scribed({"text": "a", "type": "word"}, language_code=said)).language == tag


def test_what_deepgram_writes_with_punctuation_is_taken_before_the_bare_word():
    part = read("deepgram", listened({"word": "hello", "punctuated_word": "Hello,", "speaker": 1}))

    assert [(word.text, word.speaker) for word in part.words] == [("Hello,", "1")]


def test_what_is_asked_for_depends_on_the_model():
    words = {"timestamp_granularities[]", "response_format", "model"}
    fields = {
        model: dict(Transcriptions("openai", "k", model)._fields(asked(vocabulary=("Concord",))))
        for model in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-transcribe-diarize", "gpt-transcribe", "large-v3")
    }

    assert fields["whisper-1"].keys() == fields["large-v3"].keys() == words
    assert fields["gpt-4o-transcribe"]["include[]"] == "logprobs"
    assert "include[]" not in fields["gpt-4o-transcribe-diarize"] | fields["gpt-transcribe"]
    assert fields["gpt-transcribe"]["keywords[]"] == "Concord"


@pytest.mark.parametrize(("asked_for", "sent"), [("en-GB", "en-GB"), ("it-CH", "it"), ("ja", "ja")])
def test_deepgram_gets_regions_that_it_knows(asked_for, sent):
    assert ("language", sent) in Listen("deepgram", "k", "nova-3")._parameters(asked(language=asked_for))


def test_terms_are_sent_as_the_vendors_take_them():
    terms = ("Concord", "one two three four five six", "a{b}", "x" * 51)

    assert [v for n, v in Listen("d", "k", "nova-3")._parameters(asked(vocabulary=terms)) if n == "keyterm"] == [*terms]
    assert ("keywords", "Concord") in Listen("d", "k", "nova-2")._parameters(asked(vocabulary=terms))
    assert [v for n, v in Scribe("e", "k", "m")._fields(asked(vocabulary=terms)) if n == "keyterms"] == ["Concord"]


@pytest.mark.parametrize(("fields", "sent"), [({}, None), ({"speakers": 2}, "2"), ({"speakers": 99}, "32")])
def test_scribe_is_told_how_many_speakers_there_are_if_somebody_knows(fields, sent):
    scribe = Scribe("elevenlabs", "k", "m")

    assert dict(scribe._fields(asked(diarize=True, **fields))).get("num_speakers") == sent
    assert "num_speakers" not in dict(scribe._fields(asked(**fields)))


def test_the_length_of_a_flac_file_is_read_from_it(tmp_path):
    import numpy as np

    from agents.media.flac_chunks import write_flac

    with (tmp_path / "a.flac").open("wb") as file:
        write_flac(file, [np.zeros(16_000, np.float32)] * 90 + [np.zeros(8_000, np.float32)])

    assert _length_ms(tmp_path / "a.flac") == 90_500


# -- settings --

KEYS = {"OPENAI_API_KEY": "k", "DEEPGRAM_API_KEY": "k", "ELEVENLABS_API_KEY": "k"}
NAMES = "openai,openai-gpt-4o-transcribe,deepgram,elevenlabs"


def test_every_missing_key_is_said_at_the_start():
    with pytest.raises(SettingsError) as caught:
        from_env({"CONCORD_RECOGNIZERS": NAMES})

    for name in ("OPENAI_TRANSCRIBE_API_KEY or OPENAI_API_KEY", "DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY"):
        assert f"{name}: the recognizer" in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({}, "texts"),
        ({"OPENAI_BASE_URL": "http://own:8000/v1"}, None),
        ({"OPENAI_TRANSCRIBE_BASE_URL": "http://own:8000/v1"}, None),
        ({"OPENAI_BASE_URL": "http://own:8000/v1", "OPENAI_TRANSCRIBE_BASE_URL": "http://own:8000/v1"}, "texts"),
        ({"OPENAI_TRANSCRIBE_API_KEY": "other"}, "other"),
    ],
)
def test_the_key_of_texts_is_sent_to_the_server_of_texts_only(environment, key):
    assert from_env({"OPENAI_API_KEY": "texts"} | environment).openai_transcription_key == key


def test_a_key_that_no_header_can_have_is_refused_and_not_shown():
    with pytest.raises(SettingsError, match="DEEPGRAM_API_KEY must be printable") as caught:
        open_recognizer("deepgram", from_env(KEYS | {"DEEPGRAM_API_KEY": "hush\nhush"}))
    assert "hush" not in str(caught.value)


async def test_each_is_opened_by_its_name():
    found = from_env(KEYS | {"CONCORD_RECOGNIZERS": NAMES})
    for name in NAMES.split(","):
        recognizer = open_recognizer(name, found)
        assert recognizer.name == name
        await recognizer.close()

    assert abilities(found) == {
        "openai": frozenset(),
        "openai-gpt-4o-transcribe": frozenset(),
        "deepgram": frozenset({"diarize"}),
        "elevenlabs": frozenset({"diarize"}),
    }
    assert {heard.one for heard in languages(found).values()} == {None}


def test_every_kind_that_needs_a_key_says_which():
    assert {name for name, kind in KINDS.items() if kind.keys} == {
        "assemblyai", "google", "openai", "openai-", "deepgram", "elevenlabs",
    }  # fmt: skip
    assert kind_of("nobody") is None


def test_what_is_said_of_openai_holds_for_each_of_its_models_that_has_no_limits_of_its_own():
    found = from_env({"CONCORD_RATES": "openai=3,openai-gpt-transcribe=1", "CONCORD_SLOTS": "openai=5"})

    assert found.limits_of("openai-whisper-1") == (5, 3.0)
    assert found.limits_of("openai-gpt-transcribe") == (5, 1.0)
    assert found.limits_of("whisper-base") == (None, None)
