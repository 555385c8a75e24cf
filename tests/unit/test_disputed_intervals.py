"""The intervals that a tiebreaker gets, and what its readings may change."""

from __future__ import annotations

import itertools
import wave
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.media.clips import Clips, clips
from agents.text.disputed_intervals import CONTEXT_MS, Dispute, disputed_intervals, disputes, settled
from agents.text.reconcile import compare
from schemas.errors import RefusedMedia
from schemas.words import Hypothesis, Word
from tests.examples import examples

STEP_MS = 400


def heard(provider, text, *, start_ms=0, timed=True):
    words = (
        Word(word, start_ms + n * STEP_MS, start_ms + n * STEP_MS + 350) if timed else Word(word)
        for n, word in enumerate(text.split())
    )
    return Hypothesis(provider, tuple(words), "en")


def part(whole, interval):
    """What the recognizer of the whole hears in an interval."""
    words = (w for w in whole.words if interval.start_ms <= w.start_ms and w.end_ms <= interval.end_ms)
    return replace(whole, words=tuple(words))


def dispute(n, start_ms, end_ms, doubt=1.0):
    return Dispute(n, n + 1, start_ms, end_ms, doubt)


def times(found):
    return [(interval.start_ms, interval.end_ms) for interval in found]


def test_context_is_added_and_what_overlaps_is_one_interval():
    found = disputed_intervals([dispute(1, 1000, 1400), dispute(3, 20_000, 20_500), dispute(5, 22_000, 22_100)], 60_000)

    assert times(found) == [(0, 2900), (18_500, 23_600)]
    assert [len(interval.disputes) for interval in found] == [1, 2]


def test_a_small_budget_goes_to_where_the_most_errors_a_second_are():
    few, many, long = dispute(1, 10_000, 11_000, 0.5), dispute(3, 50_000, 51_000, 2), dispute(5, 90_000, 120_000, 2.5)

    assert [s.disputes for s in disputed_intervals([few, many, long], 8000)] == [(few,), (many,)]
    assert [s.disputes for s in disputed_intervals([few, many, long], 4000)] == [(many,)]
    assert disputed_intervals([few, many, long], 3000) == []


@given(
    st.lists(st.tuples(st.integers(0, 600_000), st.integers(1, 20_000), st.floats(0.01, 5)), max_size=20),
    st.integers(0, 120_000),
)
def test_intervals_are_in_order_apart_and_within_the_budget(places, limit_ms):
    found = disputed_intervals(
        [dispute(2 * n, at, at + long, doubt) for n, (at, long, doubt) in enumerate(sorted(places))], limit_ms
    )

    assert sum(interval.length_ms for interval in found) <= limit_ms
    assert all(one.end_ms < two.start_ms for one, two in itertools.pairwise(found))
    assert all(s.start_ms <= d.start_ms - CONTEXT_MS or not s.start_ms for s in found for d in s.disputes)


def test_disputes_are_found_with_their_times_and_without_those_about_fillers():
    found, timeless = disputes(
        compare([heard("a", "we sold um four houses here in May"), heard("b", "we sold the forty houses here in May")])
    )

    assert [(d.start_ms, d.end_ms) for d in found] == [(800, 1550)]
    assert timeless == 0
    assert disputes(compare([heard("a", "we sold um it"), heard("b", "we sold it")])) == ([], 0)


def test_what_has_no_times_is_counted_and_placed_between_its_neighbours_if_those_have():
    one, other = "we sold four houses", "we sold forty houses"
    nobody = compare([heard("a", one, timed=False), heard("b", other, timed=False)])
    assert disputes(nobody) == ([], 1)

    words = list(heard("a", one).words)
    words[2] = Word("four")
    [found], _ = disputes(compare([Hypothesis("a", tuple(words), "en"), heard("b", other, timed=False)]))
    assert (found.start_ms, found.end_ms) == (750, 1200)


def test_times_that_go_back_are_a_moment():
    broken = [Hypothesis(n, (Word("hi", 0, 300), Word(w, 9000, 2000)), "en") for n, w in (("a", "Ann"), ("b", "Anne"))]
    [interval] = disputed_intervals(disputes(compare(broken))[0], 60_000)

    assert (interval.start_ms, interval.end_ms) == (7500, 10_500)


def test_the_third_settles_a_dispute_and_is_named_nowhere_else():
    compared = compare([heard("a", "we sold four houses here"), heard("b", "we sold forty houses here")])
    found, _ = disputes(compared)
    [interval] = disputed_intervals(found, 60_000)
    for word in ("four", "forty"):
        third = heard("c", f"we sold {word} houses here")
        call = settled(compared, {interval: third})

        assert call.text == f"we sold {word} houses here"
        assert ["c" in str(d.chosen.providers) for d in call.decisions] == [False, False, True, False, False]
        assert call.quality.recognizers["c"] == {"confidence": None, "words": 5.0, "coverage": None, "agreement": None}


