"""Finds numbers and codes that identify somebody: of cards, accounts, persons, telephones, contracts.

Any long number is found, whatever it is: a check digit or the words before it name the kind, and never excuse a number.
Quantities are no codes: amounts of money, shares, years, numbers with a separator of thousands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agents.redaction.finding import Finding, Words
from agents.redaction.symbols import Symbol, composed, pieces

#: Characters from which a number or a code is found without any word that names it, and with one.
LONG, NAMED = 6, 4

#: Digits of the shortest PIN that is heard.
SHORTEST: Final = 2

#: Fillers in a row that do not end a number.
_MOST_FILLERS: Final = 3

#: Words before a number among which its name is looked for, also of what may be a quantity, and words behind it.
_BEFORE, _NEAR, _BEHIND = 12, 6, 3

_YEARS: Final = re.compile(r"((19|20)\d\d){1,3}\Z")
_DAY_AND_YEAR: Final = re.compile(r"\d{1,2}(19|20)\d\d\Z")
_DATE: Final = re.compile(r"(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})\Z")
_IBAN: Final = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}\Z")
_SSN: Final = re.compile(r"\d{3}[- ]\d{2}[- ]\d{4}\Z")


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words that make a number or a code, with what is said in between."""

    start: int
    end: int
    #: Digits and capital letters.
    chars: str
    symbols: list[Symbol]

    @property
    def is_code(self) -> bool:
        """Whether it is said digit by digit, or written as no quantity is; a long one is a code in any case."""
        if len(self.chars) >= LONG:
            return True
        if len(self.symbols) == 1:
            is_round = self.chars.endswith("00") or _YEARS.match(self.chars) is not None
            return len(self.chars) >= NAMED and not is_round
        return len(self.symbols) >= NAMED - 1 and all(
            one.role in ("digits", "letters") and len(one.chars) <= 1 for one in self.symbols
        )

    @property
    def digits(self) -> int:
        """How many of the characters are digits."""
        return sum(map(str.isdigit, self.chars))


def numbers(words: Words) -> Iterator[Finding]:
    """The findings among all runs of digits and letters."""
    all_runs = list(runs(words))
    card = -_OF_CARD
    for run in all_runs:
        kind = _kind(run, words)
        if kind is None and run.start - card < _OF_CARD and _is_like_security_code(run, words):
            kind = "security_code"
        if kind is not None:
            yield Finding(run.start, run.end, kind, rank=_RANKS.get(kind, 7))
        if kind == "card" and run.digits >= _CARD_SIZES[0]:
            card = run.end
    yield from _in_parts(all_runs)


def _is_like_security_code(run: Run, words: Words) -> bool:
    """Whether it may be the code of the card that was told before, whatever the recognizers made of the question."""
    is_said = run.is_code or len(run.symbols) == 1
    of_digits = run.digits == len(run.chars) and len(run.chars) in (3, 4)
    return of_digits and is_said and not _is_quantity(run, words, "id") and not run.chars.endswith("00")


def _in_parts(runs: Sequence[Run]) -> Iterator[Finding]:
    """Numbers that are asked for and told in parts ("the first four? 4111. And then? 1111.")."""
    part: list[Run] = []
    for run in (*runs, None):
        if run is not None and not (run.is_code and run.digits == len(run.chars)):
            continue
        if part and (run is None or run.start - part[-1].end > _PART_GAP):
            if len(part) > 1 and sum(one.digits for one in part) >= _PARTS_DIGITS:
                chars = "".join(one.chars for one in part)
                kind = "card" if len(chars) in _CARD_SIZES and luhn(chars) else "id"
                yield from (Finding(one.start, one.end, kind) for one in part if len(one.chars) < LONG)
            part = []
        if run is not None:
            part.append(run)


#: Words between two parts of a number, at most, and digits of all parts, at least.
_PART_GAP, _PARTS_DIGITS = 10, 10

#: Digits of cards (ISO/IEC 7812-1).
_CARD_SIZES: Final = range(13, 20)


