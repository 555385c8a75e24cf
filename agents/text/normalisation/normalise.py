"""Words made comparable: what two recognizers wrote differently but heard alike gets the same tokens.

The original words stay as they are; a token only says which words it came from. English follows the rules of Whisper's
English normaliser (Radford et al. 2022, appendix C; MIT), because that is what word error rates are counted on, but
keeps track of the words and keeps fillers. Other languages are folded (NFKC, case, punctuation); scripts without spaces
are compared character by character.
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

#: Sounds that carry no meaning; scoring ignores them, the transcript keeps them when they are chosen.
FILLERS = frozenset({"hmm", "mm", "mhm", "mmm", "uh", "um"})

#: Longest run of number words read as one, in words: bounds the time a hostile input can cost.
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
    """A transcript as comparable tokens, in groups: a group is the fewest words that must be taken together.

    Nearly every group is one word with one token; "can't" is one word with two tokens, "twenty twenty" two words with
    one.
    """

    keys: list[str]
    #: Per token, the group it belongs to.
    group: list[int]
    #: Per group, its first word; one more at the end, the number of words.
    first_word: list[int]


def tokenise(texts: Iterable[str], language: str | None = None) -> Tokens:
    """The tokens of a transcript. Every word that is not blank gets at least one token; blank ones belong to the group
    before.
    """
    english = language is None or language.lower().startswith("en")
    keys: list[str] = []
    group: list[int] = []
    first_word: list[int] = []
    run: list[tuple[str, ...]] = []
    count = 0
    for text in texts:
        pieces, numeric = _pieces(text, english)
        if run and (not numeric or len(run) == LONGEST_NUMBER):
            _add_numbers(run, count, keys, group, first_word)
            run = []
        if numeric:
            run.append(pieces)
        elif pieces or not first_word:
            group.extend([len(first_word)] * len(pieces))
            first_word.append(count)
            keys.extend(pieces)
        count += 1
    _add_numbers(run, count, keys, group, first_word)
    first_word.append(count)
    return Tokens(keys, group, first_word)


def normalised(text: str, language: str | None = None) -> list[str]:
    """A line of text as comparable tokens."""
    return tokenise(text.split(), language).keys


def is_silent(token: str) -> bool:
    """Whether a token is a filler, a mark or a note in brackets: kept in the transcript, not counted in scores."""
    return token in FILLERS or token[0] in "<[(" or not any(c.isalnum() for c in token)


def _add_numbers(
    run: list[tuple[str, ...]], end: int, keys: list[str], group: list[int], first_word: list[int]
) -> None:
    """Append a run of words that may spell numbers, which ends before word `end`."""
    if not run:
        return
    word = end - len(run)
    for size, tokens in _number_groups(tuple(run)):
        group.extend([len(first_word)] * len(tokens))
        first_word.append(word)
        keys.extend(tokens)
        word += size


@lru_cache(1 << 14)
def _number_groups(run: tuple[tuple[str, ...], ...]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """A run of words as (words, tokens) groups, each as small as reading the numbers allows."""
    groups = []
    whole = read_numbers([piece for word in run for piece in word])
    while run:
        for size in range(1, len(run) + 1):
            head = read_numbers([piece for word in run[:size] for piece in word])
            tail = read_numbers([piece for word in run[size:] for piece in word])
            if head and head + tail == whole:
                break
        groups.append((size, tuple(head)))
        run, whole = run[size:], tail
    return tuple(groups)


@lru_cache(1 << 16)
def _pieces(text: str, english: bool) -> tuple[tuple[str, ...], bool]:
    """The tokens of one word before numbers are read, and whether it may be a part of a number."""
    pieces = _english(text) if english else _folded(text)
    if not pieces and text.strip():
        pieces = (text.strip().casefold(),)
    numeric = english and all(piece in NUMBER_WORDS or any(c.isdigit() for c in piece) for piece in pieces)
    return pieces, numeric and bool(pieces)


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
    return tuple(piece for word in lowered.split() for piece in _characters(_spellings().get(word, word)))


def _symbol(c: str) -> str:
    if c in _KEEP:
        return c
    category = unicodedata.category(c)
    if category == "Mn" and unicodedata.combining(c) >= 200:  # accents of Latin, Greek, Cyrillic; not vowel signs
        return ""
    return " " if category[0] in "SPC" else c


def _folded(text: str) -> tuple[str, ...]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = "".join(" " if unicodedata.category(c)[0] in "SPC" else c for c in folded)
    return tuple(piece for word in folded.split() for piece in _characters(word))


def _characters(word: str) -> list[str]:
    """Han, Kana, Thai, Lao, Khmer and Burmese are written without spaces: one token a character."""
    return list(word) if word > "\u0dff" and any(_spaceless(c) for c in word) else [word]


def _spaceless(c: str) -> bool:
    return "\u0e00" <= c <= "\u0eff" or "\u1000" <= c <= "\u109f" or "\u1780" <= c <= "\u17ff" or (
        "\u3040" <= c <= "\u9fff" or "\U00020000" <= c <= "\U0003ffff"
    )  # fmt: skip


@cache
def _spellings() -> dict[str, str]:
    """British to American spelling, as Whisper's normaliser has it."""
    path = Path(__file__).with_name("spellings.json")
    spellings: dict[str, str] = json.loads(path.read_text("utf-8"))
    return spellings
