"""Questions for an adjudicator, and that no answer puts a word into a transcript that no recognizer heard."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.text.adjudicate import CONTEXT, LONGEST, ODDS, adjudicated, overruled, spans
from agents.text.reconcile import reconcile
from schemas.words import Hypothesis, Word

RULE = "gemini/model/v1"
CORPORA = Path(__file__).parents[2].parent / "shared" / "corpora"


def heard(provider: str, text: str) -> Hypothesis:
    words = tuple(Word(word, 400 * n, 400 * n + 350, 0.9) for n, word in enumerate(text.split()))
    return Hypothesis(provider, words, "en", 400 * len(words), 0.9)


def decided(*texts: str):
    return reconcile([heard(f"r{n}", text) for n, text in enumerate(texts)])


ONE = decided("please send the invoice to my house today", "please send the in voice to my mouse today")


def test_only_what_is_not_unanimous_is_asked_about_with_its_neighbours():
    asked = {span.question.readings: span for span in spans(ONE, RULE)}
    [house] = [span for readings, span in asked.items() if set(readings) == {"house", "mouse"}]

    assert len(asked) == 2
    assert house.question.before.endswith("to my")
    assert house.question.after == "today"
    assert all("r0" not in str(span.question) for span in asked.values())


def test_disputed_slots_that_touch_are_one_span_and_readings_are_whole_paths():
    call = decided("i said icecream please", "i said ice cream please", "i said nice dream please")
    [span] = spans(call, RULE)

    assert {"icecream", "ice cream", "nice dream"} <= set(span.question.readings)


def test_a_choice_is_made_signed_and_counted_in_the_quality():
    before = {d.chosen.text: d for d in ONE.decisions}
    [span] = [span for span in spans(ONE, RULE) if "mouse" in span.question.readings]
    other = next(n for n, text in enumerate(span.question.readings) if text not in before)
    after = adjudicated(ONE, [span], {span.question.id: other}, RULE)
    [was], [now] = ONE.decisions[span.first : span.end], after.decisions[span.first : span.end]

    assert (after.method, now.rule, now.chosen.text) == ("gemini", RULE, span.question.readings[other])
    assert {r.text for r in (now.chosen, *now.others)} == {r.text for r in (was.chosen, *was.others)}
    assert overruled(ONE, after) == 1
    winner, loser = now.chosen.providers[0], was.chosen.providers[0]
    figures = after.quality.recognizers
    assert figures[winner]["agreement"] > ONE.quality.recognizers[winner]["agreement"]
    assert figures[loser]["agreement"] < ONE.quality.recognizers[loser]["agreement"]
    assert after.quality.disputed_spans_per_1000_words == ONE.quality.disputed_spans_per_1000_words


def test_a_choice_multiplies_its_odds_and_the_others_share_what_is_left():
    [span] = [span for span in spans(ONE, RULE) if "mouse" in span.question.readings]
    was = ONE.decisions[span.first]
    for choice in range(2):
        now = adjudicated(ONE, [span], {span.question.id: choice}, RULE).decisions[span.first]
        p = next(r.probability for r in (was.chosen, *was.others) if r.text == now.chosen.text)
        odds = now.chosen.probability / (1 - now.chosen.probability)

        assert odds == pytest.approx(ODDS * p / (1 - p), rel=0.01)
        assert now.chosen.probability > p
        assert sum(r.probability for r in (now.chosen, *now.others)) <= 1.001
        others = {r.text: r.probability for r in (was.chosen, *was.others)}
        assert all(r.probability < others[r.text] for r in now.others)


@pytest.mark.parametrize("choice", [None, -1, 2, 99])
def test_neither_and_what_was_not_offered_change_nothing(choice):
    asked = spans(ONE, RULE)

    assert adjudicated(ONE, asked, {span.question.id: choice for span in asked}, RULE) is ONE
    assert adjudicated(ONE, asked, {"unknown": 0}, RULE) is ONE


def test_names_and_order_of_recognizers_change_no_question():
    texts = ("the cat sat on a mat", "the cat sat on the mat", "the bat sat on a mat")
    names = ("a", "b", "c")
    one = reconcile([heard(name, text) for name, text in zip(names, texts, strict=True)])
    two = reconcile([heard(name, text) for name, text in zip(names[::-1], texts, strict=True)][::-1])

    def questions(call):
        return {span.question.id: set(span.question.readings) for span in spans(call, RULE)}

    assert {frozenset(r) for r in questions(one).values()} == {frozenset(r) for r in questions(two).values()}
    assert spans(one, RULE) == spans(one, RULE)


def test_another_model_prompt_language_or_neighbour_is_another_question():
    def ids(call, rule=RULE):
        return {span.question.id for span in spans(call, rule)}

    same = ids(ONE)

    assert not same & ids(ONE, "gemini/model/v2")
    assert not same & ids(ONE, "gemini/other/v1")
    assert not same & ids(dataclasses.replace(ONE, language="fr"))
    assert not same & ids(decided("please bring the invoice to my house", "please bring the in voice to my mouse"))


@pytest.mark.slow
def test_the_calibrated_choice_is_not_always_the_first():
    """Position tells an adjudicator nothing: over many spans the choice is in each place."""
    places = []
    for n in range(40):
        call = decided(f"word{n} house today", f"word{n} mouse today")
        [span] = spans(call, RULE)
        places.append(span.question.readings.index(call.decisions[span.first].chosen.text))

    assert 8 < sum(places) < 32


def test_fillers_and_punctuation_are_not_worth_a_question():
    assert spans(decided("so um we agree", "so we agree"), RULE) == []
    assert spans(decided("so we agree", "so we agree"), RULE) == []
    assert spans(decided("so we agree"), RULE) == []


def test_the_most_doubtful_come_first_and_endless_disputes_are_left_out():
    long = " ".join(f"a{n}" for n in range(LONGEST + 5)), " ".join(f"b{n}" for n in range(LONGEST + 5))
    call = decided(f"the cat sat {long[0]} end of that house", f"the bat sat {long[1]} end of that mouse")
    found = spans(call, RULE)

    assert found
    assert [s.probability for s in found] == sorted(s.probability for s in found)
    assert all(s.end - s.first <= LONGEST for s in found)
    assert all(len(s.question.before.split()) <= CONTEXT for s in found)


def test_what_no_person_can_have_said_is_not_asked_about():
    assert spans(decided(f"the {'x' * 5000} sat", "the cat sat"), RULE) == []
    assert spans(decided(f"{'x' * 5000} the bat sat", f"{'x' * 5000} the cat sat"), RULE) == []


def nobody_heard(call, hypotheses) -> set[str]:
    """Words of a transcript that are no recognizer's."""
    return {w.text for w in call.words} - {w.text for h in hypotheses for w in h.words}