_RANKS: Final = {"iban": 2, "card": 3, "ssn": 4, "phone": 5, "account": 6, "security_code": 6}


def runs(words: Words) -> Iterator[Run]:
    """All runs of digits and letters, without fillers at their ends. A question ends one: "the first four? 4111."."""
    symbols = words.symbols
    start = last = -1
    for at, one in enumerate(symbols):
        if one.role == "other" or (one.role == "filler" and start >= 0 and at - last > _MOST_FILLERS):
            if start >= 0:
                yield _run(start, last + 1, words)
            start = -1
        elif one.role != "filler":
            start, last = (at if start < 0 else start), at
            if words.texts[at].endswith("?"):
                yield _run(start, last + 1, words)
                start = -1
    if start >= 0:
        yield _run(start, last + 1, words)


def _run(start: int, end: int, words: Words) -> Run:
    symbols, letters = words.symbols, words.vocabulary.word_letters
    # "a" and "I" at an end are words of the sentence, as a repeat at the end is.
    while end > start and (symbols[start].plain in letters or symbols[start].role == "filler"):
        start += 1
    while end > start and (symbols[end - 1].plain in letters or symbols[end - 1].role in ("filler", "repeat")):
        end -= 1
    part = [one for one in symbols[start:end] if one.role != "filler"]
    return Run(start, end, composed(part), part)


def _kind(run: Run, words: Words) -> str | None:
    """The kind of a run; None if nothing has to be hidden."""
    size = len(run.chars)
    if run.digits < SHORTEST or (_is_spaced(run, words) and _after(run, words) in words.vocabulary.units):
        return None
    if _IBAN.match(run.chars) and (is_iban(run.chars) or run.digits >= size - 8):
        return "iban"
    name = _named(run, words)
    if run.digits == size and (kind := _kind_of_digits(run, words, name)) is not None:
        return kind
    if name == "date_of_birth" or (name == "address" and size == 5):
        return None  # theirs are found by detectors of their own
    if size >= NAMED and name == "account" and not _is_quantity(run, words, name):
        return "account"
    if size >= (LONG if name is None else NAMED) and run.digits >= NAMED and not _is_quantity(run, words, name):
        return "id" if name in (None, "card", "phone", "address") else name
    return None


def _kind_of_digits(run: Run, words: Words, name: str | None) -> str | None:
    """What the digits alone, or with the name before them, say."""
    size = run.digits
    if size > LONG and _is_card(run, name):
        return "card"
    if name == "security_code" and size <= 8:
        return None if _is_quantity(run, words, name) else "security_code"
    if (size == 9 and (name == "ssn" or _has_groups(run, (3, 2, 4)))) or (name == "ssn" and size >= NAMED):
        return "ssn"
    if name == "card" and size == NAMED and not _YEARS.match(run.chars):
        return "card"
    if name in (None, "phone") and 7 <= size <= 15 and _is_phone(run.chars, words):
        return None if _is_quantity(run, words, name) else "phone"
    return None


def _is_card(run: Run, name: str | None) -> bool:
    """Whether it is the number of a card: by its check digit, or because it is called so. Read twice, or with the other
    data of a card, it is longer.
    """
    if name == "card" and run.digits >= 12:
        return True
    if run.digits <= _CARD_SIZES[-1]:
        return run.digits in _CARD_SIZES and luhn(run.chars)
    starts, at = [], 0
    for piece in pieces(run.symbols):
        starts += [at] if piece else []
        at += len(piece)
    return any(luhn(run.chars[start : start + size]) for start in starts for size in (16, 15) if start + size <= at)


