"""What a speaker sounds like, and whose known voice that is."""

from __future__ import annotations

import numpy as np

from agents.text.speakers.prints import VoicePrint, likenesses
from agents.voices.windows import owners, range_db, selected, share


def a_print(*numbers: float, model: str = "m") -> VoicePrint:
    unit = np.array(numbers, dtype="<f4") / np.linalg.norm(numbers)
    return VoicePrint(model, unit.astype("<f4").tobytes(), 20.0)


def like(similarity: float) -> VoicePrint:
    """A print of which the cosine with (1, 0, 0) is this."""
    return a_print(similarity, np.sqrt(1 - similarity**2), 0)


ANN, BOB = a_print(1, 0, 0), a_print(0, 0, 1)


def test_the_nearest_name_is_suggested_if_it_is_near_enough():
    known = [("Ann", ANN), ("Bob", BOB), ("Zoë", a_print(0, 1, 0))]
    found = likenesses({"A": like(0.99), "B": a_print(1, 1, 1), "C": BOB}, known)

    assert {speaker: (one.name, one.similarity) for speaker, one in found.items()} == {
        "A": ("Ann", 0.99),
        "C": ("Bob", 1.0),
    }


def test_two_speakers_do_not_get_one_name():
    found = likenesses({"A": like(0.95), "B": like(0.97)}, [("Ann", ANN)])

    assert {speaker: one.name for speaker, one in found.items()} == {"B": "Ann"}


def test_a_name_may_stand_for_several_people():
    found = likenesses({"A": BOB}, [("Agent", ANN), ("Agent", BOB)])

    assert found["A"].name == "Agent"


def test_prints_of_another_model_are_not_compared():
    assert likenesses({"A": ANN}, [("Ann", a_print(1, 0, 0, model="another")), ("Ann", a_print(1, 0))]) == {}
    assert likenesses({}, [("Ann", ANN)]) == likenesses({"A": ANN}, []) == {}


def test_the_share_of_a_window_in_which_somebody_speaks():
    middles = np.array([0, 800, 1600, 2400, 9000])

    assert share([(0, 800), (1600, 2400)], middles).round(3).tolist() == [0.5, 0.5, 0.5, 0.5, 0.0]
    assert share([], middles).tolist() == [0.0] * 5


def test_a_window_belongs_to_who_speaks_alone_in_it():
    speech = {"A": [(0, 4000)], "B": [(3500, 8000)], "C": []}

    assert owners(speech, np.array([800, 2500, 3700, 5000, 20_000])) == ["A", "A", None, "B", None]
    assert owners({}, np.array([800])) == [None]


def test_noise_takes_the_range_from_the_quiet_to_the_loud():
    loud, quiet = np.full(50, 1.0), np.full(50, 1e-4)

    assert range_db([loud, quiet]) > 39
    assert range_db([loud + 0.1, quiet + 0.1]) < 11
    assert range_db([np.zeros(9)]) == 0


def test_the_longest_turns_are_listened_to_and_no_more_than_a_minute():
    turns = [(0, 20_000), (30_000, 31_000), (40_000, 70_000), (80_000, 95_000)]

    assert selected(turns) == [(0, 20_000), (40_000, 70_000), (80_000, 90_000)]
    assert selected([(0, 600_000)]) == [(0, 60_000)]
    assert selected([]) == []
