"""Finds postal addresses in languages in which the house's number is not before the street's name: "Hauptstraße 12,
10115 Berlin", "12 rue de la République, 75001 Paris", "calle Mayor 12, 28013 Madrid".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words

#: Words of a street's name, words of a house's number, and words of a city, at most.
_MOST_NAME, _MOST_NUMBER, _MOST_CITY = 6, 4, 4

#: Digits of a house's number, and of a postal code.
_HOUSE, _CODE = 4, range(4, 6)

#: Words before a street among which one tells of an address, so that it needs no number.
_REACH: Final = 8

#: Roles of words of numbers.
_NUMBER: Final = ("digits", "tens", "hundred", "part", "repeat")


def streets(words: Words) -> Iterator[Finding]:
    """The addresses."""
    language = words.vocabulary
    if language.street_layout == "number name type":
        return
    for at, word in enumerate(words.plain):
        span = None
        if language.is_street(word):
            span = {
                "name type number": _name_first,
                "number type name": _number_first,
                "type name number": _type_first,
            }[language.street_layout](words, at)
        elif word in language.postal:
            span = _after_word(words, at)
        if span is not None:
            yield Finding(span[0], span[1], "address", rank=2)


def _name_first(words: Words, at: int) -> tuple[int, int] | None:
    """The address of "Lange Straße 12", "Hauptstraße 12": the name is before the type, or one word with it."""
    language, start = words.vocabulary, at
    least = at if words.plain[at] not in language.streets else at - 1
    while start > max(at - _MOST_NAME, 0) and _is_of_name(words, start - 1):
        start -= 1
    while start < at and words.plain[start] in language.before_street and not words.is_capital(start):
        start += 1
    if start > least:
        return None
    return _span(words, start, at + 1)


def _type_first(words: Words, at: int) -> tuple[int, int] | None:
    """The address of "calle Mayor 12": the name is behind the type."""
    end = _name_end(words, at + 1)
    return None if end == at + 1 else _span(words, at, end)


def _number_first(words: Words, at: int) -> tuple[int, int] | None:
    """The address of "12 bis rue de la République": the number is before the type, and the name behind it."""
    end = _name_end(words, at + 1)
    if end == at + 1:
        return None
    before = at
    while before > 0 and words.plain[before - 1] in words.vocabulary.house:
        before -= 1
    start = _house_start(words, before)
    if start == before and not _is_told(words, at):
        return None
    return start, _tail(words, end)


def _span(words: Words, start: int, name_end: int) -> tuple[int, int] | None:
    """The address with a house's number behind the name; without one, only where somebody tells an address."""
    number = name_end
    while number < len(words.plain) and words.plain[number] in words.vocabulary.house:
        number += 1
    end = _house_end(words, number)
    if end == number:
        if not _is_told(words, start):
            return None
        end = name_end
    return start, _tail(words, end)


def _is_of_name(words: Words, at: int) -> bool:
    """Whether a word may be one of a street's name."""
    language, word, role = words.vocabulary, words.plain[at], words.symbols[at].role
    if not word or words.ends_sentence(at) or words.texts[at].endswith(","):
        return False
    if word in language.directions:
        return True
    if role not in ("other", "letters") or word in language.function_words or any(map(str.isdigit, word)):
        return False
    return words.is_capital(at) or not words.is_cased


def _name_end(words: Words, at: int) -> int:
    """The index after the name that begins here. Its last word is none that only joins others."""
    end = at
    for number in range(at, min(at + _MOST_NAME, len(words.plain))):
        word, language = words.plain[number], words.vocabulary
        is_joining = word in language.directions
        is_date = words.symbols[number].role in _NUMBER and _is_month(words, number + 1)  # "rue du 8 mai 1945"
        if not is_joining and not is_date and not _is_named(words, number):
            break
        if not is_joining:
            end = number + 1
        if words.texts[number][-1:] in ",.;?!":
            break
    return end


def _is_month(words: Words, at: int) -> bool:
    return at < len(words.plain) and words.plain[at] in words.vocabulary.months


def _is_named(words: Words, at: int) -> bool:
    language, word = words.vocabulary, words.plain[at]
    is_number = words.symbols[at].role not in ("other", "letters") or any(map(str.isdigit, word))
    if not word or is_number or word in language.function_words or word in language.house:
        return False
    return words.is_capital(at) or not words.is_cased