VOCABULARY = "a the cat cats sat can't can not cannot twenty two 22 e-mail e mail um -".split()
texts = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=30)


@st.composite
def recordings(draw):
    """Two recognizers of one recording, and a third who may hear anything."""
    said = draw(texts)

    def mishear():
        return " ".join(draw(st.sampled_from([w, w, w, "x", ""])) if draw(st.booleans()) else w for w in said)

    timed = draw(st.booleans())
    third = draw(st.sampled_from(["near", "far"]))
    return (
        heard("a", mishear()),
        heard("b", mishear(), timed=timed),
        heard("c", mishear() if third == "near" else " ".join(draw(texts))),
    )


@settings(deadline=None, max_examples=examples(150))
@given(recordings())
def test_every_word_was_heard_and_what_two_agreed_on_is_as_it_was(given_):
    *pair, third = given_
    compared = compare(pair)
    found, _ = disputes(compared)
    call = settled(compared, {interval: part(third, interval) for interval in disputed_intervals(found, 600_000)})
    by_name = {h.provider: {word.text for word in h.words} for h in given_}

    for decision in call.decisions:
        for reading in (decision.chosen, *decision.others):
            assert 0 <= reading.probability <= 1
            assert reading.text is None or any(reading.text in by_name[name] for name in reading.providers)

    def agreed(decisions):
        return [d for d in decisions if d.rule == "unanimous" and d.chosen.providers == ("a", "b")]

    assert agreed(call.decisions) == agreed(compared.decided.decisions)
    assert settled(compared, {}) == compared.decided


def test_a_third_that_heard_nothing_at_all_is_not_believed():
    compared = compare([heard("a", "we sold four houses here"), heard("b", "we sold forty houses here")])
    [interval] = disputed_intervals(disputes(compared)[0], 60_000)

    assert settled(compared, {interval: heard("c", "")}) == compared.decided


def test_a_third_that_cuts_words_otherwise_beside_a_dispute_is_heard_all_the_same():
    compared = compare([heard("a", "it was not an e mail for him"), heard("b", "it was not and e mail for him")])
    [interval] = disputed_intervals(disputes(compared)[0], 60_000)
    call = settled(compared, {interval: heard("c", "it was not an e-mail for him")})

    assert [{p for r in (d.chosen, *d.others) for p in r.providers} for d in call.decisions[2:5]] == [
        {"a", "b"},
        {"a", "b", "c"},
        {"a", "b"},
    ]
    assert call.text.split()[4:] == ["e", "mail", "for", "him"]


def test_speakers_stay_those_of_the_whole():
    words = [
        replace(w, speaker="A" if n < 3 else "B") for n, w in enumerate(heard("a", "we sold four houses here").words)
    ]
    compared = compare([Hypothesis("a", tuple(words), "en"), heard("b", "we sold forty houses here")])
    third = heard("c", "we sold forty houses here")
    third = replace(third, words=tuple(replace(word, speaker="1") for word in third.words))
    call = settled(compared, dict.fromkeys(disputed_intervals(disputes(compared)[0], 60000), third))

    assert [d.speaker for d in call.decisions] == ["A", "A", "A", "B", "B"]


@settings(deadline=None, max_examples=40)
@given(edges=st.lists(st.integers(0, 2500), min_size=2, max_size=8, unique=True))
def test_excerpts_are_the_sound_of_their_times_and_silence_behind_the_end(tmp_path_factory, edges):
    path = tmp_path_factory.getbasetemp() / "ramp.wav"
    if not path.exists():
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(np.arange(32_000).astype("<i2").tobytes())
    sound = np.pad(np.arange(32_000), (0, 16_000))
    edges = sorted(edges)[: len(edges) // 2 * 2]
    wanted = list(zip(edges[::2], edges[1::2], strict=True))

    found = list(clips(path, wanted))

    assert len(found) == len(wanted)
    for (start, end), samples in zip(wanted, found, strict=True):
        assert np.array_equal(np.rint(samples * 32768), sound[start * 16 : end * 16])


async def test_excerpts_come_from_a_process_that_refuses_what_is_no_recording(tmp_path):
    chunker = Clips()
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no recording")
    with pytest.raises(RefusedMedia):
        await chunker.cut(bad, [(0, 1000)], tmp_path)
    await chunker.close()
