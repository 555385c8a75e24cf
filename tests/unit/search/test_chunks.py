"""How a transcript becomes passages: where they end, what they repeat, and every reading of their disputed words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.text.chunks.chunking import ChunkSizes, chunked
from agents.text.chunks.index import transcript_index
from agents.text.chunks.readings import alternatives
from agents.text.chunks.tokens import spaced, tokens
from schemas.jobs.rows import Job
from schemas.search.chunks import Utterance, dictionary, pace_of, packed, unpacked
from schemas.transcript_words import TranscriptWord, words_of
from schemas.words import Decision, Quality, Reading, Reconciliation

SMALL = ChunkSizes(tokens=20, overlap=6, least=8)
JOB = Job(tenant_id="t", job_id="j", filename="a.wav", audio_uri="file:///a.wav")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def said(*turns):
    """Words of turns: (speaker, text)."""
    words = [(speaker, text) for speaker, line in turns for text in line.split()]
    return [TranscriptWord(f"w{n}", text, 400 * n, 400 * n + 350, speaker) for n, (speaker, text) in enumerate(words)]


def texts(words, sizes=SMALL):
    return [" ".join(word.text for word in words[begin:end]) for begin, end in chunked(words, sizes)]


def test_chunks_end_with_sentences_and_repeat_the_last_of_the_one_before():
    line = "One two three four. Five six seven eight nine. So it is. Ten eleven twelve thirteen fourteen."

    assert texts(said((None, line))) == [
        "One two three four. Five six seven eight nine. So it is.",
        "So it is. Ten eleven twelve thirteen fourteen.",
    ]


def test_turns_are_chunks_and_short_ones_are_joined():
    turns = [
        ("A", "Hello there."),
        ("B", "Hi."),
        ("A", "Where is my invoice of last month?"),
        ("B", "Let me look for it now, one moment."),
    ]

    assert texts(said(*turns)) == [
        "Hello there. Hi. Where is my invoice of last month?",
        "Let me look for it now, one moment.",
    ]


def test_a_short_rest_joins_the_chunk_before_and_one_alone_stays():
    assert texts(said(("A", "That was the whole of what I had to say."), ("B", "Bye."))) == [
        "That was the whole of what I had to say. Bye."
    ]
    assert texts(said(("A", "Bye."))) == ["Bye."]
    assert texts([]) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["A", "B", None]), st.sampled_from(["a", "word.", "x" * 30, "w" * 200])), max_size=80
    ),
    st.integers(10, 40),
)
def test_every_word_is_in_one_chunk_or_two_and_none_is_longer_than_it_may_be(pairs, longest):
    words = said(*pairs)
    spans = chunked(words, ChunkSizes(longest, longest // 3, longest // 2))
    counts = [sum(begin <= n < end for begin, end in spans) for n in range(len(words))]
    lengths = [sum(tokens(f"{word.text} ") for word in words[begin:end]) for begin, end in spans]

    assert all(1 <= count <= 2 for count in counts)
    assert all(length <= longest or end - begin == 1 for length, (begin, end) in zip(lengths, spans, strict=True))
    assert spans == sorted(spans)


def test_tokens_are_counted_by_four_characters_and_characters_of_scripts_without_spaces():
    assert [tokens(text) for text in ("", "a", "abcd", "abcde", "请问", "请问 abc")] == [0, 1, 1, 2, 2, 3]
    assert spaced("我要 refund。好") == "我 要 refund 。 好"
    assert spaced("plain text") == "plain text"


@pytest.mark.parametrize(
    "ids", [[], ["w7"], ["w7", "w8", "w9"], ["w7", "w9", "w10"], ["e3-1", "w1", "w2", "x"], ["w07", "w8"]]
)
def test_ids_are_packed_and_unpacked(ids):
    assert unpacked(packed(ids)) == ids
    assert len(packed(["w1", "w2", "w3"])) == 1


@pytest.mark.parametrize(
    ("tag", "name"), [("en-US", "english"), ("de_DE", "german"), ("ja", "simple"), (None, "simple"), ("", "simple")]
)
def test_languages_have_dictionaries(tag, name):
    assert dictionary(tag) == name


def decision(*readings, rule="calibrated"):
    """The first reading is the chosen one; each has a recognizer of its own, from `a` on."""
    made = [Reading(text, (provider,), 0.5, 0, 100) for text, provider in zip(readings, "abc", strict=False)]
    return Decision(made[0], tuple(made[1:]), rule, "A")


def agreed(text):
    return Decision(Reading(text, ("a", "b"), 0.9, 0, 100), (), "unanimous", "A")


def reconciled(*decisions):
    return Reconciliation(decisions, "calibrated", Quality(0.9, 0.5, 1.0, 0.1), ("a", "b"), "en")


DISPUTED = reconciled(
    *map(agreed, ["please", "call"]), decision("Acme", "Akmi"), decision("Corp", "cop"), *map(agreed, ["about", "it"]),
    decision(None, "today"),
)  # fmt: skip


def test_other_readings_have_the_words_around_them():
    words = words_of(DISPUTED)

    assert [(one.at, one.heard, one.text) for one in alternatives(DISPUTED, words)] == [
        (2, (("w2", "Akmi"), ("w3", "cop")), "please call Akmi cop about it"),
        (6, ((None, "today"),), "Corp about it today"),
    ]


def test_what_a_person_has_decided_has_no_other_reading():
    words = [word for word in words_of(DISPUTED) if word.id != "w3"]
    words[2] = TranscriptWord("w2", "Acme", 0, 100, "A", 1.0, disputed=False)

    assert [one.heard for one in alternatives(DISPUTED, words)] == [((None, "today"),)]


def test_an_index_has_times_speakers_ids_and_what_else_was_heard():
    index = transcript_index(JOB, NOON, 3, DISPUTED, words_of(DISPUTED))
    [chunk] = index.chunks

    assert (index.transcript_version, chunk.transcript_version, chunk.number) == (3, 3, 0)
    assert (chunk.text, chunk.dictionary, chunk.speakers) == ("please call Acme Corp about it", "english", ["A"])
    assert chunk.spoken[0].word_ids == ["w0", "w1", "w2", "w3", "w4", "w5"]
    assert chunk.heard == "please call Akmi cop about it\nCorp about it today"
    assert chunk.alternatives == [[0, "w2", "Akmi"], [0, "w3", "cop"], [0, None, "today"]]
    assert (chunk.start_ms, chunk.end_ms) == (0, 100)


def test_an_empty_transcript_has_an_empty_index():
    assert transcript_index(JOB, NOON, 1, reconciled(), []).chunks == ()


def test_each_word_has_its_moment_by_its_place_and_by_its_id():
    starts = [1000, 1310, None, 5590, 5590]
    said = Utterance(
        text="we agreed on a discount", start_ms=1000, end_ms=6000, words=["w3+3", "e1"], pace=pace_of(starts)
    )

    assert said.pace == "31 0 428 0"
    assert [said.moment(place) for place in (0, 3, 10, 13, 15)] == [1000, 1310, 1310, 5590, 5590]
    assert said.moment(said.text.index("greed")) == 1310
    assert [said.moment_of(id) for id in ("w3", "w4", "e1", "w9")] == [1000, 1310, 5590, None]


def test_moments_of_rows_of_earlier_versions_are_about_right():
    said = Utterance(text="aa bb cc dd", start_ms=0, end_ms=1100, words=["w0+3"])

    assert [said.moment(place) for place in (0, 3, 6, 9)] == [0, 300, 600, 900]
    assert said.moment_of("w2") == 550
    assert Utterance(text="aa bb", words=["w0+1"]).moment(3) is None


def test_words_that_are_not_those_between_spaces_are_about_right():
    said = Utterance(text="\u4eca\u65e5\u306f\u6674\u308c", start_ms=200, end_ms=1200, words=["w0+2"], pace="40 40")

    assert [said.moment(place) for place in range(5)] == [200, 200, 200, 600, 600]
