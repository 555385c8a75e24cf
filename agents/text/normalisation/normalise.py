"""Converts words to comparable tokens: the same tokens for the same words in different spellings.

The original words are kept; each token belongs to a group of words. English follows the rules of Whisper's English
normaliser (Radford et al. 2022, appendix C; MIT), on which word error rates are usually counted, but keeps fillers.
Other languages are folded (NFKC, case, punctuation). Scripts without spaces are compared character by character.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from agents.text.normalisation.numbers import NUMBER_WORDS, read_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Sounds without meaning. Scores ignore them; a transcript contains them if they are chosen.
FILLERS = frozenset({"hmm", "mm", "mhm", "mmm", "uh", "um"})

#: Words of the longest run that is read as one number: bounds the time for hostile input.
LONGEST_NUMBER = 12

_WHOLE = {
    "won't": "will not", "can't": "can not", "let's": "let us", "ain't": "aint", "y'all": "you all", "wanna": "want to",
    "kinda": "kind of", "sorta": "sort of", "dunno": "do not know", "gotta": "got to", "gonna": "going to",
    "i'ma": "i am going to", "imma": "i am going to", "woulda": "would have", "coulda": "could have",
    "shoulda": "should have", "cause": "because", "ma'am": "madam", "mr": "mister", "mrs": "missus", "st": "saint",
    "dr": "doctor", "prof": "professor", "capt": "captain", "gov": "governor", "ald": "alderman", "gen": "general",
    "sen": "senator", "rep": "representative", "pres": "president", "rev": "reverend", "hon": "honorable",
    "asst": "assistant", "assoc": "associate", "lt": "lieutenant", "col": "colonel", "jr": "junior", "sr": "senior",
    "esq": "esquire",
}  # fmt: skip
_WHOLE_RE = re.compile(r"\b(" + "|".join(map(re.escape, _WHOLE)) + r")\b")
_ENDINGS = [
    (re.compile(pattern + r"\b"), words)
    for pattern, words in (
        ("n't", " not"), ("'re", " are"), ("'s", " is"), ("'d", " would"), ("'ll", " will"), ("'t", " not"),
        ("'ve", " have"), ("'m", " am"),
    )
]  # fmt: skip
#: Latin letters that Unicode does not decompose.
_LETTERS = str.maketrans({
    "œ": "oe", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ð": "d", "þ": "th", "ł": "l",
    "’": "'", "‘": "'", "ʼ": "'",  # noqa: RUF001
})  # fmt: skip
_KEEP = frozenset(".%$¢€£")
_PLAIN = re.compile(r"[a-z]+\Z")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A transcript as comparable tokens, in groups. A group is the fewest consecutive words with tokens of their own.

    Nearly every group is one word with one token. "can't" is one word with two tokens, "twenty twenty" is two words
    with one token.
    """

    keys: list[str]
    #: Per token, its group.
    group: list[int]
    #: Per group, the index of its first word; at the end, the number of words.
    first_word: list[int]


def tokenise(texts: Iterable[str], language: str | None = None) -> Tokens:
    """The tokens of a transcript's words. Every word that is not blank has at least one token; blank ones belong to the
    previous group.
    """
    english = language is None or language.lower().startswith("en")
    keys: list[str] = []
    group: list[int] = []
    first_word: list[int] = []
    run: list[tuple[str, ...]] = []
    count = 0
    for text in texts:
        word, numeric = word_tokens(text, english)
        if run and (not numeric or len(run) == LONGEST_NUMBER):
            _add_numbers(run, count, keys, group, first_word)
            run = []
        if numeric:
            run.append(word)
        elif word or not first_word:
            group.extend([len(first_word)] * len(word))
            first_word.append(count)
            keys.extend(word)
        count += 1
    _add_numbers(run, count, keys, group, first_word)
    first_word.append(count)
    return Tokens(keys, group, first_word)


def normalised(text: str, language: str | None = None) -> list[str]:
    """The comparable tokens of a text."""
    return tokenise(text.split(), language).keys


def is_silent(token: str) -> bool:
    """Whether a token is a filler, punctuation or a note in brackets, which scores ignore."""
    return token in FILLERS or token[0] in "<[(" or not any(c.isalnum() for c in token)


