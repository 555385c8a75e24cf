"""Finds written IBANs, in which the letters of a bank may be a word of their own: "GB39 NWBK 8927 7025 9429 90"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words
from agents.redaction.numbers import is_iban

_BEGINS: Final = re.compile(r"[a-z]{2}\d{2}[a-z0-9]{0,4}\Z")
_GOES_ON: Final = re.compile(r"[a-z0-9]{1,4}\Z")

#: Characters of an IBAN (ISO 13616).
_SHORTEST, _LONGEST = 15, 34


def ibans(words: Words) -> Iterator[Finding]:
    """The IBANs whose groups are words. Others are found as any code is."""
    for at, word in enumerate(words.plain):
        if _BEGINS.match(word) and (end := _end(words, at)):
            yield Finding(at, end, "iban", rank=2)


def _end(words: Words, start: int) -> int:
    """The index after an IBAN that begins here; 0 if there is none. The check digits tell where it ends; where they
    are wrong, the last group with a digit.
    """
    code, last = words.plain[start], 0
    for at in range(start + 1, len(words.plain)):
        word = words.plain[at]
        if not _GOES_ON.match(word) or len(code) + len(word) > _LONGEST:
            break
        code += word
        if len(code) >= _SHORTEST and is_iban(code.upper()):
            return at + 1
        if word[-1].isdigit() and len(code) >= _SHORTEST and sum(map(str.isdigit, code)) >= len(code) // 2:
            last = at + 1
    return last
