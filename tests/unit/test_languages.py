"""Calls in other languages than English, as two recognizers heard them, are reconciled: see `tests/data/languages`."""

import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from agents.text.reconcile import reconcile
from agents.text.score import score, words
from schemas.texts import is_unspaced, joined
from schemas.words import Hypothesis, Word

pytestmark = pytest.mark.slow

FILES = sorted((Path(__file__).parents[1] / "data" / "languages").glob("??-*.json"))
#: Those in which Whisper base makes out what the voices say.
UNDERSTOOD = [path for path in FILES if path.name[:2] not in {"hi", "ar"} and "drawn" not in path.name]


def load(path):
    data = json.loads(path.read_text())
    hypotheses = [
        Hypothesis(name, tuple(Word(*word) for word in heard), data["language"])
        for name, heard in data["hypotheses"].items()
    ]
    return data, hypotheses


def errors(path):
    """Of each recognizer, and of the result."""
    data, hypotheses = load(path)
    texts = [joined(word.text for word in h.words) for h in hypotheses] + [reconcile(hypotheses).text]
    return [score(data["reference"], text, split=partial(words, language=data["language"])).errors for text in texts]


def test_all_seven_languages_are_there():
    assert {path.name[:2] for path in FILES} == {"de", "fr", "es", "hi", "ar", "ja", "zh"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_word_is_a_recognizers_and_no_character_is_torn_from_its_neighbour(path):
    data, hypotheses = load(path)
    result = reconcile(hypotheses)
    spellings = {word.text for hypothesis in hypotheses for word in hypothesis.words}

    assert {word.text for word in result.words} <= spellings
    if data["language"] in {"zh", "ja"}:
        pieces = result.text.split(" ")
        assert not [1 for left, right in pairwise(pieces) if is_unspaced(left[-1:]) and is_unspaced(right[:1])]


@pytest.mark.parametrize(
    ("languages", "calls", "most"),
    [({"de", "fr", "es"}, 9, 0.99), ({"zh", "ja"}, 6, 1.01)],
    ids=["German, French and Spanish", "Chinese and Japanese"],
)
def test_over_the_calls_that_are_understood_the_result_is_as_good_as_the_better_recognizer_of_each(
    languages, calls, most
):
    counts = [errors(path) for path in UNDERSTOOD if path.name[:2] in languages]

    assert len(counts) == calls
    assert sum(result for *_, result in counts) <= most * sum(min(one, other) for one, other, _ in counts)