def _add_numbers(
    run: list[tuple[str, ...]], end: int, keys: list[str], group: list[int], first_word: list[int]
) -> None:
    """Append the groups of a run of words that may spell numbers; `end` is the index of the word after it."""
    if not run:
        return
    word = end - len(run)
    for size, tokens in number_groups(tuple(run)):
        group.extend([len(first_word)] * len(tokens))
        first_word.append(word)
        keys.extend(tokens)
        word += size


@lru_cache(1 << 14)
def number_groups(run: tuple[tuple[str, ...], ...]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """A run of words, each with its tokens, in the smallest possible groups, as (number of words, tokens with spelled
    numbers as digits).
    """
    groups = []
    whole = _read(run)
    while run:
        for size in range(1, len(run) + 1):
            head, tail = _read(run[:size]), _read(run[size:])
            if head and head + tail == whole:
                break
        groups.append((size, tuple(head)))
        run, whole = run[size:], tail
    return tuple(groups)


def _read(run: tuple[tuple[str, ...], ...]) -> list[str]:
    """The tokens of a run of words, with spelled numbers as digits."""
    return read_numbers([token for word in run for token in word])


@lru_cache(1 << 16)
def word_tokens(text: str, english: bool) -> tuple[tuple[str, ...], bool]:
    """The tokens of one word before numbers are read, and whether it may be part of a number."""
    tokens = _english(text) if english else _folded(text)
    if not tokens and text.strip():
        tokens = (text.strip().casefold(),)
    numeric = english and all(token in NUMBER_WORDS or any(c.isdigit() for c in token) for token in tokens)
    return tokens, numeric and bool(tokens)


def _english(text: str) -> tuple[str, ...]:
    lowered = text.lower().translate(_LETTERS)
    if _PLAIN.match(lowered) and lowered not in _WHOLE:
        return (_spellings().get(lowered, lowered),)
    lowered = re.sub(r"[<\[][^>\]]*[>\]]|\([^)\d]+\)", "", lowered)
    lowered = _WHOLE_RE.sub(lambda match: _WHOLE[match[1]] + " ", lowered)
    for pattern, words in _ENDINGS:
        lowered = pattern.sub(words, lowered)
    lowered = re.sub(r"(\d),(?=\d)", r"\1", lowered)
    lowered = re.sub(r"\.(?!\d)", " ", lowered)
    lowered = "".join(_symbol(c) for c in unicodedata.normalize("NFKD", lowered))
    lowered = re.sub(r"(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])", " ", lowered)
    lowered = re.sub(r"(\d)\s+(st|nd|rd|th|s)\b", r"\1\2", lowered)
    lowered = re.sub(r"[.$¢€£](?!\d)|(?<!\d)%", " ", lowered)
    return tuple(token for word in lowered.split() for token in _characters(_spellings().get(word, word)))


def _symbol(c: str) -> str:
    if c in _KEEP:
        return c
    category = unicodedata.category(c)
    if category == "Mn" and unicodedata.combining(c) >= 200:  # accents of Latin, Greek, Cyrillic; not vowel signs
        return ""
    return " " if category[0] in "SPC" else c


def _folded(text: str) -> tuple[str, ...]:
    folded = fold_digits(unicodedata.normalize("NFKC", text).casefold())
    folded = "".join(" " if unicodedata.category(c)[0] in "SPC" else c for c in folded)
    return tuple(token for word in folded.split() for token in _characters(word))


def fold_digits(text: str) -> str:
    """The text with the decimal digits of all scripts as ASCII digits."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _characters(word: str) -> list[str]:
    """One token per character for scripts without spaces (Han, Kana, Thai, Lao, Khmer, Burmese); otherwise the word."""
    return list(word) if word > "\u0dff" and any(_spaceless(c) for c in word) else [word]


def _spaceless(c: str) -> bool:
    return "\u0e00" <= c <= "\u0eff" or "\u1000" <= c <= "\u109f" or "\u1780" <= c <= "\u17ff" or (
        "\u3040" <= c <= "\u9fff" or "\U00020000" <= c <= "\U0003ffff"
    )  # fmt: skip


@cache
def _spellings() -> dict[str, str]:
    """American spellings by British ones, from Whisper's normaliser."""
    path = Path(__file__).with_name("spellings.json")
    spellings: dict[str, str] = json.loads(path.read_text("utf-8"))
    return spellings
