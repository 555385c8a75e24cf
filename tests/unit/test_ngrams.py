"""Models of words in a row: probabilities, backing off, and what a file keeps of them."""

import numpy as np
import pytest

from agents.text.calibration.ngrams import NGrams, quantised

#: Of the words a, b and c: "a b" and "b c" follow each other, and "a b c" does.
MODEL = NGrams(
    ("a", "b", "c"),
    quantised([-1.0, -1.2, -1.4]),
    quantised([-0.4, -0.2, 0.0]),
    np.array([0 * 3 + 1, 1 * 3 + 2]),
    quantised([-0.2, -0.6]),
    quantised([-0.08, 0.0]),
    np.array([(0 * 3 + 1) * 3 + 2]),
    quantised([-0.12]),
    -2.0,
)


def score(model, *words, rare=-6.0):
    a, b, c = (model.ids([word]) for word in words)
    return float(model.score(a, b, c, np.array([rare], dtype=np.float32))[0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("a", "b", "c"), -0.12),  # three in a row are known
        (("c", "b", "c"), -0.6),  # two are; nothing is known of "c b"
        (("x", "a", "b"), -0.2),
        (("a", "b", "a"), -0.08 - 0.2 - 1.0),  # none are: both contexts are backed off
        (("x", "x", "a"), -1.0),
        (("a", "b", "x"), -0.08 - 0.2 - 6.0 - 2.0),
    ],
)
def test_a_word_after_two_others(words, expected):
    assert score(MODEL, *words) == pytest.approx(expected, abs=0.03)


def test_an_empty_model_knows_how_rare_a_word_is():
    assert score(NGrams(), "a", "b", "c", rare=-4.0) == -4.0


def test_the_words_of_a_file_are_those_of_the_model():
    copy = NGrams.from_arrays("x", MODEL.arrays("x"))

    assert copy.words == MODEL.words
    assert np.array_equal(copy.pairs, MODEL.pairs)
    assert np.array_equal(copy.triples, MODEL.triples)
    assert score(copy, "a", "b", "c") == score(MODEL, "a", "b", "c")


def test_logarithms_that_are_kept_in_a_byte_have_an_error_of_two_hundredths():
    values = np.linspace(-10, 0, 997)

    assert np.abs(quantised(values) / -25.0 - values).max() <= 0.0201
