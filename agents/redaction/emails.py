"""Finds e-mail addresses, written or spoken: "john dot smith at example dot com", with spelled letters and digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words

_WRITTEN: Final = re.compile(r"[\w.+%'-]+@[\w-]+(\.[\w-]+)*\.?", re.UNICODE)
_DOTTED: Final = re.compile(r"[\w-]+(\.[\w-]+)*\.([a-z]{2,10})")

#: Characters of a word that is searched; a longer one with an "@" is taken for an address.
_LONGEST: Final = 400

#: Words of a domain, and words before an "at" that may be one unspelled name.
_MOST_DOMAIN, _MOST_NAME = 6, 2


def emails(words: Words) -> Iterator[Finding]:
    """The addresses."""
    language = words.vocabulary
    for at, text in enumerate(words.texts):
        if "@" in text and (len(text) > _LONGEST or _WRITTEN.search(text)):
            yield Finding(at, at + 1, "email", rank=1)
        elif (
            words.plain[at] in language.at
            and words.plain[at - 1] not in language.pages
            and (end := _domain(words, at + 1))
        ):
            start = _local(words, at)
            if start < at:
                yield Finding(start, end, "email", rank=1)


def _domain(words: Words, start: int) -> int:
    """The index after the domain that begins here; 0 if there is none."""
    plain, language, end = words.plain, words.vocabulary, 0
    if start < len(plain) and (match := _DOTTED.fullmatch(plain[start])) and match[2] in language.endings:
        return start + 1
    if start < len(plain) and plain[start] in language.post:
        end = start + 1
    for at in range(start, min(start + _MOST_DOMAIN, len(plain) - 1)):
        if at > start and words.ends_sentence(at - 1) and plain[at - 1] not in language.dots:
            break
        if plain[at] in language.dots and at > start and plain[at + 1] in language.endings:
            end = at + 2
    return end


def _is_letter(words: Words, at: int) -> bool:
    """Whether a letter that is a word elsewhere is one of several that are said here ("v i l l a arroba")."""
    near = [words.plain[one] for one in (at - 1, at + 1) if 0 <= one < len(words.plain)]
    return words.plain[at] in words.vocabulary.joining_letters and any(len(one) == 1 for one in near)


def _local(words: Words, at: int) -> int:
    """Where the part before the "at" begins: everything that is joined, spelled, or said as digits; otherwise some
    words that are not of the sentence.
    """
    language, start, names = words.vocabulary, at, 0
    while start > 0:
        before = words.plain[start - 1]
        symbol = words.symbols[start - 1]
        if before in language.joiners:
            start -= 1
            names = 0
        elif start < at and words.plain[start] in language.joiners and before:
            start -= 1
            names = 1
        elif symbol.chars or symbol.role in ("tens", "repeat", "part") or _is_letter(words, start - 1):
            start -= 1
        elif (
            names < _MOST_NAME
            and before
            and before not in language.function_words
            and not words.ends_sentence(start - 1)
        ):
            start -= 1
            names += 1
        else:
            break
    while start < at and words.plain[start] in language.joiners:
        start += 1
    return start
