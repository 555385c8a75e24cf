"""Disputes of several words are taken from one recognizer, unless mixing surely pays."""

import numpy as np
import pytest

from agents.text.alignment.build import build
from agents.text.choose import choose
from agents.text.phrases import MARGIN, MARGIN_OF_SEVERAL, mixed, preferred
from schemas.words import Hypothesis, Word


def network(*texts):
    heard = [Hypothesis(f"r{n}", tuple(map(Word, text.split())), language="en") for n, text in enumerate(texts)]
    return build(heard)


#: Between words on which both agree, a dispute of two.
TWO = network("we met in silver lake on Monday", "we met in river bank on Monday")


def chances(odd):
    """Probabilities: the first column is right in the first disputed slot, and by `odd` less so in the second."""
    chance = np.full((len(TWO.grid), 2), 0.9)
    first, second = np.flatnonzero(~TWO.unanimous)
    chance[first] = 0.7, 0.3
    chance[second] = 0.5 - odd / 2, 0.5 + odd / 2
    return chance


def text(odd):
    decisions, chosen, _ = choose(TWO, chances(odd), preferred(TWO, chances(odd)))
    return " ".join(d.chosen.text for d in decisions if d.chosen.text), mixed(TWO, chosen)


def test_slots_of_a_dispute_are_decided_together_where_mixing_gains_little():
    words, disputes = text(MARGIN * 0.9)

    assert words in {"we met in silver lake on Monday", "we met in river bank on Monday"}
    assert disputes == (1, 0)


def test_slots_are_mixed_where_the_evidence_is_strong():
    words, disputes = text(MARGIN * 1.5)
    together = {"we met in silver lake on Monday", "we met in river bank on Monday"}

    assert words not in together
    assert disputes == (1, 1)


@pytest.mark.parametrize(("gain", "mixes"), [(MARGIN_OF_SEVERAL * 0.9, 0), (MARGIN_OF_SEVERAL * 1.5, 1)])
def test_more_than_two_recognizers_are_mixed_for_less(gain, mixes):
    three = network(*(f"we met in {place} on Monday" for place in ("silver lake", "river bank", "south hill")))
    chance = np.full((len(three.grid), 3), 0.9)
    first, second = np.flatnonzero(~three.unanimous)
    chance[first] = 0.4, 0.3, 0.2
    chance[second] = 0.3, 0.3 + gain, 0.2

    _, chosen, _ = choose(three, chance, preferred(three, chance))

    assert mixed(three, chosen) == (1, mixes)


def test_a_dispute_of_one_word_and_agreement_are_no_phrases():
    one = network("we met in May", "we met in June")

    assert not preferred(one, np.full((len(one.grid), 2), 0.5)).any()
    assert mixed(one, np.zeros(len(one.grid), dtype=int)) == (0, 0)


@pytest.mark.parametrize("texts", [("", ""), ("hello", "")])
def test_next_to_nothing_is_no_dispute_of_several_words(texts):
    empty = network(*texts)

    assert preferred(empty, np.zeros(empty.grid.shape)).shape == empty.grid.shape
