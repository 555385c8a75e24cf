"""What shows, without a reference, that one recognizer is better than another in a recording."""

import numpy as np
import pytest

from agents.text.alignment.build import build
from agents.text.calibration.calibrate import shipped
from agents.text.calibration.facts import View
from agents.text.calibration.standing import STANDING, reliability, standing
from agents.text.reconcile import reconcile
from schemas.words import Hypothesis, Word

SAID = """
thank you for calling the clinic how can I help you today I have had a headache for about two weeks now and it is
getting worse in the morning do you have any other symptoms no I do not think so I have been taking paracetamol
but it does not really help okay I would like to see you this afternoon if that is possible for you yes that would
be fine thank you very much see you later
""".split()
#: As a recognizer that spells by ear writes some of these words.
BY_EAR = {
    "calling": "kaling", "clinic": "klinick", "headache": "hedaik", "weeks": "weks", "worse": "wurse",
    "morning": "mawning", "symptoms": "simptums", "paracetamol": "parisitamol", "really": "reely", "later": "layta",
    "possible": "posibel", "afternoon": "afternune", "taking": "taykin", "fine": "fyne",
}  # fmt: skip


def heard(provider, words):
    return Hypothesis(provider, tuple(map(Word, words)), language="en")


GOOD = heard("one", SAID)
BAD = heard("two", [BY_EAR.get(word, word) for word in SAID])


def figures(*hypotheses):
    view = View(build(hypotheses), shipped().knowledge)
    slots = np.flatnonzero(~view.network.unanimous)
    path = np.zeros((len(slots), len(hypotheses)), dtype=np.float32)
    table = standing(view.network, view.language.zipf, (path, path), slots, np.zeros(len(hypotheses)))
    names = [column.hypothesis.provider for column in view.network.columns]
    return {name: dict(zip(STANDING, row.tolist(), strict=True)) for name, row in zip(names, table, strict=True)}


def test_words_that_are_in_no_vocabulary_show():
    found = figures(GOOD, BAD)

    assert found["two"]["unknown_disputed"] > 0.3 > found["one"]["unknown_disputed"]


def test_long_runs_that_one_recognizer_missed_show():
    found = figures(GOOD, heard("two", SAID[:20] + SAID[50:]))

    assert found["two"]["missed_in_runs"] > 0.2
    assert found["one"]["missed_in_runs"] == 0


def test_one_of_three_that_disagrees_with_the_others_has_the_least_weight():
    table = np.array([[1, 1, 2], [3, 3, 4], [5, 6, 5], [7, 7, 8], [9, 9, 10]] * 20)
    weight, together = reliability(table)

    assert weight.argmin() == 2
    assert together[0, 1] > together[0, 2]


@pytest.mark.parametrize("order", [1, -1])
def test_a_recognizer_that_spells_by_ear_changes_nothing(order):
    result = reconcile([GOOD, BAD][::order])

    assert result.text.split() == SAID


def test_a_stated_rate_and_a_family_give_a_record():
    knowledge = shipped().knowledge
    stated = knowledge.with_rates({"mine": 0.05, "theirs": 0.4})

    assert knowledge.past("mine") is None
    assert all(stated.past("mine")[kind] > stated.past("theirs")[kind] for kind in "sid")
    assert knowledge.past("whisper-base")["s"] > knowledge.past("whisper-tiny.en")["s"]


def test_the_stated_rates_decide_where_nothing_else_does():
    one, two = heard("mine", ["the", "blue", "house"]), heard("theirs", ["the", "red", "house"])
    better, worse = {"mine": 0.02, "theirs": 0.6}, {"mine": 0.6, "theirs": 0.02}

    def blue(rates):
        decisions = reconcile([one, two], shipped().with_rates(rates)).decisions
        readings = [reading for decision in decisions for reading in (decision.chosen, *decision.others)]
        return next(reading.probability for reading in readings if reading.text == "blue")

    assert blue(better) > blue(worse) + 0.1
