"""Digits on which recognizers agree are reconciled once and whole, however each of them writes them."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.text.alignment.divisions import Range, joined
from agents.text.normalisation.normalise import Tokens, tokenise
from agents.text.reconcile import reconcile
from schemas.words import Hypothesis, Word
from tests.examples import examples

NAMES = "zero one two three four five six seven eight nine".split()


def chunks(digits, size):
    return [digits[at : at + size] for at in range(0, len(digits), size)]


#: How recognizers write a sequence of digits: (words, how many digits each stands for).
STYLES = {
    "words": lambda digits: [(NAMES[int(d)], 1) for d in digits],
    "oh": lambda digits: [("oh" if d == "0" else NAMES[int(d)], 1) for d in digits],
    "figures": lambda digits: [*((f"{d},", 1) for d in digits[:-1]), (f"{digits[-1]}.", 1)],
    "spaced": lambda digits: [(d, 1) for d in digits],
    "one": lambda digits: [(f"{digits}.", len(digits))],
    "pairs": lambda digits: [(pair, len(pair)) for pair in chunks(digits, 2)],
    "threes": lambda digits: [(part, len(part)) for part in chunks(digits, 3)],
    "hyphens": lambda digits: [("-".join(digits) + ".", len(digits))],
    "telephone": lambda digits: [("-".join(chunks(digits, 3)), len(digits))],
    "dots": lambda digits: [(".".join(chunks(digits, 3 if len(digits) > 6 else 1)), len(digits))],
    "brackets": lambda digits: [(f"({digits[:3]})", 3), (digits[3:] or "0", max(1, len(digits) - 3))],
}


def heard(provider, digits, style, *, timed=True, filler=False):
    """A sentence with the digits in it, in this style; each word as long as its digits."""
    words, at = [], 0
    number = STYLES[style](digits)
    if filler:
        number.insert(1, ("uh", 0))
    for text, size in [
        *((w, 1) for w in "my account number is".split()),
        *number,
        *((w, 1) for w in "is that right".split()),
    ]:
        words.append(Word(text, at if timed else None, at + 300 * size if timed else None, 0.9))
        at += 350 * size
    return Hypothesis(provider, tuple(words), language="en")


def said(text):
    """The digits in a text, however written; "oh" among them is zero."""
    names = {**{name: str(n) for n, name in enumerate(NAMES)}, "oh": "0"}
    return "".join(names.get(word, word if word.isdigit() else "") for word in re.findall(r"[a-z]+|\d+", text.lower()))


sequences = st.text("0123456789", min_size=4, max_size=11)
styles = st.sampled_from(sorted(STYLES))


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(sorted(STYLES), 2)])
def test_two_spellings_of_the_same_digits(one, other):
    for digits in ("4711", "12345", "9000", "5551234567", "0011"):
        result = reconcile([heard("a", digits, one), heard("b", digits, other)]).text

        assert said(result) == digits, result


@settings(max_examples=examples(60), deadline=None)
@given(sequences, st.lists(styles, min_size=2, max_size=4), st.booleans(), st.booleans())
def test_any_digits_in_any_spellings_with_and_without_times_and_fillers(digits, spellings, timed, filler):
    hypotheses = [
        heard(f"r{n}", digits, style, timed=timed, filler=filler and n == 0) for n, style in enumerate(spellings)
    ]

    assert said(reconcile(hypotheses).text) == digits


def test_the_result_is_in_the_spelling_of_one_recognizer():
    result = reconcile([heard("a", "4711", "figures"), heard("b", "4711", "words")])

    assert result.text in {
        "my account number is 4, 7, 1, 1. is that right",
        "my account number is four seven one one is that right",
    }


def test_a_digit_that_one_recognizer_misheard_does_not_mix_the_spellings():
    result = reconcile([heard("a", "4711", "spaced"), heard("b", "4712", "one")])

    assert said(result.text) in {"4711", "4712"}


def test_numbers_that_only_one_recognizer_heard_stay_divided_as_they_are():
    result = reconcile([heard("a", "4711", "spaced"), Hypothesis("b", heard("b", "1", "one").words[:4], language="en")])

    assert len(result.decisions) == 4 + 4 + 3


def test_joining_takes_whole_words():
    """A word that holds two tokens is not cut: its other token stays in its group."""
    tokens = tokenise("it's 4 7 11 o'clock 12-K".split())

    together = joined(tokens, [Range(2, 5, "4711")])

    assert together.keys[:4] == ["it", "is", "4711", *tokens.keys[5:6]]
    assert together.first_word[:3] == [0, 1, 4]
    assert Tokens(tokens.keys, tokens.group, tokens.first_word) == joined(tokens, [])
