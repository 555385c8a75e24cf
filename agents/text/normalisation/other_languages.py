"""Finds the numbers in texts of other languages than English, and writes them in digits.

German, French, Spanish, Italian, Portuguese, Dutch and Danish are read by `text2num`; Hindi, Arabic, Chinese and
Japanese by the tables here. As in `english`, the result is only compared, never shown. Ordinals stay words.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from agents.text.normalisation.normalise import fold_digits, word_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: The languages of `text2num`.
_LIBRARY = frozenset({"da", "de", "es", "fr", "it", "nl", "pt"})

#: Digits with separators of thousands or decimals, the last of them to be written as a point; dates are none.
_SEPARATED = re.compile(
    r"(?<![\d.,])(\d+|\d{1,3}(?:\.\d{3})+|\d{1,3}(?:,\d{3})+|\d{1,3}(?:'\d{3})+)(?:[.,](\d\d?|\d{4,}))?(?![.,]?\d)"
)
_FIGURE = re.compile(r"\d+(?:\.\d+)?\Z", re.ASCII)


class Number(NamedTuple):
    """Tokens that spell a number: the index of the first one and of the one after the last."""

    first: int
    end: int
    #: In ASCII digits, with a point before decimals.
    digits: str


class _Language(NamedTuple):
    """How a language spells numbers."""

    #: By word, what is added to a number; and what multiplies what is before it.
    addends: Mapping[str, int]
    factors: Mapping[str, int]
    #: The words before decimals.
    points: frozenset[str]
    #: "And" between the parts of one number, also as the first letter of a word; and what makes spellings of one word
    #: equal.
    links: frozenset[str] = frozenset()
    fold: Callable[[str], str] = str
    #: From this factor on, everything before it is multiplied; below it, only the addend before it.
    large: int = 1000


def figures(word: str) -> list[str]:
    """The tokens of a word with figures: "1.250,50kg" is "1250.50" and "kg"."""
    folded = fold_digits(unicodedata.normalize("NFKC", word)).translate({0x66B: ",", 0x66C: "."})
    tokens: list[str] = []
    done = 0
    for match in _SEPARATED.finditer(folded):
        whole, part = match.groups()
        number = re.sub(r"\D", "", whole) + (f".{part}" if part else "")
        tokens += [*word_tokens(folded[done : match.start()], False)[0], number]
        done = match.end()
    return [*tokens, *word_tokens(folded[done:], False)[0]]


def numbers(text: str, language: str) -> list[tuple[int, int, str]]:
    """The numbers in a text of tokens with a space between them that have words: first and end character, in digits.

    `language` is a BCP 47 tag; of other languages than those above there are none.
    """
    code = language.lower().replace("_", "-").split("-")[0]
    tokens = text.split(" ")
    if code in _LIBRARY:
        found = _scaled(tokens, list(_with_library(tokens, code)))
    elif code in _LANGUAGES:
        found = list(_read(tokens, _LANGUAGES[code]))
    else:
        return []
    begins = list(itertools.accumulate((len(token) + 1 for token in tokens), initial=0))
    spaceless = code in {"ja", "zh", "yue"}
    if spaceless or code == "fr":
        found = _merged(found)
    return [
        (begins[number.first], begins[number.end] - 1, number.digits)
        for number in _not_alone(tokens, found, spaceless=spaceless)
    ]


class _Token(str):
    """A word as `text2num` expects it."""

    __slots__ = ()

    def text(self) -> str:
        return str(self)

    def nt_separated(self, previous: _Token) -> bool:  # noqa: ARG002
        return False

    def not_a_number_part(self) -> bool:
        return False


def _with_library(tokens: Sequence[str], code: str) -> Iterator[Number]:
    from text_to_num import find_numbers  # 0.1 s

    if code == "de":  # "eine Million" is not known, "ein Million" is
        following = itertools.chain(tokens[1:], [""])
        tokens = ["ein" if a == "eine" and b.startswith("mill") else a for a, b in zip(tokens, following, strict=True)]
    for found in find_numbers([_Token(token) for token in tokens], code, 0.0):
        if not found.is_ordinal:
            yield Number(found.start, found.end, re.sub(r"[^\d.]", "", found.text.replace(",", ".")))


def _scaled(tokens: Sequence[str], found: Sequence[Number]) -> list[Number]:
    """The numbers, with figures before them: "2.5 million" is one number."""
    result = []
    for number in found:
        before = number.first - 1
        if number.end - number.first == 1 and re.fullmatch("1(000)+", number.digits) and _is_figure(tokens, before):
            product = Fraction(tokens[before]) * int(number.digits)
            if product.denominator == 1:
                number = Number(before, number.end, str(product.numerator))
        result.append(number)
    return result


def _merged(found: Sequence[Number]) -> list[Number]:
    """The numbers, those that follow one another as one: "quarante quatre vingt sept" is "40 87" or "44 27", and
    "五十五十二" is "50 52" or "55 12": recognizers that write them differently are rivals as a whole.
    """
    result: list[Number] = []
    for number in found:
        if result and result[-1].end == number.first:
            number = Number(result[-1].first, number.end, result.pop().digits + number.digits)
        result.append(number)
    return result


def _not_alone(tokens: Sequence[str], found: Sequence[Number], *, spaceless: bool) -> Iterator[Number]:
    """The numbers without single words that are more often none: articles, and characters as in "一番"."""
    for at, number in enumerate(found):
        alone = (
            number.end - number.first == 1
            and not (at and found[at - 1].end == number.first)
            and not (at + 1 < len(found) and found[at + 1].first == number.end)
            and not (_is_figure(tokens, number.first - 1) or _is_figure(tokens, number.end))
        )
        if not (alone and (spaceless or number.digits == "1")):
            yield number


def _is_figure(tokens: Sequence[str], at: int) -> bool:
    return 0 <= at < len(tokens) and _FIGURE.match(tokens[at]) is not None


def _read(tokens: Sequence[str], language: _Language) -> Iterator[Number]:
    """The numbers with a word of the language's tables in them."""
    tokens = [language.fold(token) for token in tokens]
    at = 0
    while at < len(tokens):
        end, value = _cardinal(tokens, at, language)
        if end > at:
            decimals = list(_decimals(tokens[end:], language))
            end += len(decimals) and len(decimals) + 1
            yield Number(at, end, ".".join([str(value), *filter(None, ["".join(decimals)])]))
        at = max(end, at + 1)


