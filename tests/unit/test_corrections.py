"""Corrections as functions over words: whole texts in any script, times, and the spans of the review queue."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.text.corrections.review import MAX_ITEMS, MAX_READINGS, MAX_SLOTS, decided, review_items
from agents.text.corrections.whole import rewritten
from schemas.corrections.changes import SegmentText, WholeTranscript
from schemas.texts import joined
from schemas.transcript_words import TranscriptWord, words_of
from schemas.words import Decision, Quality, Reading, Reconciliation

OWNER = SimpleNamespace(tenant_id="t", job_id="j", run=1)


def words(*texts, times=True):
    return [
        TranscriptWord(f"w{n}", text, *((400 * n, 400 * n + 300) if times else (None, None)), "A", 0.9)
        for n, text in enumerate(texts)
    ]


def after(before, text, **more):
    return rewritten(before, WholeTranscript(text=text, **more), 2)


@pytest.mark.parametrize(
    ("before", "text", "ids"),
    [
        (["hello", "world"], "Hello, world!", ["w0", "w1"]),
        (["hello", "world"], "hello big world", ["w0", "e2.1", "w1"]),
        (["one", "4, 7, 1.", "two"], "one 4, 7, 9, 1. two", ["w0", "w1", "w2"]),
        (["one", "4, 7, 1.", "two"], "one two", ["w0", "w2"]),
        (["今天", "天气", "很好"], "今天天气很好", ["w0", "w1", "w2"]),
        (["今天", "天气", "好"], "今天天气很好", ["w0", "w1", "w2"]),
        (["the", "the", "the"], "the the", ["w0", "w1"]),
        ([], "hello there", ["e2.1", "e2.2"]),
        (["hello"], "", []),
    ],
)
def test_words_that_stay_keep_their_ids(before, text, ids):
    edited = after(words(*before), text)

    assert [word.id for word in edited.words] == ids
    assert joined(word.text for word in edited.words) == text


def test_a_word_across_two_segments_is_kept_in_the_first():
    segments = [SegmentText(text="a 4, 7,", speaker="X"), SegmentText(text="1. b", speaker="Y")]
    edited = rewritten(words("a", "4, 7, 1.", "b"), WholeTranscript(segments=segments), 2)

    assert [(word.id, word.text, word.speaker) for word in edited.words] == [
        ("w0", "a", "X"),
        ("w1", "4, 7,", "X"),
        ("e2.1", "1.", "Y"),
        ("w2", "b", "Y"),
    ]


def test_added_words_share_the_gap_by_their_length():
    before = [TranscriptWord("w0", "a", 0, 100), TranscriptWord("w1", "b", 500, 600)]

    assert [(w.start_ms, w.end_ms) for w in after(before, "a xxx y b").words[1:3]] == [(100, 400), (400, 500)]


def test_a_recognizer_without_times_gets_none():
    edited = after(words("a", "b", times=False), "a x b")

    assert {(word.start_ms, word.end_ms) for word in edited.words[2:]} == {(None, None)}


def test_what_is_written_by_hand_is_certain_and_no_longer_disputed():
    before = [
        TranscriptWord("w0", "meyer", 0, 100, "A", 0.4, True),
        TranscriptWord("w1", "b", 100, 200, "A", 0.5, True),
    ]
    edited = after(before, "Maier b")

    assert [(word.confidence, word.disputed) for word in edited.words] == [(1.0, False), (0.5, True)]
    assert (edited.changed_words, edited.decided) == (1, ("w0",))


TEXTS = st.lists(st.sampled_from(["a", "b", "the", "4, 7,", "天气", "好", "Zoë!", "-", "\u0939\u093f"]), max_size=30)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, st.lists(st.integers(0, 30), max_size=4))
def test_any_text_in_place_of_any_other_is_written_as_it_is_with_each_id_once(old, new, cuts):
    borders = sorted({min(cut, len(new)) for cut in (*cuts, 0, len(new))})
    parts = [" ".join(new[left:right]) for left, right in itertools.pairwise(borders)]
    edited = rewritten(words(*old), WholeTranscript(segments=[SegmentText(text=part) for part in parts]), 2)

    assert "".join(w.text for w in edited.words).replace(" ", "") == "".join(new).replace(" ", "")
    ids = [word.id for word in edited.words]
    assert len(set(ids)) == len(ids)
    kept = [int(id[1:]) for id in ids if id.startswith("w")]
    assert kept == sorted(kept)
    starts = [word.start_ms for word in edited.words if word.start_ms is not None]
    assert starts == sorted(starts)


def reconciliation(*slots):
    """Slots as (text of a, text of b): the first is chosen."""
    decisions = []
    for n, (a, b) in enumerate(slots):
        if a == b:
            decisions.append(Decision(Reading(a, ("a", "b"), 0.95, 400 * n, 400 * n + 300)))
        else:
            chosen = Reading(a, ("a",), 0.6, 400 * n, 400 * n + 300)
            decisions.append(Decision(chosen, (Reading(b, ("b",), 0.4),), "calibrated"))
    return Reconciliation(tuple(decisions), "calibrated", Quality(0.9, 0.5, 1.0, 0.1), ("a", "b"))


def test_what_differs_in_punctuation_only_is_not_asked():
    assert review_items(OWNER, reconciliation(("Hello,", "hello"), ("x", "x"), ("a", "b")))[0].slots == ["w2"]
    assert review_items(OWNER, reconciliation(("Hello,", "hello"))) == ()
    assert review_items(OWNER, reconciliation()) == ()


def test_the_queue_of_a_run_is_bounded_and_has_the_worst():
    disputes = [("x", "y"), ("x", "x")] * 300 + [("x", "y")] * 60 + [("x", "x")]
    items = review_items(OWNER, reconciliation(*disputes))

    assert len(items) == MAX_ITEMS
    assert [len(item.slots) for item in items[:3]] == [MAX_SLOTS, MAX_SLOTS, 60 - 2 * MAX_SLOTS]
    assert len({item.id for item in items}) == MAX_ITEMS
    assert review_items(OWNER, reconciliation(*disputes)) == items


def test_readings_that_say_the_same_share_one_and_their_number_is_bounded():
    names = [f"p{n}" for n in range(12)]
    others = tuple(Reading(f"word{n}", (name,), 0.05) for n, name in enumerate(names))
    decision = Decision(Reading("word", ("a", "b"), 0.4, 0, 100), others, "calibrated")
    [item] = review_items(OWNER, Reconciliation((decision,), "calibrated", Quality(0.9, 0.5, 1.0, 0.1), ("a",)))

    assert len(item.readings) == MAX_READINGS
    assert item.readings[0] == {"text": "word", "providers": ["a", "b"], "words": [["w0", "word", 0, 100]]}


def test_a_choice_puts_the_words_where_they_were_heard():
    source = reconciliation(("my", "my"), ("is", None), (None, "name"), ("x", "x"))
    [item] = review_items(OWNER, source)
    before = words_of(source)

    assert [w.text for w in decided(before, item, 1, 2).words] == ["my", "name", "x"]
    assert [w.text for w in decided(before, item, 0, 2).words] == ["my", "is", "x"]
    third = decided(decided(before, item, 1, 2).words, item, "was named so", 3)
    assert [(w.id, w.text) for w in third.words] == [("w0", "my"), ("w1", "was"), ("w2", "named so"), ("w3", "x")]
    assert decided(before, item, "", 2).decided == ("w1", "w2")