def _house_end(words: Words, at: int) -> int:
    """The index after a house's number that begins here, with its letter; `at` if there is none. Where a postal code
    is said behind it, it has no more words than leave the code whole.
    """
    ends = []
    end, digits = at, 0
    while end < min(at + _MOST_NUMBER, len(words.plain)) and words.symbols[end].role in _NUMBER:
        digits += len(words.symbols[end].chars)
        if digits > _HOUSE:
            break
        end += 1
        ends.append(end)
        if words.texts[end - 1][-1:] in ",.;?!":
            break
    for one in ends:
        code_end = _code_end(words, one)
        if code_end > one and (code_end == len(words.plain) or words.symbols[code_end].role not in _NUMBER):
            return one
    if not ends:
        return at + 1 if at < len(words.plain) and _is_number_with_letter(words, at) else at
    end = ends[-1]
    is_letter = end < len(words.plain) and len(words.plain[end]) == 1 and words.plain[end].isalpha()
    is_joined = is_letter and words.texts[end - 1][-1:] not in ",.;?!"
    return end + 1 if is_joined and words.plain[end] not in words.vocabulary.function_words else end


def _is_number_with_letter(words: Words, at: int) -> bool:
    """Whether it is a number such as "12a" or "12-14"."""
    word = words.plain[at]
    return word[:1].isdigit() and len(word) <= _HOUSE + 1


def _house_start(words: Words, end: int) -> int:
    """Where the house's number begins that ends before this word."""
    start, digits = end, 0
    while start > max(end - _MOST_NUMBER, 0):
        one = words.symbols[start - 1]
        if one.role not in _NUMBER and not (start == end and _is_number_with_letter(words, start - 1)):
            break
        digits += max(len(one.chars), 1)
        start -= 1
    return start if 0 < digits <= _HOUSE + 1 else end


def _is_told(words: Words, at: int) -> bool:
    """Whether somebody tells an address here."""
    before = words.plain[max(at - _REACH, 0) : at]
    return any(word in words.vocabulary.living for word in before)


def _tail(words: Words, at: int) -> int:
    """The index after what belongs to the address behind the street: a part of the house, the postal code, the city."""
    plain, language = words.plain, words.vocabulary
    while at < len(plain) and plain[at] in language.homes:
        at = max(_house_end(words, at + 1), at + 1)
    if (end := _code_end(words, at)) > at:
        return _city_end(words, end, is_sure=True)
    if at < len(plain) and plain[at] in language.before_city and (end := _code_end(words, at + 1)) > at + 1:
        return _city_end(words, end, is_sure=True)
    if at < len(plain) and plain[at] in language.before_city:
        end = _city_end(words, at + 1, is_sure=not words.is_cased)
        return end if end > at + 1 else at
    return at


def _code_end(words: Words, at: int) -> int:
    """The index after a postal code that begins here; `at` if there is none."""
    end, digits = at, 0
    while end < len(words.plain) and words.symbols[end].role in (*_NUMBER, "filler"):
        digits += len(words.symbols[end].chars) if words.symbols[end].role != "repeat" else 1
        end += 1
        if digits >= _CODE[-1]:
            break
    return end if digits in _CODE else at


def _city_end(words: Words, at: int, *, is_sure: bool) -> int:
    """The index after a city that begins here; where it is sure that one does, also without a capital."""
    end, language = at, words.vocabulary
    while end < min(at + _MOST_CITY, len(words.plain)):
        is_first = end == at
        if end > 0 and not is_first and words.texts[end - 1][-1:] in ",.;?!":
            break
        word = words.plain[end]
        joins = word in language.particles and end + 1 < len(words.plain) and words.is_capital(end + 1)
        is_plain = word not in language.function_words and words.symbols[end].role in ("other", "letters")
        is_city = is_plain and (words.is_capital(end) if words.is_cased else is_first and is_sure)
        if not is_city and not (joins and not is_first) and not (is_first and is_sure and word in language.before_city):
            break
        end += 1
    return end


def _after_word(words: Words, at: int) -> tuple[int, int] | None:
    """The postal code, with its city, that follows the word for one within some words."""
    for start in range(at + 1, min(at + 5, len(words.plain))):
        if (end := _code_end(words, start)) > start and words.symbols[start].role != "filler":
            return start, _city_end(words, end, is_sure=False)
    return None
