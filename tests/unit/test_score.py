"""Word error rates, trees and the calibration's file: small cases with known results."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from agents.text.calibration.calibrate import dump, load, shipped
from agents.text.calibration.ngrams import NGrams
from agents.text.calibration.trees import Tree, Trees
from agents.text.normalisation.sound import sound
from agents.text.score import Score, bootstrap, interval, pooled, score


def test_errors_are_counted_by_kind():
    found = score("the cat sat on the mat by the door", "the hat sat on mat by the big door")

    assert (found.substitutions, found.insertions, found.deletions, found.words) == (1, 1, 1, 9)
    assert found.rate == pytest.approx(1 / 3)


def test_fillers_case_and_spelling_do_not_count():
    assert score("Um, I can't see the colour.", "i can not see the color").errors == 0


def test_an_empty_reference_has_a_rate_all_the_same():
    assert score("", "").rate == 0
    assert score("", "word").rate == 1


def test_scores_add_up_and_name_their_normaliser():
    whole = pooled([score("a b", "a c"), score("a b c d", "a b c d")])

    assert (whole.errors, whole.words) == (1, 6)
    assert "Whisper" in whole.normaliser


def test_another_normaliser_can_be_named():
    found = score("Mat", "mat", str.split, "none")

    assert (found.errors, found.normaliser) == (1, "none")


def test_an_interval_holds_the_rate_and_is_repeatable():
    scores = [Score(i % 5, 0, 0, 50) for i in range(40)]
    low, high = interval(scores)

    assert low < pooled(scores).rate < high
    assert interval(scores) == (low, high)
    assert bootstrap(lambda draw: 1.0, 3) == (1.0, 1.0)


def test_words_that_sound_alike_share_a_key():
    assert sound("night") == sound("nite")
    assert sound("phone") == sound("fone")
    assert sound("cat") != sound("mat")


def trees():
    """A tree. Value 0 up to 0.5: leaf -1; else by value 1: up to 2: leaf 0, else leaf 3."""
    tree = Tree(
        np.array([0, 1]),
        np.array([0.5, 2.0], dtype=np.float32),
        np.array([0xFFFFFFFE, 0xFFFFFFFD], dtype=np.uint32),
        np.array([-1.0, 0.0, 3.0], dtype=np.float32),
    )
    return Trees(0.0, (tree,))


def test_a_tree_sends_each_row_to_its_leaf():
    rows = np.array([[0.0, 9.0], [1.0, 1.0], [1.0, 3.0], [np.nan, 3.0]], dtype=np.float32)

    odds = trees().probability(rows)

    assert np.log(odds / (1 - odds)) == pytest.approx([-1, 0, 3, -1])


def test_trees_survive_their_file():
    again = Trees.from_json(trees().to_json())

    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    assert again.probability(rows) == pytest.approx(trees().probability(rows))


def test_the_shipped_calibration_says_where_it_comes_from():
    assert shipped().provenance["command"]
    assert shipped().provenance["corpora"]


def first(table):
    return dict(islice(table.items(), 1000))


@pytest.mark.slow
def test_a_calibration_survives_its_file():
    """The shipped one, with a thousand entries of each of its tables of up to 100,000."""
    knowledge = shipped().knowledge
    words = {topic: first(table) for topic, table in knowledge.words.items()}
    few = replace(knowledge, frequency=first(knowledge.frequency), words=words, general=NGrams())
    calibration = replace(shipped(), knowledge=few)

    content = dump(calibration)
    assert dump(load(*content)) == content
