"""What words contribute to numbers and codes: digits, letters, or nothing, written or spoken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from agents.redaction.languages.vocabulary import ENGLISH, HIDDEN, Vocabulary, folded
from schemas.accounts.redaction import PLACEHOLDER

#: What stands around a word in a transcript.
OUTER: Final = "\"'“”„«»\u2018\u2019()[]{}<>.,;:?!…¿¡"

Role = Literal["digits", "letters", "tens", "repeat", "hundred", "part", "filler", "other"]


@dataclass(frozen=True, slots=True)
class Symbol:
    """One word's contribution."""

    #: The word in lower case, without what stands around it.
    plain: str
    role: Role = "other"
    #: Digits and capital letters for which it stands.
    chars: str = ""
    #: Whether it is written as a figure, in one piece.
    is_written: bool = False


_QUANTITY: Final = re.compile(
    r"[-+]?[$£€¥]|.*[%$£€¥]$"  # money, shares
    r"|\d+[.,]\d+$"  # 12.5
    r"|\d{1,2}:\d{2}([-\u2013]\d{1,2}:\d{2})?$"  # times
    r"|[qh][1-4]$|fy\d{2,4}$",  # parts of years
    re.IGNORECASE,
)
_FIGURES: Final = re.compile(r"[+#(]?\d[\d\-\u2013/.():x ]*\Z")
_CODE: Final = re.compile(r"(?=.*\d)[a-z0-9]+([-/.][a-z0-9]+)*\Z")
_SPELLED: Final = re.compile(r"[a-z0-9]([-.][a-z0-9])+\Z")


@lru_cache(8192)
def symbol(word: str, language: Vocabulary = ENGLISH) -> Symbol:
    """What a word contributes."""
    if PLACEHOLDER.match(word):
        return Symbol(HIDDEN)
    plain = language.without_article(word.strip(OUTER).lower())
    if not plain:
        return Symbol("", "filler")
    return _spoken(plain, language) or _written(plain, word, language)


def _spoken(plain: str, language: Vocabulary) -> Symbol | None:
    if digits := language.digits.get(plain) or language.number([plain]):
        return Symbol(plain, "digits", digits)
    if plain in language.tens:
        return Symbol(plain, "tens", language.tens[plain])
    if plain in language.repeats:
        return Symbol(plain, "repeat", str(language.repeats[plain]))
    if plain in language.hundred:
        return Symbol(plain, "hundred")
    first, hyphen, second = plain.partition("-")
    if hyphen and first in language.tens and second in language.digits and len(language.digits[second]) == 1:
        return Symbol(plain, "digits", language.tens[first] + language.digits[second])
    if plain in language.letters:
        return Symbol(plain, "letters", language.letters[plain])
    return Symbol(plain, "filler") if plain in language.fillers else None


def _written(plain: str, word: str, language: Vocabulary) -> Symbol:
    if plain in language.joining_letters:
        return Symbol(plain)
    if len(plain) == 1 and plain.isalpha():
        return Symbol(plain, "letters", plain.upper())
    # A stripped "(415)" is a number, a stripped "$5" is none.
    if _QUANTITY.match(plain) or _QUANTITY.match(word) or language.quantities.match(plain):
        return Symbol(plain)
    if _FIGURES.match(plain):
        return Symbol(plain, "digits", _alphanumeric(plain), is_written=True)
    if plain in language.abbreviations:
        return Symbol(plain)
    if _SPELLED.match(plain) or (_CODE.match(plain) and plain.isascii()):
        chars = _alphanumeric(plain)
        role: Role = "digits" if chars.isdigit() else "letters"
        return Symbol(plain, role, chars, is_written=True)
    return Symbol(plain)


def _alphanumeric(text: str) -> str:
    return "".join(c for c in text.upper() if c.isalnum() and c.isascii())


def numbered(symbols: list[Symbol], texts: Sequence[str], language: Vocabulary) -> list[Symbol]:
    """The same, where the last of several words that say one number has all its digits ("quatre-vingt dix")."""
    out = list(symbols)
    at = 0
    while at < len(symbols):
        end = _number_end(symbols, texts, at, language)
        if end > at + 1:
            digits = language.number(one.plain for one in symbols[at:end]) or ""
            out[at:end] = [*(Symbol(one.plain, "part") for one in symbols[at : end - 1]),
                           Symbol(symbols[end - 1].plain, "digits", digits)]  # fmt: skip
        at = max(end, at + 1)
    return out


def _number_end(symbols: list[Symbol], texts: Sequence[str], start: int, language: Vocabulary) -> int:
    """The index after the longest number that begins here and has several words; `start` if there is none."""
    if folded(symbols[start].plain).partition("-")[0] not in language.number_beginnings:
        return start
    most = start + 1
    while most < min(start + _MOST_WORDS, len(symbols)) and texts[most - 1][-1:] not in ",.;:?!":
        most += 1
    for end in range(most, start + 1, -1):
        if language.number(one.plain for one in symbols[start:end]) is not None:
            return end
    return start


#: Words of one number, at most: "mille neuf cent quatre-vingt dix-sept" has seven if none has a hyphen.
_MOST_WORDS: Final = 7


def spelled(symbols: list[Symbol], language: Vocabulary = ENGLISH) -> list[Symbol]:
    """The same, where words that only say which letter is meant ("b as in boy") add nothing to it."""
    out = list(symbols)
    for at, one in enumerate(symbols):
        for phrase in language.meaning if one.role == "letters" and len(one.chars) == 1 else ():
            end = at + 1 + len(phrase)
            is_said = end < len(symbols) and tuple(each.plain for each in symbols[at + 1 : end]) == phrase
            if is_said and symbols[end].plain[:1].upper() == one.chars:
                out[at + 1 : end + 1] = [
                    *(Symbol(word, "filler") for word in phrase),
                    Symbol(symbols[end].plain, "letters"),
                ]
    return out


def composed(symbols: list[Symbol]) -> str:
    """The digits and letters of consecutive words: "double four", "forty seven", "eight hundred" are 44, 47, 800."""
    return "".join(pieces(symbols))


def pieces(symbols: list[Symbol]) -> list[str]:
    """The same, as what each word adds; a word that is read with the next one adds nothing."""
    out: list[str] = []
    repeat, tens = 1, ""
    for number, one in enumerate(symbols):
        after = symbols[number + 1] if number + 1 < len(symbols) else None
        text = one.chars
        match one.role:
            case "repeat":
                repeat, text = int(one.chars), ""
            case "tens":
                joins = after is not None and after.role == "digits" and len(after.chars) == 1 and after.chars != "0"
                tens, text = (one.chars, "") if joins else ("", one.chars + "0")
            case "hundred":
                text = "00"
            case "digits" | "letters":
                text, tens, repeat = tens + text * repeat, "", 1
        out.append(text)
    return out