def _named(run: Run, words: Words) -> str | None:
    """The kind that the nearest words say, those before the run first."""
    language = words.vocabulary
    for at in range(run.start - 1, max(run.start - 1 - (_BEFORE if run.is_code else _NEAR), -1), -1):
        if not run.is_code and words.texts[at][-1:] in ".!?" and (words.texts[at][-1:] != "?" or at < run.start - 3):
            return None  # what may be a quantity belongs to its own sentence, or is the answer to a question
        word = words.plain[at].removesuffix("'s")
        if ends_with(words, at, language.on_the_back):
            return "security_code"
        if at >= run.start - _NEAR and ends_with(words, at, language.last_four):
            return "id" if words.plain[at + 1] not in language.units else None
        if (kind := language.kind_of(word)) is not None:
            return _of_phrase(kind, at, words)
    if len(run.chars) >= LONG:
        for at in range(run.end, min(run.end + _BEHIND, len(words.plain))):
            if (kind := language.kind_of(words.plain[at])) is not None:
                return _of_phrase(kind, at, words)
    return None


#: Words between a card that is spoken of, whose number may be spoken in between, and a code that is the card's.
_OF_CARD: Final = 40


def _of_phrase(kind: str, at: int, words: Words) -> str:
    """The kind of a phrase that has this word: "security code" names a code, "social security number" a person."""
    language, before, word = words.vocabulary, words.plain[at - 1] if at else "", words.plain[at]
    if (named := language.kind_phrases.get(f"{before} {word}")) is not None:
        return named
    if word in language.codes:
        is_of_card = any(one in language.cards for one in words.plain[max(at - _OF_CARD, 0) : at])
        return "security_code" if is_of_card else kind
    return kind


def ends_with(words: Words, at: int, phrase: Sequence[str]) -> bool:
    """Whether a phrase, if there is one, ends with this word."""
    return bool(phrase) and tuple(words.plain[max(at + 1 - len(phrase), 0) : at + 1]) == tuple(phrase)


def _is_quantity(run: Run, words: Words, name: str | None) -> bool:
    after = _after(run, words)
    one_number = len(run.symbols) == 1 or any(s.role in ("tens", "hundred", "part") for s in run.symbols)
    if (after in words.vocabulary.units and one_number) or (
        run.digits < NAMED and any(s.role == "hundred" for s in run.symbols)
    ):
        return True
    if _is_spaced(run, words) and (after in words.vocabulary.units or name is None):
        return True
    if len(run.symbols) == 1 and name != "account" and _DATE.match(run.symbols[0].plain):  # 20-00-00 sorts in Britain
        return True
    if _DAY_AND_YEAR.match(run.chars) and run.start and words.plain[run.start - 1] in words.vocabulary.months:
        return True
    is_weak = name in (None, "id", "phone", "address", "account")
    return is_weak and _YEARS.match(run.chars) is not None and len(run.symbols) <= len(run.chars)


def _after(run: Run, words: Words) -> str:
    return words.plain[run.end] if run.end < len(words.plain) else ""


def _is_spaced(run: Run, words: Words) -> bool:
    """Whether it is written as one number whose thousands are words: "150 000"."""
    if not words.vocabulary.has_spaced_thousands:
        return False
    groups = [one.chars for one in run.symbols if one.is_written]
    return len(groups) == len(run.symbols) > 1 and len(groups[0]) <= 3 and all(len(one) == 3 for one in groups[1:])


def _has_groups(run: Run, sizes: tuple[int, ...]) -> bool:
    """Whether the digits are said or written in groups of these sizes."""
    if len(run.symbols) == 1:
        return sizes == (3, 2, 4) and _SSN.match(run.symbols[0].plain) is not None
    return tuple(map(len, filter(None, pieces(run.symbols)))) == sizes


def luhn(digits: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0 and digits.strip("0") != ""


def is_iban(code: str) -> bool:
    """Whether the check digits are right (ISO 13616)."""
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _is_phone(digits: str, words: Words) -> bool:
    from phonenumbers import NumberParseException, is_valid_number, parse  # takes 0.1 s

    regions = (words.region, *words.vocabulary.regions)
    for text, where in (*((digits, region) for region in regions), (f"+{digits}", None)):
        try:
            if is_valid_number(parse(text, where)):
                return True
        except NumberParseException:
            continue
    # Without its area code.
    return len(digits) == words.vocabulary.local_digits
