"""Finds e-mail addresses, written or spoken: "john dot smith at example dot com", with spelled letters and digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words
from agents.redaction.vocabulary import FUNCTION_WORDS

_WRITTEN: Final = re.compile(r"[\w.+%'-]+@[\w-]+(\.[\w-]+)*\.?", re.UNICODE)
_DOTTED: Final = re.compile(r"[\w-]+(\.[\w-]+)*\.([a-z]{2,10})")

_JOINERS: Final = frozenset("dot point period underscore dash hyphen plus minus score".split())

#: Words before an "at" that name a page, not a person: "our website at example.com".
_PAGES: Final = frozenset("website webpage page site web online visit visiting available".split())

#: Words that end a domain, when they are said after a dot.
_ENDINGS: Final = frozenset(
    "com org net edu gov co uk us ca de fr es it io info biz ai au nl ch at eu ie nz in tv me app dev".split()
)

#: Where people have addresses whose ending goes without saying.
_POST: Final = frozenset(("gmail", "hotmail", "icloud"))

#: Characters of a word that is searched; a longer one with an "@" is taken for an address.
_LONGEST: Final = 400

#: Words of a domain, and words before an "at" that may be one unspelled name.
_MOST_DOMAIN, _MOST_NAME = 6, 2


def emails(words: Words) -> Iterator[Finding]:
    """The addresses."""
    for at, text in enumerate(words.texts):
        if "@" in text and (len(text) > _LONGEST or _WRITTEN.search(text)):
            yield Finding(at, at + 1, "email", rank=1)
        elif words.plain[at] in ("at", "@") and words.plain[at - 1] not in _PAGES and (end := _domain(words, at + 1)):
            start = _local(words, at)
            if start < at:
                yield Finding(start, end, "email", rank=1)


def _domain(words: Words, start: int) -> int:
    """The index after the domain that begins here; 0 if there is none."""
    plain, end = words.plain, 0
    if start < len(plain) and (match := _DOTTED.fullmatch(plain[start])) and match[2] in _ENDINGS:
        return start + 1
    if start < len(plain) and plain[start] in _POST:
        end = start + 1
    for at in range(start, min(start + _MOST_DOMAIN, len(plain) - 1)):
        if at > start and words.ends_sentence(at - 1) and plain[at - 1] != "dot":
            break
        if plain[at] == "dot" and at > start and plain[at + 1] in _ENDINGS:
            end = at + 2
    return end


def _local(words: Words, at: int) -> int:
    """Where the part before the "at" begins: everything that is joined, spelled, or said as digits; otherwise some
    words that are not of the sentence.
    """
    start, names = at, 0
    while start > 0:
        before = words.plain[start - 1]
        symbol = words.symbols[start - 1]
        if before in _JOINERS:
            start -= 1
            names = 0
        elif start < at and words.plain[start] in _JOINERS and before:
            start -= 1
            names = 1
        elif symbol.chars or symbol.role in ("tens", "repeat"):
            start -= 1
        elif names < _MOST_NAME and before and before not in FUNCTION_WORDS and not words.ends_sentence(start - 1):
            start -= 1
            names += 1
        else:
            break
    while start < at and words.plain[start] in _JOINERS:
        start += 1
    return start
