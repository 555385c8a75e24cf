"""Finds dates of birth: a date after words such as "born"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words

#: Words behind the context within which the date begins.
_REACH: Final = 16


def birthdays(words: Words) -> Iterator[Finding]:
    """The dates of birth."""
    for at, word in enumerate(words.plain):
        if word.removesuffix("'s") in words.vocabulary.birth and (date := _date(words, at + 1)):
            yield Finding(*date, "date_of_birth", rank=2)


def _date(words: Words, begin: int) -> tuple[int, int] | None:
    """The first date behind the context."""
    for start in range(begin, min(begin + _REACH, len(words.plain))):
        if _is_part(words, start):
            end = _end(words, start)
            if _is_date(words, start, end):
                return start, end
    return None


def _end(words: Words, at: int) -> int:
    """The index after the parts of a date that begin here, without joining words at their end."""
    end = at
    while at < len(words.plain) and (_is_part(words, at) or words.plain[at] in words.vocabulary.in_dates):
        at += 1
        if _is_part(words, at - 1) or words.plain[at - 1] in words.vocabulary.large:
            end = at
    return end


def _is_part(words: Words, at: int) -> bool:
    one = words.symbols[at]
    return (
        one.plain in words.vocabulary.months
        or one.role in ("digits", "tens", "part")
        or words.vocabulary.ordinals.fullmatch(one.plain) is not None
        or re.fullmatch(r"\d+([-./]\d+)*", one.plain) is not None
    )


def _is_date(words: Words, start: int, end: int) -> bool:
    """A month, or figures enough for a year."""
    part = words.symbols[start:end]
    figures = sum(len(one.chars) or len(re.sub(r"\D", "", one.plain)) for one in part)
    return any(one.plain in words.vocabulary.months for one in part) or figures >= 4 or len(part) > 2
