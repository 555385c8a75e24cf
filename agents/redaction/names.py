"""Finds names of persons: after words that introduce one, and first names of a list with what follows them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from agents.redaction.finding import Finding, Words
from agents.redaction.languages.vocabulary import Phrase, Vocabulary

#: Words of one name, at most.
_MOST: Final = 4


@cache
def _by_first(language: Vocabulary, rank: str) -> dict[str, list[Phrase]]:
    """The phrases before names, by their first words."""
    by_first: dict[str, list[Phrase]] = {}
    for phrase in language.introductions if rank == "strong" else language.weak_introductions:
        by_first.setdefault(phrase[0], []).append(phrase)
    return by_first


def names(words: Words) -> Iterator[Finding]:
    """The names: where they are told, and wherever else these names stand in the call."""
    language, told = words.vocabulary, set[str]()
    for finding, is_sure in _told(words):
        yield finding
        plain = {one.removesuffix("'s") for one in words.plain[finding.start : finding.end]}
        told |= {
            one for one in plain if len(one) > 1 and (is_sure or one in language.all_first_names)
        } - language.function_words
    for at, word in enumerate(words.plain):
        if word.removesuffix("'s") in told and (
            words.is_capital(at) if words.is_cased else _is_rare(word, language, _RARE)
        ):
            yield Finding(at, at + 1, "name", rank=8)


def _told(words: Words) -> Iterator[tuple[Finding, bool]]:
    """The names that the words around them or a list make such, and whether it is sure whatever name it is."""
    first = words.vocabulary.first_names
    for at, word in enumerate(words.plain):
        for rank in ("strong", "weak"):
            if (start := _after_phrase(words, at, rank)) and (end := _end(words, start, is_sure=rank == "strong")):
                yield Finding(start, _spelled(words, end), "name", rank=8), rank == "strong"
        is_first = word.removesuffix("'s") in first and _stands_as_name(words, at)
        if is_first and (end := _rest(words, at + 1)) > at:
            yield Finding(at, _spelled(words, end), "name", rank=8), False
        if word in words.vocabulary.behind and at and _says_so(words, at - 1):
            yield Finding(at - 1, at, "name", rank=8), False


def _says_so(words: Words, at: int) -> bool:
    """Whether a word before "speaking" is the name of who speaks."""
    is_name = words.is_capital(at) if words.is_cased else at > 0 and words.plain[at - 1] in words.vocabulary.is_words
    return is_name and words.plain[at] in words.vocabulary.all_first_names and not words.ends_sentence(at)


def _after_phrase(words: Words, at: int, rank: str) -> int:
    """The index after a phrase that begins here; 0 if there is none."""
    plain = words.plain
    for phrase in _by_first(words.vocabulary, rank).get(plain[at], ()):
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
    end = _rest(words, start + 1)
    return end if end > start else 0


def _may_begin(words: Words, at: int, *, is_sure: bool) -> bool:
    word, language = words.plain[at].removesuffix("'s"), words.vocabulary
    if is_sure and word in language.first_particles:
        while at < len(words.plain) - 1 and words.plain[at] in language.first_particles:
            at += 1
        return _is_possible(words, at) and (words.is_capital(at) or not words.is_cased)
    if not _is_possible(words, at):
        return False
    if is_sure:
        return words.is_capital(at) or not words.is_cased or word in language.last_names or word in language.first_names
    if word in language.first_names:
        return words.is_capital(at) or not words.is_cased
    if not words.is_cased:
        return _is_rare(word, language, _RARE) and not _is_noun(word, language)
    if language.has_capital_nouns:
        return words.is_capital(at) and not words.ends_sentence(at - 1) and _is_like_name(words, at)
    is_like_one = word in language.all_first_names or _is_rare(word, language)
    return words.is_capital(at) and not words.ends_sentence(at - 1) and is_like_one


def _is_like_name(words: Words, at: int) -> bool:
    """Whether a capital word may be a name, in a language in which nouns have capitals, too: one of the lists, or one
    that is no known word, and stands alone or before another such.
    """
    word, language = words.plain[at], words.vocabulary
    if word in language.all_first_names or word in language.last_names:
        return True
    if _is_noun(word, language):
        return False
    if at + 1 == len(words.plain) or words.texts[at][-1:] in ",.?!" or words.plain[at + 1] in language.behind:
        return _is_rare(word, language, _RARE)
    return words.is_capital(at + 1) and _continues(words, at + 1)


def _is_noun(word: str, language: Vocabulary) -> bool:
    """Whether a word is more likely a common noun than a name, in a language in which both have capitals."""
    if not language.has_capital_nouns or word in language.all_first_names or word in language.last_names:
        return False
    return word.endswith(language.noun_endings) or not _is_rare(word, language, _NOUN)


def _is_possible(words: Words, at: int) -> bool:
    """Whether a word may be one of a name: it holds no sentence together, and is no number."""
    word, role = words.plain[at].removesuffix("'s"), words.symbols[at].role
    is_number = role not in ("other", "letters") or any(map(str.isdigit, word))
    language = words.vocabulary
    return bool(word) and not is_number and word not in language.function_words and word not in language.no_names


def _rest(words: Words, at: int) -> int:
    """The index after the last names that follow a name."""
    most = at + _MOST - 1
    while at < min(most, len(words.plain)) and not _ends_name(words, at - 1) and _continues(words, at):
        at += 1
    while words.plain[at - 1] in words.vocabulary.particles and at > 1:
        at -= 1
    return at


def _ends_name(words: Words, at: int) -> bool:
    """Whether a name ends with this word: by punctuation, or as a possessive. An initial has a dot of its own."""
    text = words.texts[at]
    return (text[-1:] in ",.?!;:" and len(words.plain[at]) > 1) or text.endswith("'s")


def _continues(words: Words, at: int) -> bool:
    word, language = words.plain[at].removesuffix("'s"), words.vocabulary
    if word in language.particles and word in language.function_words:
        return _is_before_name(words, at)
    if not _is_possible(words, at):
        return False
    if words.is_cased:
        is_name = words.is_capital(at) and not _is_noun(word, language)
        return is_name or (word in language.particles and _continues_behind(words, at))
    is_listed = word in language.particles or word in language.first_names
    is_listed = is_listed or (word in language.last_names and (not language.census or _is_rare(word, language)))
    return is_listed or _is_rare(word, language, _RARE)


def _is_before_name(words: Words, at: int) -> bool:
    """Whether a word that stands in sentences, too, is a part of a last name here: "de la Fuente"."""
    language = words.vocabulary
    while at < len(words.plain) - 1 and words.plain[at] in language.particles:
        at += 1
    if not _is_possible(words, at):
        return False
    return words.is_capital(at) if words.is_cased else words.plain[at] in language.last_names


def _continues_behind(words: Words, at: int) -> bool:
    return at + 1 < len(words.plain) and (words.is_capital(at + 1) or words.plain[at + 1] in words.vocabulary.particles)


def _stands_as_name(words: Words, at: int) -> bool:
    """Whether a word of the list of first names is meant as one."""
    if words.is_cased:
        return words.is_capital(at)
    return True


def _spelled(words: Words, end: int) -> int:
    """The index after the letters that spell a name, if it is spelled next."""
    at = end
    while at < min(end + _MOST, len(words.plain)) and words.plain[at] in words.vocabulary.spelling:
        at += 1
    begin = at
    while at < len(words.plain) and _is_spelled(words.plain[at]):
        at += 1
    letters = sum(len(plain) for plain in words.plain[begin:at])
    return at if letters > 2 else end


def _is_spelled(plain: str) -> bool:
    """Whether it is a letter by itself, or letters that are written as spelled: "o-k-a-y"."""
    return plain.isalpha() if len(plain) == 1 else len(plain) > 2 and set(plain[1::2]) <= {"-", "."}


#: Zipf frequencies (log10 in 10^9 words) from which a word is common, and below which it is rare enough to be a name
#: where no capital says so.
_COMMON, _RARE = 4.6, 3.2

#: The same from which a word with a capital is a noun, where nouns have them.
_NOUN = 4.0


def _is_rare(word: str, language: Vocabulary, below: float = _COMMON) -> bool:
    """Whether a word is not one of the commoner ones of its language, of which any may stand here."""
    from agents.text.frequency import frequencies

    return frequencies(language.language).get(word, 0.0) < below
