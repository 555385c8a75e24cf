"""Finds names of persons: after words that introduce one, and first names of a list with what follows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agents.redaction.finding import Finding, Words
from agents.redaction.vocabulary import FUNCTION_WORDS, all_first_names, first_names, last_names

#: Phrases after which comes a name, whatever it is.
_STRONG: Final = tuple(
    tuple(phrase.split())
    for phrase in (
        "my name is|name is|my name's|name's|last name is|last name|first name is|first name|surname is|surname|"
        "maiden name is|maiden name|name on the card is|name on the account is|full name is|full name|names are|"
        "cardholder is|account holder is|cardholder|account holder|named|mr|mrs|ms|miss|mister|missus|dr|doctor|"
        "professor|prof|madam|husband's name is|wife's name is|under the name|under the name of|in the name of"
    ).split("|")
)
#: Phrases after which comes a name if the word is a first name, or is written like a name.
_WEAK: Final = tuple(
    tuple(phrase.split())
    for phrase in (
        "this is|i'm|i am|it's|speaking with|speaking to|speak with|speak to|spoke with|spoke to|talk to|talked to|"
        "talking to|talking with|thanks|thank you|hi|hello|hey|dear|good morning|good afternoon|good evening|called|"
        "calling for|on behalf of|ask for|asked for|husband|wife|son|daughter|brother|sister|mother|father|mom|dad|"
        "colleague|supervisor|manager|agent|patient|customer|client|tenant|neighbor|beneficiary is|beneficiary|"
        "contact is|regards|signed|sincerely|meet|met|ask|asked|tell|told"
    ).split("|")
)
_BY_FIRST: Final = {
    rank: {first: [p for p in phrases if p[0] == first] for first in {p[0] for p in phrases}}
    for rank, phrases in (("strong", _STRONG), ("weak", _WEAK))
}
#: Words behind a name, and words before one that make it such where no capital does.
_BEHIND: Final = frozenset(("speaking", "here", "calling"))
_IS: Final = frozenset(("is", "it's", "i'm", "am"))

#: Words of one name, at most.
_MOST: Final = 4

#: Parts of last names.
_PARTICLES: Final = frozenset("van von de der den da di del la le el al bin ibn ter ten mac mc o' st".split())

#: Words that a recognizer capitalises, or that follow "I'm" and "this is", and that are no names.
_NO_NAMES: Final = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december english spanish french german american british i'm i'll i've i'd ok okay "
    "mr mrs ms dr miss mister doctor sir ma'am madam internet google amazon facebook apple microsoft visa mastercard "
    "paypal god christmas easter customer service support sales billing team everyone everybody guys folks operator "
    "street avenue road lane drive boulevard court city state county bank".split()
)


def names(words: Words) -> Iterator[Finding]:
    """The names: where they are told, and wherever else these names stand in the call."""
    told: set[str] = set()
    for finding, is_sure in _told(words):
        yield finding
        plain = {one.removesuffix("'s") for one in words.plain[finding.start : finding.end]}
        told |= {one for one in plain if len(one) > 1 and (is_sure or one in all_first_names())} - FUNCTION_WORDS
    for at, word in enumerate(words.plain):
        if word.removesuffix("'s") in told and (words.is_capital(at) if words.is_cased else _is_rare(word, _RARE)):
            yield Finding(at, at + 1, "name", rank=8)


def _told(words: Words) -> Iterator[tuple[Finding, bool]]:
    """The names that the words around them or a list make such, and whether it is sure whatever name it is."""
    first = first_names()
    for at, word in enumerate(words.plain):
        for rank in ("strong", "weak"):
            if (start := _after_phrase(words, at, rank)) and (end := _end(words, start, is_sure=rank == "strong")):
                yield Finding(start, _spelled(words, end), "name", rank=8), rank == "strong"
        if word.removesuffix("'s") in first and _stands_as_name(words, at):
            yield Finding(at, _spelled(words, _rest(words, at + 1)), "name", rank=8), False
        if word in _BEHIND and at and _says_so(words, at - 1):
            yield Finding(at - 1, at, "name", rank=8), False


def _says_so(words: Words, at: int) -> bool:
    """Whether a word before "speaking" is the name of who speaks."""
    is_name = words.is_capital(at) if words.is_cased else at > 0 and words.plain[at - 1] in _IS
    return is_name and words.plain[at] in all_first_names() and not words.ends_sentence(at)


def _after_phrase(words: Words, at: int, rank: str) -> int:
    """The index after a phrase that begins here; 0 if there is none."""
    plain = words.plain
    for phrase in _BY_FIRST[rank].get(plain[at], ()):
        end = at + len(phrase)
        if tuple(plain[at:end]) == phrase and end < len(plain):
            return end
    return 0


def _end(words: Words, start: int, *, is_sure: bool) -> int:
    """The index after the name that begins here; 0 if there is none."""
    while start < len(words.plain) and words.symbols[start].role == "filler":
        start += 1
    if start >= len(words.plain) or not _may_begin(words, start, is_sure=is_sure):
        return 0
    return _rest(words, start + 1)


def _may_begin(words: Words, at: int, *, is_sure: bool) -> bool:
    word = words.plain[at].removesuffix("'s")
    if not _is_possible(words, at):
        return False
    if is_sure:
        return words.is_capital(at) or not words.is_cased or word in last_names() or word in first_names()
    if word in first_names():
        return words.is_capital(at) or not words.is_cased
    if not words.is_cased:
        return _is_rare(word, _RARE)
    is_like_one = word in all_first_names() or _is_rare(word)
    return words.is_capital(at) and not words.ends_sentence(at - 1) and is_like_one


def _is_possible(words: Words, at: int) -> bool:
    """Whether a word may be one of a name: it holds no sentence together, and is no number."""
    word, role = words.plain[at].removesuffix("'s"), words.symbols[at].role
    is_number = role not in ("other", "letters") or any(map(str.isdigit, word))
    return bool(word) and not is_number and word not in FUNCTION_WORDS and word not in _NO_NAMES


def _rest(words: Words, at: int) -> int:
    """The index after the last names that follow a name."""
    most = at + _MOST - 1
    while at < min(most, len(words.plain)) and not _ends_name(words, at - 1) and _continues(words, at):
        at += 1
    while words.plain[at - 1] in _PARTICLES and at > 1:
        at -= 1
    return at


def _ends_name(words: Words, at: int) -> bool:
    """Whether a name ends with this word: by punctuation, or as a possessive. An initial has a dot of its own."""
    text = words.texts[at]
    return (text[-1:] in ",.?!;:" and len(words.plain[at]) > 1) or text.endswith("'s")


def _continues(words: Words, at: int) -> bool:
    word = words.plain[at].removesuffix("'s")
    if not _is_possible(words, at):
        return False
    if words.is_cased:
        return words.is_capital(at) or (word in _PARTICLES and _continues_behind(words, at))
    is_listed = word in _PARTICLES or word in first_names() or (word in last_names() and _is_rare(word))
    return is_listed or _is_rare(word, _RARE)


def _continues_behind(words: Words, at: int) -> bool:
    return at + 1 < len(words.plain) and (words.is_capital(at + 1) or words.plain[at + 1] in _PARTICLES)


def _stands_as_name(words: Words, at: int) -> bool:
    """Whether a word of the list of first names is meant as one."""
    if words.is_cased:
        return words.is_capital(at)
    return True


def _spelled(words: Words, end: int) -> int:
    """The index after the letters that spell a name, if it is spelled next."""
    at = end
    while at < min(end + _MOST, len(words.plain)) and words.plain[at] in _SPELLING:
        at += 1
    begin = at
    while at < len(words.plain) and _is_spelled(words.plain[at]):
        at += 1
    letters = sum(len(plain) for plain in words.plain[begin:at])
    return at if letters > 2 else end


def _is_spelled(plain: str) -> bool:
    """Whether it is a letter by itself, or letters that are written as spelled: "o-k-a-y"."""
    return plain.isalpha() if len(plain) == 1 else len(plain) > 2 and set(plain[1::2]) <= {"-", "."}


_SPELLING: Final = frozenset("that's that is spelled spelt it's and as last name first spelling s-p-e-l-l-e-d".split())


#: Zipf frequencies (log10 in 10^9 words) from which a word is common, and below which it is rare enough to be a name
#: where no capital says so.
_COMMON, _RARE = 4.6, 3.2


def _is_rare(word: str, below: float = _COMMON) -> bool:
    """Whether a word is not one of the commoner ones of English, of which a sentence may have any in this place."""
    from agents.text.frequency import frequencies

    return frequencies("en").get(word, 0.0) < below
