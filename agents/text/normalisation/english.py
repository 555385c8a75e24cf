"""Rules that give different spellings of one English expression the same meaning: dates, times, amounts, units.

Each rule rewrites a text of tokens with a space between them, before or after its numbers are read. The result is only
compared, never shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from agents.text.normalisation.numbers import NUMBER_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    #: A pattern that begins and ends at a token, and what replaces it.
    Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

#: Words and abbreviations that are written in several ways, each by the form that is compared.
ALIASES = {
    "jan": "january", "feb": "february", "mar": "march", "apr": "april", "jun": "june", "jul": "july",
    "aug": "august", "sep": "september", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
    "okay": "ok", "alright": "all right", "gimme": "give me", "lemme": "let me", "outta": "out of", "lotta": "lot of",
    "'em": "them", "em": "them", "c'mon": "come on", "cuz": "because", "'cause": "because", "til": "till",
    "'til": "till", "thru": "through", "yea": "yeah", "cannot": "can not", "tryna": "trying to", "lotsa": "lots of",
    "vs": "versus", "etc": "et cetera", "inc": "incorporated", "corp": "corporation", "ltd": "limited",
    "ave": "avenue", "blvd": "boulevard", "rd": "road", "dept": "department", "approx": "approximately",
    "apt": "apartment", "ext": "extension", "govt": "government", "nil": "zero", "nought": "zero", "naught": "zero",
    "treble": "triple", "firsthand": "first hand", "twofold": "two fold", "threefold": "three fold",
    # "one" by itself is a number.
    "someone": "some 1", "anyone": "any 1", "everyone": "every 1", "noone": "no 1",
}  # fmt: skip

#: Characters that Whisper's rules drop, and two of its rules that drop more than punctuation, as spoken words.
SYMBOLS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)\(([a-z])\)", r" \1"),
        (r"(?<=\d)'s\b", "s"),
        (r"(\d)([¢€£])", r"\1 \2 "),
        (r"(?<=\d)\s¢", " cents"), (r"(?<=\d)\s€", " euros"), (r"(?<=\d)\s£", " pounds"),
        (r"(?<!\S)[-\u2212](?=[$\d])", " minus "), (r"\+(?=\d)", " plus "), (r"#(?=\d)", " number "),
        (r"\u00b0\s?f\b", " degrees fahrenheit"), (r"\u00b0\s?c\b", " degrees celsius"), ("\u00b0", " degrees "),
        ("&", " and "), ("=", " equals "),
        (r"\b1/2\b|\u00bd", " \u00bd "), (r"\b1/4\b|\u00bc", " \u00bc "), (r"\b3/4\b|\u00be", " \u00be "),
        (r"\b1/3\b", " one third "), (r"\b2/3\b", " two thirds "),
        (r"\b(\d{4})-0?(\d\d?)-0?(\d\d?)\b", r"\2 \3 \1"),
        (r"\b(1[3-9]|2\d|3[01])/0?(\d\d?)/(\d{2,4})\b", r"\2 \1 \3"),
        (r"\b0?(\d\d?)/0?(\d\d?)/(\d{2,4})\b", r"\1 \2 \3"),
    )
]  # fmt: skip
#: An address on the internet: its marks are spoken.
ADDRESS = re.compile(r"\S*[a-z0-9](?:@\S*[a-z]|\.(?:com|org|net|io|gov|edu|co|ai|uk|de|us|ca)\b)\S*")
MARKS = {"@": " at ", ".": " dot ", "_": " underscore ", "-": " dash ", "/": " slash "}

_MONTHS = {
    name: str(number)
    for number, name in enumerate(
        "january february march april may june july august september october november december".split(), 1
    )
}
_UNITS = {
    "milligram": "mg", "gram": "g", "kilogram": "kg", "microgram": "mcg", "milliliter": "ml", "liter": "l",
    "deciliter": "dl", "kilometer": "km", "meter": "m", "centimeter": "cm", "millimeter": "mm", "mile": "mi",
    "inch": "in", "feet": "ft", "foot": "ft", "ounce": "oz", "hour": "hr", "minute": "min", "second": "sec",
    "2nd": "sec", "millisecond": "ms", "megabyte": "mb", "gigabyte": "gb", "terabyte": "tb", "kilobyte": "kb",
    "megahertz": "mhz", "gigahertz": "ghz", "hertz": "hz", "kilowatt": "kw", "megawatt": "mw", "gigawatt": "gw",
    "watt": "w", "volt": "v", "year": "yr", "percentage point": "pp", "basis point": "bp",
    "mile per hour": "mph", "miles per hour": "mph", "kilometers per hour": "kph", "cubic centimeter": "cc",
}  # fmt: skip
_SCALES = {"k": 3, "m": 6, "mm": 6, "mn": 6, "b": 9, "bn": 9, "t": 12, "tn": 12}
_HOURS = "one two three four five six seven eight nine ten eleven twelve".split()

#: Tokens that may mean the same as another single token. Units only do so beside a number. The number 1 is written
#: "one", and Whisper's rules do not know "ninth".
VARIANTS = frozenset({*ALIASES, *ALIASES.values(), "one", "ninth", *"&#@½¼¾"})

#: Tokens that belong to the number beside them, if there is one.
LINKS = frozenset({*_MONTHS, *"am pm a p m o and of the clock point percent dollars cents half quarter".split()})

_MONTH = "(" + "|".join(_MONTHS) + ")"
_DAY = r"([12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?"
_NUMBER = r"\d+(?:\.\d+)?"
_SPELLED = r"(?:[$£€]?\d[\d.]*|" + "|".join(sorted(NUMBER_WORDS - {"and", "point", "per", "percent"})) + ")"
_HOUR = "(" + "|".join(_HOURS) + r"|1?\d)"
_UNIT = "(" + "|".join(sorted({*_UNITS, *_UNITS.values()}, key=len, reverse=True)) + ")"


def _quarter_to(match: re.Match[str]) -> str:
    hour = _HOURS.index(match[1]) if match[1] in _HOURS else (int(match[1]) - 1) % 12
    return f"{_HOURS[hour - 1]} forty five"


def _scaled(match: re.Match[str]) -> str:
    whole, _, part = match[2].partition(".")
    zeros = _SCALES[match[3]]
    return f"{match[1]}{whole}{part.ljust(zeros, '0')}" if len(part) <= zeros else match[0]


def _cents(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}.{match[3]:0>2}"


def _unit(match: re.Match[str]) -> str:
    return f"{match[1]} {_UNITS.get(match[2], match[2])}"


class Rules(NamedTuple):
    """Rules in the order in which they apply, and a pattern that is found wherever one of them applies first: searching
    for all of them at once takes a third of the time.
    """

    rules: list[Rule]
    any: re.Pattern[str]


def _rules(*rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> Rules:
    found = [(_whole_tokens(pattern), replacement) for pattern, replacement in rules]
    return Rules(found, _whole_tokens("(?:" + "|".join(pattern for pattern, _ in rules) + ")"))


def _whole_tokens(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S){pattern}(?!\S)")


#: Rules for texts whose numbers are still as they were written.
SPELLED = _rules(
    ("ninth", "nineth"),  # the form that Whisper's rules know
    (r"half a (million|billion|trillion)", r"0.5 \1"),
    (r"a (?=(?:hundred|thousand|million|billion|trillion)\b)(\S+)", r"one \1"),
    (rf"({_SPELLED}) (?:and (?:a|one) half|(?:and )?½)", r"\1 point five"),
    (rf"({_SPELLED}) (?:and (?:a|one) quarter|(?:and )?¼)", r"\1 point two five"),
    (rf"({_SPELLED}) (?:and three quarters|(?:and )?¾)", r"\1 point seven five"),
    (r"(?:½|a half)", "one half"),
    (r"(?:¼|a quarter)(?= (?:of|percent|mile|inch|cup|million)\b)", "one quarter"),
    ("¾", "three quarters"),
    (rf"half past {_HOUR}", r"\1 thirty"),
    (rf"(?:a )?quarter (?:past|after) {_HOUR}", r"\1 fifteen"),
    (rf"(?:a )?quarter (?:to|till|of) {_HOUR}", _quarter_to),
    (r"double ([a-z])", r"\1 \1"),
    (r"triple ([a-z])", r"\1 \1 \1"),
)

#: What a text contains to which one of these rules applies.
MAY_BE_SPELLED = re.compile(r"\b(?:ninth|half|quarters?|double|triple|a (?:hundred|thousand|[mbt]illion))\b|[½¼¾]")

#: Rules for texts with all numbers in digits; they apply to texts with digits only.
WRITTEN = _rules(
    (rf"(?:the )?{_DAY} (?:day )?(?:of )?{_MONTH}", lambda m: f"{_MONTHS[m[2]]} {m[1].lstrip('0')}"),
    (rf"{_MONTH} (?:the )?{_DAY}", lambda m: f"{_MONTHS[m[1]]} {m[2].lstrip('0')}"),
    (r"(1?\d) o ?clock", r"\1 00"),
    (r"(1?\d) (?:00 )?([ap]) ?m", r"\1 \2m"),
    (r"(1?\d)[. ]?([0-5]\d) ([ap]) ?m", r"\1 \2 \3m"),
    (rf"([$£€])({_NUMBER}) (k|mm?|mn|bn?|tn?)", _scaled),
    (r"([$£€])(\d+) (?:and )?¢(\d\d?)", _cents),
    (r"()¢(\d\d?)", lambda m: f"$0.{m[2]:0>2}"),
    (r"([$£€]\d+)\.00?", r"\1"),
    (r"([$£€]\d+\.\d)", r"\g<1>0"),
    (r"([-+$£€]*)(\.\d+%?)", r"\g<1>0\2"),
    (rf"({_NUMBER}) lbs?", r"£\1"),
    (rf"({_NUMBER}) {_UNIT}s?", _unit),
    (r"no (?=\d)(\S+)", r"number \1"),
    (r"(\d+(?:st|nd|rd|th)?(?: [a-z]+){0,2}) saint", r"\1 street"),
)
