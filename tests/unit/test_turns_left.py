"""What is left of one recognizer's turns in a redacted transcript."""

from __future__ import annotations

import pytest

from agents.redaction.redact import redacted, turns_left
from agents.text.reconcile import reconcile
from schemas.events.conversation import AGENT
from schemas.words import Hypothesis, Word


def agent(*turns):
    """What an agent has understood, without times, and how many words each turn has."""
    words = tuple(Word(word, None, None, speaker=speaker) for speaker, said in turns for word in said.split())
    return Hypothesis(AGENT, words, "en"), [len(said.split()) for _, said in turns]


def heard(name, said):
    words = tuple(Word(word, 400 * n, 400 * n + 300, 0.9) for n, word in enumerate(said.split()))
    return Hypothesis(name, words, "en", None, 0.9)


def left(turns, *others):
    hypothesis, counts = agent(*turns)
    decided = reconcile([hypothesis, *(heard(f"r{n}", said) for n, said in enumerate(others))])
    return turns_left(hypothesis, counts, decided.decisions, redacted(decided).reconciliation.decisions)


TURNS = (
    ("AI", "Good morning, how can I help you?"),
    ("AI", "Hello?"),
    ("User", "My card is 4539 1488 0343 6467 and it expires soon."),
    ("User", "Help me, please."),
)
LEFT = [
    ("AI", "Good morning, how can I help you?"),
    ("AI", "Hello?"),
    ("User", "My card is [CARD] and it expires soon."),
    ("User", "Help me, please."),
]


def test_turns_stay_what_they_were():
    assert left(TURNS) == LEFT


def test_turns_stay_what_they_were_beside_recognizers_that_hear_other_words():
    other = (
        "good morning how can I help you hello my card is four five three nine one four eight eight "
        "oh three four three six four six seven and it expires very soon help me please"
    )
    read = left(TURNS, other, other)

    assert [speaker for speaker, _ in read] == ["AI", "AI", "User", "User"]
    assert read[1][1].casefold().startswith("hello")
    assert "[CARD]" in read[2][1]
    assert not any(character.isdigit() for _, said in read for character in said)


@pytest.mark.parametrize("turns", [(), (("AI", "..."),), (("User", "4539 1488 0343 6467"),)])
def test_little_is_left_of_little(turns):
    assert all("4539" not in said for _, said in left(turns)) if turns else left(turns) == []
