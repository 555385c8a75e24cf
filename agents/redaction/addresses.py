"""Finds postal addresses: a number with a street, what follows them, postal codes and boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words

_UK_OUTER: Final = re.compile(r"[a-z]{1,2}\d[a-z\d]?\Z")
_UK_INNER: Final = re.compile(r"\d[a-z]{2}\Z")
_UK: Final = re.compile(r"[a-z]{1,2}\d[a-z\d]?\d[a-z]{2}\Z")

#: Words of a street's name and of a house's number, and words behind the street among which a state is looked for.
_MOST_STREET, _MOST_NUMBER, _MOST_CITY = 3, 6, 7

#: Digits of a house's number.
_HOUSE = 6


def addresses(words: Words) -> Iterator[Finding]:
    """The addresses of a language in which the house's number is before the street's name."""
    language = words.vocabulary
    if language.street_layout != "number name type":
        return
    for at, word in enumerate(words.plain):
        if word in language.streets and (start := _street(words, at)) is not None:
            yield Finding(start, _tail(words, at + 1), "address", rank=2)
        elif word in language.postal and (code := _code_after(words, at + 1)):
            yield Finding(*code, "address", rank=2)
        elif _is_uk(words, at):
            yield Finding(at, at + (1 if _UK.match(word) else 2), "address", rank=2)
        elif word == "box" and at and words.plain[at - 1] in ("o", "po", "p.o", "office"):
            yield Finding(at - 1, _tail(words, _digits_end(words, at + 1)), "address", rank=2)


def _is_uk(words: Words, at: int) -> bool:
    plain = words.plain
    pair = at + 1 < len(plain) and _UK_OUTER.match(plain[at]) and _UK_INNER.match(plain[at + 1])
    return bool(pair or (_UK.match(plain[at]) and len(plain[at]) > 4))


def _street(words: Words, at: int) -> int | None:
    """Where the address begins whose street ends with this word: at the house's number."""
    start = at
    while start > 0 and at - start < _MOST_STREET and _names_street(words, start - 1):
        start -= 1
    if start == at:
        return None
    for begin in range(start, at):  # "forty second street": the ordinal may be the street's
        house = _house(words, begin)
        if house < begin:
            return house
    return None


def _names_street(words: Words, at: int) -> bool:
    language, word, one = words.vocabulary, words.plain[at], words.symbols[at]
    if language.street_ordinals.match(word) or word in language.directions:
        return True
    if (
        one.role in ("digits", "tens", "hundred", "filler", "repeat")
        or not word
        or word in language.function_words - language.in_streets
    ):
        return False
    return word not in language.units and (words.is_capital(at) or not words.is_cased or word == "of")


def _house(words: Words, end: int) -> int:
    """Where the number begins that ends before this word."""
    start, digits = end, 0
    while start > 0 and end - start < _MOST_NUMBER:
        one = words.symbols[start - 1]
        if one.role not in ("digits", "tens", "hundred", "repeat"):
            break
        digits += max(len(one.chars), 1)
        start -= 1
    return start if 0 < digits <= _HOUSE else end


def _tail(words: Words, at: int) -> int:
    """The index after what belongs to the address behind the street: a part of the house, the city, the state, the
    postal code.
    """
    plain, language = words.plain, words.vocabulary
    if at < len(plain) and plain[at] in language.directions and words.is_capital(at):
        at += 1
    if at < len(plain) and plain[at] in language.homes:
        at = max(_digits_end(words, at + 1), at + 2)
    for state in range(at, min(at + _MOST_CITY, len(plain))):
        if length := _state(words, state):
            at = state + length
            break
    else:
        at = _city(words, at)
    end = _digits_end(words, at)
    code = "".join(one.chars for one in words.symbols[at:end])
    return min(end if len(code) > 1 else at, len(plain))


def _state(words: Words, at: int) -> int:
    """The number of words of a state's name; 0 if there is none."""
    if " ".join(words.plain[at : at + 2]) in words.vocabulary.states:
        return 2
    text = words.texts[at].strip(".,;:?!")
    is_before_code = at + 1 < len(words.plain) and words.symbols[at + 1].role in ("digits", "tens")
    is_code = text in words.vocabulary.state_codes or (is_before_code and text.upper() in words.vocabulary.state_codes)
    return int(words.plain[at] in words.vocabulary.states or is_code)


def _city(words: Words, at: int) -> int:
    """The index after a city that follows, where capitals tell."""
    plain = words.plain
    begin = at + (at < len(plain) and plain[at] == "in")
    end = begin
    while (
        words.is_cased
        and end < min(begin + 3, len(plain))
        and words.is_capital(end)
        and plain[end] not in words.vocabulary.function_words
        and (end == at or not words.ends_sentence(end - 1))
        and not words.ends_sentence(at - 1)
    ):
        end += 1
    return end if end > begin else at


def _digits_end(words: Words, at: int) -> int:
    """The index after the digits, and single letters, that begin here."""
    while at < len(words.plain) and (
        words.symbols[at].chars or words.symbols[at].role in ("tens", "hundred", "repeat")
    ):
        at += 1
    return at


def _code_after(words: Words, at: int) -> tuple[int, int] | None:
    """The postal code that follows within some words."""
    for start in range(at, min(at + 4, len(words.plain))):
        if words.symbols[start].chars and words.plain[start] not in ("a", "i"):
            return start, _digits_end(words, start)
    return None
