"""A recognizer's confidences count as far as they prove to mean something in the recording."""

import random

import numpy as np
import pytest

from agents.text.alignment.build import build
from agents.text.calibration.confidences import MOST, MOST_TRUST, TRUST, shifts
from schemas.words import Hypothesis, Word

WORDS = 2000
#: Confidences of words that are right and of words that are wrong.
SURE, UNSURE = 0.95, 0.4


def recording(confidence):
    """Two hypotheses, of which the first has an error in every tenth word, with a confidence by whether it is one."""
    random.seed(1)
    said = [f"w{n}" for n in range(WORDS)]
    wrong = [n % 10 == 5 for n in range(WORDS)]
    first = [Word(f"x{n}" if wrong[n] else said[n], None, None, confidence(wrong[n])) for n in range(WORDS)]
    return build([Hypothesis("a", tuple(first), "en"), Hypothesis("b", tuple(map(Word, said)), "en")])


def spread(confidence):
    """How far a sure and an unsure word of the first recognizer are moved apart."""
    network = recording(confidence)
    moved = shifts(network)
    mine = next(k for k, column in enumerate(network.columns) if column.hypothesis.provider == "a")
    assert np.isnan(moved[:, 1 - mine]).all()
    known = moved[~np.isnan(moved[:, mine]), mine]
    return known.max() - known.min()


def logit(p):
    return np.log(p / (1 - p))


def test_confidences_that_tell_right_from_wrong_count_more_than_is_assumed():
    assert spread(lambda bad: UNSURE if bad else SURE) > 1.3 * TRUST * (logit(SURE) - logit(UNSURE))


def test_confidences_that_tell_nothing_hardly_count():
    assert spread(lambda _: random.choice((SURE, UNSURE))) < 0.4 * TRUST * (logit(SURE) - logit(UNSURE))


def test_confidences_that_tell_the_contrary_do_not_count():
    assert spread(lambda bad: SURE if bad else UNSURE) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_extreme_confidences_are_bounded(confidence):
    assert spread(lambda bad: 1 - confidence if bad else confidence) <= 2 * MOST * MOST_TRUST