def _decimals(tokens: Sequence[str], language: _Language) -> Iterator[str]:
    """The digits after a point, if the tokens begin with one."""
    if tokens and tokens[0] in language.points:
        for token in tokens[1:]:
            if language.addends.get(token, 10) > 9:
                return
            yield str(language.addends[token])


def _cardinal(tokens: Sequence[str], first: int, language: _Language) -> tuple[int, int]:
    """The end (exclusive) and the value of the number that begins at a token; `first` if none does."""
    total = section = Fraction(0)  # what large factors have multiplied; what the next of them multiplies
    addend: Fraction | None = None  # what the next small factor multiplies
    room = 0  # after a factor, what is less is added
    end = first
    for at in range(first, len(tokens)):
        token = tokens[at]
        linked = at > first and (tokens[at - 1] in language.links or _without_link(token, language) != token)
        token = _without_link(token, language) if at > first else token
        if factor := language.factors.get(token):
            large = factor >= language.large
            if (total if large else section) % (factor * 10):
                if addend is not None:  # it belongs to the next number
                    end, addend = end - 1, None
                break
            if large:
                total, section = total + ((section + (addend or 0)) or 1) * factor, Fraction(0)
            else:
                section += (addend or 1) * factor
            addend, room = None, factor
        elif (value := _addend(tokens, at, token, language, begins=at == first)) is not None:
            whole = section + (addend or 0)
            teen = value == 10 and addend is not None and 0 < addend < 10 and language.links
            if at > first and not (value < room or teen or (linked and _apart(whole, value))):
                break
            if value == 0 and room:
                continue  # "一千零五"
            section, addend, room = whole, value, 0
        elif token in language.links:
            continue
        else:
            break
        end = at + 1
    value = total + section + (addend or 0)
    return (end, int(value)) if value.denominator == 1 else (first, 0)


def _without_link(token: str, language: _Language) -> str:
    """A token without the "and" that is written together with it in Arabic."""
    known = token in language.addends or token in language.factors or token in language.links
    return token if known else next((token[len(link) :] for link in language.links if token.startswith(link)), token)


def _addend(tokens: Sequence[str], at: int, token: str, language: _Language, *, begins: bool) -> Fraction | None:
    """The value of a token that can be added; figures begin a number only before a factor."""
    if token in language.addends:
        return Fraction(language.addends[token])
    if _FIGURE.match(token) and (not begins or (at + 1 < len(tokens) and tokens[at + 1] in language.factors)):
        return Fraction(token)
    return None


def _apart(one: Fraction, other: Fraction) -> bool:
    """Whether two numbers have no digit other than 0 in the same place, as 300 and 45."""
    return all("0" in pair for pair in zip(str(one)[::-1], str(other)[::-1], strict=False))


def _arabic(token: str) -> str:
    """A token without the endings and marks that writers leave out."""
    token = "".join(c for c in unicodedata.normalize("NFD", token) if not unicodedata.combining(c))
    return token.replace("ى", "ي").replace("ة", "ه")  # noqa: RUF001