def harmless(hypotheses, chance: random.Random) -> int:
    """SpanAdjudicator at random, also with what was not offered; how many slots changed."""
    before = reconcile(hypotheses)
    asked = spans(before, RULE)
    choices = {s.question.id: chance.choice([None, -1, *range(len(s.question.readings) + 2)]) for s in asked}
    after = adjudicated(before, asked, choices, RULE)
    pairs = list(zip(before.decisions, after.decisions, strict=True))

    assert nobody_heard(after, hypotheses) == set()
    assert all(one == two for one, two in pairs if one.rule == "unanimous")
    assert all(0 <= r.probability <= 1 for d in after.decisions for r in (d.chosen, *d.others))
    assert all({r.text for r in (a.chosen, *a.others)} == {r.text for r in (b.chosen, *b.others)} for a, b in pairs)
    for s in asked:  # a whole reading is taken, never a part of one
        choice = choices[s.question.id]
        if choice is not None and 0 <= choice < len(s.question.readings):
            said = " ".join(d.chosen.text for d in after.decisions[s.first : s.end] if d.chosen.text)
            assert said == s.question.readings[choice]
    return overruled(before, after)


WORDS = st.lists(
    st.sampled_from("the a house mouse um ice cream icecream 20 twenty o'clock Mr. \u202ex é".split()), max_size=14
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_whatever_an_adjudicator_says_every_word_was_heard_and_unanimity_stands(texts, chance):
    harmless([heard(f"r{n}", " ".join(words)) for n, words in enumerate(texts)], chance)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["earnings21", "primock57"])
def test_also_on_real_calls(folder):
    paths = sorted((CORPORA / folder).glob("*.json.gz"))[:2]
    if not paths:
        pytest.skip("needs the corpora")
    for path in paths:
        call = json.loads(gzip.decompress(path.read_bytes()))
        hypotheses = [
            Hypothesis(name, tuple(Word(*word[:3]) for word in words), "en")
            for name, words in call["hypotheses"].items()
        ]

        assert harmless(hypotheses[:3], random.Random(1)) > 0
