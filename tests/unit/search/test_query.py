"""How a question is read, and how lists are made one."""

from __future__ import annotations

import pytest

from agents.search.fusion import fused
from agents.search.query import terms
from schemas.errors import InvalidInput


def read(text):
    return [(term.text, term.kind, term.use) for term in terms(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("late invoice", [("late", "word", "may"), ("invoice", "word", "may")]),
        ('"net revenue" grew', [("net revenue", "phrase", "must"), ("grew", "word", "may")]),
        ("invo* -refund", [("invo", "prefix", "must"), ("refund", "word", "not")]),
        ('-"at all" a*', [("at all", "phrase", "not"), ("a*", "word", "may")]),
        ('"not closed', [("not closed", "phrase", "must")]),
        ("退款 now", [("退 款", "phrase", "may"), ("now", "word", "may")]),
        ('- "" "!" ?! *', []),
        ("twice twice", [("twice", "word", "may")]),
    ],
)
def test_a_question_is_read(text, parts):
    assert read(text) == parts


def test_rare_words_are_worth_more():
    weights = {term.text: term.weight for term in terms("what about the amoxicillin zzyx")}

    assert weights["the"] < weights["about"] < weights["amoxicillin"] <= weights["zzyx"]


def test_a_question_of_too_many_words_is_refused():
    with pytest.raises(InvalidInput, match="at most 32"):
        terms(" ".join(f"word{n}" for n in range(33)))


def test_what_several_lists_have_comes_first():
    a, b, c = (("j", 1, n) for n in range(3))
    ranked = fused({"text": [a, b], "vectors": [b, c]})

    assert [(one.key, one.found_by) for one in ranked] == [
        (b, ("text", "vectors")),
        (a, ("text",)),
        (c, ("vectors",)),
    ]
