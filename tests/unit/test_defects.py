"""What is left out of hypotheses before they are reconciled: loops, and hypotheses of a few words."""

import random

import pytest

from agents.text.defects import without_defects
from agents.text.reconcile import reconcile
from schemas.words import Hypothesis, Word

SAID = "the results of the third quarter were better than we had expected because of lower costs in most of our markets"


def heard(provider, text):
    return Hypothesis(provider, tuple(Word(word) for word in text.split()), language="en")


def texts(hypotheses):
    return [" ".join(word.text for word in hypothesis.words) for hypothesis in hypotheses]


@pytest.mark.parametrize(
    ("unit", "times"),
    [("no", 9), ("thank you", 6), ("I use it", 5), ("and so we will", 5), ("year on a year on", 4), (SAID, 3)],
)
def test_a_loop_is_reduced_to_its_first_repetition_with_a_note(unit, times):
    looping = heard("a", f"{SAID} {' '.join([unit] * times)} goodbye")
    kept, notes = without_defects([looping, heard("b", f"{SAID} goodbye")])

    assert texts(kept) == [f"{SAID} {unit} goodbye" if unit != SAID else f"{SAID} goodbye", f"{SAID} goodbye"]
    assert notes[0].startswith("a repeats itself:")


@pytest.mark.parametrize(("unit", "times"), [("no", 8), ("thank you", 5), ("I use it", 4), ("how are you doing", 2)])
def test_what_people_repeat_stays(unit, times):
    both = [heard(name, f"{SAID} {' '.join([unit] * times)} goodbye") for name in ("a", "b")]

    assert without_defects([both[0], heard("b", SAID)]) == ([both[0], heard("b", SAID)], [])


def test_punctuation_and_case_do_not_hide_a_loop():
    kept, _ = without_defects([heard("a", f"{SAID} {'Thank you. thank You, ' * 4}")])

    assert texts(kept) == [f"{SAID} Thank you."]


def test_a_loop_that_two_recognizers_have_was_said():
    song = " ".join(["la"] * 12)
    both = [heard(name, f"{SAID} {song}") for name in ("a", "b")]

    assert without_defects(both) == (both, [])


def test_a_hypothesis_of_a_tenth_of_the_length_is_left_out_with_a_note():
    whole = heard("a", " ".join(f"{SAID} {n}" for n in range(6)))
    result = reconcile([whole, heard("b", "you")])

    assert result.text == " ".join(word.text for word in whole.words)
    assert result.providers == ("a",)
    assert result.method == "single"
    assert any(note.startswith("b is left out: it has 1 words") for note in result.notes)


def test_short_recordings_and_empty_hypotheses_are_compared():
    both = [heard("a", "hello how are you"), heard("b", "")]

    assert without_defects(both) == (both, [])


@pytest.mark.slow
def test_hostile_repetition_ends_soon():
    words = "a b a b b a a b c".split()
    pick = random.Random(1)
    for text in (" ".join(["no"] * 100_000), " ".join(pick.choice(words) for _ in range(100_000))):
        kept, _ = without_defects([heard("a", text)])

        assert len(kept) == 1
