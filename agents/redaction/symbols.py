"""What words contribute to numbers and codes: digits, letters, or nothing, written or spoken in English."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from schemas.accounts.redaction import PLACEHOLDER

_DIGITS: Final = {
    word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine".split())
} | {"oh": "0", "o": "0", "nought": "0", "naught": "0", "niner": "9"}
_TEENS: Final = {
    word: str(value)
    for value, word in enumerate(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(), start=10
    )
}
TENS: Final = {
    word: str(value) for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_REPEATS: Final = {"double": 2, "triple": 3, "treble": 3, "quadruple": 4}
_ALPHABET: Final = frozenset(
    "alfa alpha bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa "
    "quebec romeo sierra tango uniform victor whiskey whisky xray x-ray yankee zulu".split()
)

#: Words that people say in the middle of a number.
FILLERS: Final = frozenset(
    "um uh er erm eh ah hmm mm mhm mmhmm mm-hmm uh-huh okay ok yes yeah yep right so then dash hyphen minus space "
    "slash comma pause sorry no wait got it alright sure again".split()
)

#: What stands around a word in a transcript.
OUTER: Final = "\"'“”\u2018\u2019()[]{}<>.,;:?!…"

Role = Literal["digits", "letters", "tens", "repeat", "hundred", "filler", "other"]


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
    r"|\d{1,3}(,\d{3})+(\.\d+)?$"  # 1,234,567
    r"|\d+[.,]\d+$"  # 12.5
    r"|\d{1,2}:\d{2}([-\u2013]\d{1,2}:\d{2})?$"  # times
    r"|[qh][1-4]$|fy\d{2,4}$"  # parts of years
    r"|\d+(st|nd|rd|th|s|k|m|bn|x|pm|am|mm|cm|kg|mg|ml|g|h)$",
    re.IGNORECASE,
)
_FIGURES: Final = re.compile(r"[+#(]?\d[\d\-\u2013/.():x ]*\Z")
_CODE: Final = re.compile(r"(?=.*\d)[a-z0-9]+([-/.][a-z0-9]+)*\Z")
_ABBREVIATIONS: Final = frozenset(("a.m", "p.m", "u.s", "u.k", "e.g", "i.e", "d.c", "p.o"))
_SPELLED: Final = re.compile(r"[a-z0-9]([-.][a-z0-9])+\Z")


@lru_cache(8192)
def symbol(word: str) -> Symbol:
    """What a word contributes."""
    if PLACEHOLDER.match(word):
        return Symbol("[]")
    plain = word.strip(OUTER).lower()
    if not plain:
        return Symbol("", "filler")
    return _spoken(plain) or _written(plain, word)


def _spoken(plain: str) -> Symbol | None:
    if plain in _DIGITS:
        return Symbol(plain, "digits", _DIGITS[plain])
    if plain in _TEENS:
        return Symbol(plain, "digits", _TEENS[plain])
    if plain in TENS:
        return Symbol(plain, "tens", TENS[plain])
    if plain in _REPEATS:
        return Symbol(plain, "repeat", str(_REPEATS[plain]))
    if plain == "hundred":
        return Symbol(plain, "hundred")
    first, hyphen, second = plain.partition("-")
    if hyphen and first in TENS and second in _DIGITS:
        return Symbol(plain, "digits", TENS[first] + _DIGITS[second])
    if plain in _ALPHABET:
        return Symbol(plain, "letters", plain[0].upper())
    return Symbol(plain, "filler") if plain in FILLERS else None


def _written(plain: str, word: str) -> Symbol:
    if len(plain) == 1 and plain.isalpha():
        return Symbol(plain, "letters", plain.upper())
    # A stripped "(415)" is a number, a stripped "$5" is none.
    if _QUANTITY.match(plain) or _QUANTITY.match(word):
        return Symbol(plain)
    if _FIGURES.match(plain):
        return Symbol(plain, "digits", _alphanumeric(plain), is_written=True)
    if plain in _ABBREVIATIONS:
        return Symbol(plain)
    if _SPELLED.match(plain) or (_CODE.match(plain) and plain.isascii()):
        chars = _alphanumeric(plain)
        role: Role = "digits" if chars.isdigit() else "letters"
        return Symbol(plain, role, chars, is_written=True)
    return Symbol(plain)


def _alphanumeric(text: str) -> str:
    return "".join(c for c in text.upper() if c.isalnum() and c.isascii())


def spelled(symbols: list[Symbol]) -> list[Symbol]:
    """The same, where words that only say which letter is meant ("b as in boy") add nothing to it."""
    out = list(symbols)
    for at, one in enumerate(symbols):
        for phrase in _MEANING if one.role == "letters" and len(one.chars) == 1 else ():
            end = at + 1 + len(phrase)
            is_said = end < len(symbols) and tuple(each.plain for each in symbols[at + 1 : end]) == phrase
            if is_said and symbols[end].plain[:1].upper() == one.chars:
                out[at + 1 : end + 1] = [
                    *(Symbol(word, "filler") for word in phrase),
                    Symbol(symbols[end].plain, "letters"),
                ]
    return out


#: What stands between a letter and a word that begins with it.
_MEANING: Final = (("as", "in"), ("for",), ("like",))


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