def _named(*names: str, first: int = 1, step: int = 1) -> dict[str, int]:
    """Words with their values, one after the other; alternatives have a stroke between them."""
    return {
        unicodedata.normalize("NFKC", word): first + step * n
        for n, alternatives in enumerate(names)
        for word in alternatives.split("|")
    }


_HANZI = _Language(
    addends=_named(*"零|〇 一|壹|幺 二|两|兩|贰 三|叁 四 五 六 七 八 九".split(), first=0),  # noqa: RUF001
    factors={"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8},
    points=frozenset("点點"),
    large=10**4,
)
_HINDI = _Language(
    addends=_named(
        *"""
        शून्य|ज़ीरो|जीरो एक दो तीन चार पाँच|पांच छह|छः|छे|छ सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह|पन्द्रह सोलह सत्रह अठारह|अट्ठारह उन्नीस
        बीस इक्कीस बाईस|बाइस तेईस|तेइस चौबीस पच्चीस छब्बीस सत्ताईस|सत्ताइस अट्ठाईस|अट्ठाइस|अठाईस उनतीस|उन्तीस
        तीस इकतीस|इकत्तीस बत्तीस तैंतीस|तेंतीस चौंतीस पैंतीस छत्तीस सैंतीस अड़तीस उनतालीस|उन्तालीस
        चालीस इकतालीस बयालीस तैंतालीस|तेतालीस चौवालीस|चवालीस पैंतालीस छियालीस सैंतालीस अड़तालीस उनचास|उन्चास
        पचास इक्यावन बावन तिरपन|तिरेपन चौवन पचपन छप्पन सत्तावन अट्ठावन|अठावन उनसठ
        साठ इकसठ बासठ तिरसठ|तिरेसठ चौंसठ|चौसठ पैंसठ छियासठ सड़सठ अड़सठ उनहत्तर
        सत्तर इकहत्तर बहत्तर तिहत्तर चौहत्तर पचहत्तर छिहत्तर सतहत्तर अठहत्तर उनासी|उन्यासी
        अस्सी इक्यासी बयासी तिरासी चौरासी पचासी छियासी सत्तासी अट्ठासी|अठासी नवासी
        नब्बे इक्यानवे|इक्यानबे बानवे|बानबे तिरानवे|तिरानबे चौरानवे|चौरानबे पचानवे|पंचानवे|पचानबे छियानवे|छियानबे सत्तानवे|सत्तानबे अट्ठानवे|अट्ठानबे|अठानवे निन्यानवे|निन्यानबे
        """.split(),  # noqa: E501
        first=0,
    ),
    factors={
        unicodedata.normalize("NFKC", word): 10**zeros
        for zeros, words in ((2, "सौ"), (3, "हज़ार हजार"), (5, "लाख"), (7, "करोड़ करोड"))
        for word in words.split()
    },
    points=frozenset({"दशमलव"}),
)
_ARABIC = _Language(
    addends={
        _arabic(word): value
        for word, value in (
            _named(
                *"""
                صفر واحد|واحدة|أحد|إحدى اثنان|اثنين|اثنا|اثني|اثنتان|اثنتين|اثنتا|اثنتي ثلاثة|ثلاث أربعة|أربع خمسة|خمس
                ستة|ست سبعة|سبع ثمانية|ثماني|ثمان تسعة|تسع عشرة|عشر
                """.split(),
                first=0,
            )
            | _named(
                *"""
                عشرون|عشرين ثلاثون|ثلاثين أربعون|أربعين خمسون|خمسين ستون|ستين سبعون|سبعين ثمانون|ثمانين تسعون|تسعين
                """.split(),
                first=20,
                step=10,
            )
            | _named(
                *"""
                مئتان|مئتين|مائتان|مائتين|مئتا|مائتا ثلاثمائة|ثلاثمئة أربعمائة|أربعمئة خمسمائة|خمسمئة ستمائة|ستمئة
                سبعمائة|سبعمئة ثمانمائة|ثمانمئة|ثمانيمائة تسعمائة|تسعمئة
                """.split(),
                first=200,
                step=100,
            )
        ).items()
    },
    factors={
        _arabic(word): 10**zeros
        for zeros, words in (
            (2, "مائة مئة مية"),
            (3, "ألف ألفا آلاف"),
            (6, "مليون مليونا ملايين"),
            (9, "مليار مليارا مليارات"),
        )
        for word in words.split()
    },
    points=frozenset({"فاصله"}),
    links=frozenset({"و"}),
    fold=_arabic,
)
_LANGUAGES = {"ar": _ARABIC, "hi": _HINDI, "ja": _HANZI, "yue": _HANZI, "zh": _HANZI}
