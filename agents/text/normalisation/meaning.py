"""Divides words into the smallest parts with a meaning of their own, and gives the same text to the same meaning.

"March third", "March 3rd" and "3 March" are one part each, with one text; so are "$1,250.50" and "twelve hundred fifty
dollars and fifty cents". Texts are compared character by character, so that "health care" and "healthcare" are equal
although one of them has two parts. They are less strict than tokens (`normalise`), whose number is counted by scores.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from agents.text.normalisation import english, other_languages
from agents.text.normalisation.normalise import is_silent, number_groups, word_tokens
from agents.text.normalisation.numbers import NUMBER_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agents.text.normalisation.english import Rules

#: Words of the longest run that is read as one number; longer than in tokens, for amounts with cents.
LONGEST_NUMBER = 18

#: Characters of the longest word in which symbols are read; addresses are searched in quadratic time.
LONGEST_WORD = 100

_PLAIN = re.compile(r"[a-z]+\Z")
#: Groups of digits with dots between them (telephone numbers, addresses), but not a decimal number.
_DOTTED = re.compile(r"\d+(?:\.\d+){2,}\Z", re.ASCII)


class Part(NamedTuple):
    """Consecutive words with one meaning: the index of the first one and of the one after the last."""

    text: str
    first: int
    end: int

    @property
    def numeric(self) -> bool:
        """Whether there is a digit in its text."""
        return _has_digit(self.text)


def parts(words: Iterable[str], language: str | None = None) -> list[Part]:
    """The parts of consecutive words, in order. Words without meaning (fillers, punctuation) are in none."""
    is_english = language is None or language.lower().startswith("en")
    divided = [Part(text, at, at + 1) for at, word in enumerate(words) if (text := _spoken(word, is_english))]
    if is_english:
        if english.MAY_BE_SPELLED.search(" ".join(part.text for part in divided)):
            divided = _rewritten(divided, english.SPELLED)
        divided = list(_with_numbers(divided))
        if any(_has_digit(part.text) for part in divided):
            divided = _rewritten(divided, english.WRITTEN)
    elif language:
        text = " ".join(part.text for part in divided)
        divided = list(_replaced(divided, text, other_languages.numbers(text, language)))
    return [Part(_compared(text), first, end) for text, first, end in divided]


def has_variants(token: str) -> bool:
    """Whether another single token may have the same meaning as this one."""
    return token in english.VARIANTS or _has_digit(token)


@lru_cache(1 << 14)
def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


@lru_cache(1 << 14)
def _spoken(word: str, is_english: bool) -> str:
    """A word's tokens before numbers are read, with a space between them, symbols as words; "" for a silent one."""
    if is_english:
        word = word.lower().replace("\u2019", "'")
        plain = word.strip(".,?!;:\"'")
        if plain in english.ALIASES:
            return english.ALIASES[plain]
        if len(word) <= LONGEST_WORD and not _PLAIN.match(plain):
            word = english.ADDRESS.sub(lambda m: "".join(english.MARKS.get(c, c) for c in m[0].rstrip(".,?!;:")), word)
            for pattern, replacement in english.SYMBOLS:
                word = pattern.sub(replacement, word)
        tokens = [token for part in word.split() for token in _tokens(part)]
    else:
        tokens = other_languages.figures(word)
    return " ".join(token for token in tokens if not is_silent(token))


def _tokens(word: str) -> tuple[str, ...]:
    return (word,) if word in "½¼¾" else word_tokens(word, True)[0]


def _rewritten(divided: list[Part], rules: Rules) -> list[Part]:
    """The parts after each rule in turn; those that a rule has rewritten together are one part."""
    text = " ".join([part.text for part in divided])
    for pattern, new in rules.rules if rules.any.search(text) else ():
        replacements = [
            (m.start(), m.end(), m.expand(new) if isinstance(new, str) else new(m)) for m in pattern.finditer(text)
        ]
        if replacements:
            divided = list(_replaced(divided, text, replacements))
            text = " ".join(part.text for part in divided)
    return divided


def _replaced(divided: list[Part], text: str, replacements: Sequence[tuple[int, int, str]]) -> Iterator[Part]:
    """The parts with some ranges of their text replaced; parts that share a range are one part."""
    begins = list(itertools.accumulate((len(part.text) + 1 for part in divided), initial=0))
    pending = deque(replacements)
    done = 0
    while pending:
        first = bisect.bisect_right(begins, pending[0][0]) - 1
        last = first
        yield from divided[done:first]
        pieces, at = [], begins[first]
        while pending and pending[0][0] < begins[last + 1]:  # several ranges may begin in one part
            start, end, new = pending.popleft()
            pieces += [text[at:start], new]
            at, last = end, bisect.bisect_left(begins, end) - 1
        pieces.append(text[at : begins[last + 1] - 1])
        yield Part("".join(pieces), divided[first].first, divided[last].end)
        done = last + 1
    yield from divided[done:]


def _with_numbers(divided: Sequence[Part]) -> Iterator[Part]:
    """The parts with numbers in digits; those that spell one number are one part."""
    at = 0
    while at < len(divided):
        end = at
        while end < len(divided) and end - at < LONGEST_NUMBER and _may_be_number(divided[end].text):
            end += 1
        if end == at:
            yield divided[at]
            at += 1
            continue
        for size, tokens in number_groups(tuple([tuple(part.text.split()) for part in divided[at:end]])):
            text = " ".join(["1" if name == "one" else name for name in tokens])
            yield Part(text, divided[at].first, divided[at + size - 1].end)
            at += size


@lru_cache(1 << 14)
def _may_be_number(text: str) -> bool:
    return all(token in NUMBER_WORDS or _has_digit(token) for token in text.split())


@lru_cache(1 << 14)
def _compared(text: str) -> str:
    """The text of a part as it is compared with others: without spaces, and without the dots of telephone numbers."""
    return "".join(map(_plain_digits, text.split()))


def _plain_digits(token: str) -> str:
    return token.replace(".", "") if _DOTTED.match(token) else token
