"""What the word errors are that remain: which kinds of words, in the reference or wrongly in the transcript."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping

from rapidfuzz.distance import Levenshtein

from agents.text.score import words
from bench.corpora import Call

KINDS = ("answer", "number", "name", "common word", "other word")
#: Words that stand alone between turns, which references keep or leave out as their writers like.
ANSWERS = frozenset("yeah yes yep no ok okay right oh hi hello bye sure alright mm hmm mhm so and well thanks".split())
#: A word said more often than this (Zipf scale) is common: once in a thousand words.
COMMON = 6.0


def names(call: Call) -> frozenset[str]:
    """Words that the reference writes with a capital inside sentences, and never without."""
    inside, small, ended = set(), set(), True
    for text in call.reference.split():
        (inside if text[0].isupper() and not ended else set() if text[0].isupper() else small).add(text)
        ended = text[-1] in ".?!"
    return frozenset(words(" ".join(sorted(inside)))) - frozenset(words(" ".join(sorted(small)))) - {"i"}


def kind(word: str, named: frozenset[str], frequency: Mapping[str, float]) -> str:
    """One of KINDS."""
    if word in ANSWERS:
        return "answer"
    if any(map(str.isdigit, word)):
        return "number"
    if word in named:
        return "name"
    return "common word" if frequency.get(word, 0.0) >= COMMON else "other word"


def errors(
    said: array[int], heard: array[int], vocabulary: list[str], named: frozenset[str], frequency: Mapping[str, float]
) -> Counter[tuple[str, str]]:
    """(what happened, kind of word) of every error; of a wrong word, the kind of the right one."""
    count: Counter[tuple[str, str]] = Counter()
    for what, source, target in Levenshtein.editops(said, heard):
        word = vocabulary[heard[target] if what == "insert" else said[source]]
        count[what, kind(word, named, frequency)] += 1
    return count
