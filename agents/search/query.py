"""Reads what people look for: words, "phrases", beginnings of words (`invo*`), and what is not wanted (`-refund`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agents.text.chunks.tokens import spaced
from agents.text.frequency import frequencies
from schemas.errors import InvalidInput
from sinks.ports.search.reads import Term

#: Terms of a question, at most: each is a look-up in an index, and costs a ranking of each passage.
MAX_TERMS: Final = 32

#: The shortest beginning of a word that is looked for: shorter ones are the beginning of a large part of all words.
SHORTEST_PREFIX: Final = 2

_PART: Final = re.compile(r'(?P<minus>-)?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')

#: Marks that mean something in a search, and nothing in a sentence.
_NO_WORD: Final = re.compile(r'["*]|(?<!\w)-')

#: Zipf frequencies (schemas of `agents.text.frequency`): of the commonest word, and that of a word that no list has.
_COMMONEST, _UNKNOWN = 8.0, 2.0


def terms(text: str, language: str = "en") -> list[Term]:
    """The terms of a question. Words may be there, and are worth more the rarer they are in the language; phrases must
    be there. If nothing but what is not wanted is left, nothing is found.

    Raises:
        InvalidInput: there are too many.
    """
    found = _read(text, language)
    if len(found) > MAX_TERMS:
        raise InvalidInput(f"q: use at most {MAX_TERMS} words and phrases")
    return found


def words(text: str, language: str = "en") -> list[Term]:
    """The rarest words of a text, all of which may be there: for questions in whole sentences."""
    found = [replace(term, use="may") for term in _read(_NO_WORD.sub(" ", text), language)]
    return sorted(found, key=lambda term: -term.weight)[:MAX_TERMS]


def _read(text: str, language: str) -> list[Term]:
    rates = frequencies(language)
    found = [term for match in _PART.finditer(text) if (term := _term(match, rates)) is not None]
    return list({(term.text, term.kind): term for term in found}.values())


def _term(match: re.Match[str], rates: Mapping[str, float]) -> Term | None:
    is_unwanted = bool(match["minus"])
    if match["phrase"] is not None:
        text = spaced(match["phrase"]).strip()
        return Term(text, "phrase", 5.0, "not" if is_unwanted else "must") if any(map(str.isalnum, text)) else None
    word = match["word"]
    if not any(map(str.isalnum, word)):
        return None
    parts = spaced(word)
    if word.endswith("*") and len(word.strip("*")) >= SHORTEST_PREFIX and parts == word:
        return Term(word.rstrip("*"), "prefix", 5.0, "not" if is_unwanted else "must")
    # Characters of a script without spaces are a word together.
    return Term(parts, "phrase" if parts != word else "word", _weight(word, rates), "not" if is_unwanted else "may")


def _weight(word: str, rates: Mapping[str, float]) -> float:
    plain = word.lower().strip(".,;:!?()'")
    return max(0.5, _COMMONEST - rates.get(plain, _UNKNOWN))
