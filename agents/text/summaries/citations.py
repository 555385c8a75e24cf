"""Citations that are checked by quoting: what an item rests on must have been said where it says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agents.text.summaries.utterances import Utterance
from schemas.rendering.segments import span_ms
from schemas.texts import is_unspaced, joined
from schemas.transcript_words import TranscriptWord

#: Words of a quotation at most: two sentences. A longer one says that a whole speech supports an item.
MOST_WORDS: Final = 80

#: Words at least of a quotation on which a statement rests, unless an utterance has no more: "the" is in every call.
LEAST_WORDS: Final = 3


@dataclass(frozen=True, slots=True)
class Quotable:
    """The utterances of a transcript, in which citations are looked for."""

    utterances: Sequence[Utterance]

    def cited(self, id: str, quote: str, *, is_statement: bool = False) -> dict[str, Any] | None:
        """The fields of `schemas.summaries.Cited` for a quotation from an utterance or its neighbours; None if nobody
        says that there, or if a statement cannot rest on it. Case and punctuation do not count, and a quotation begins
        and ends with whole words.
        """
        number = int(id[1:]) if id[:1] == "s" and id[1:].isascii() and id[1:].isdigit() and len(id) < 10 else 0
        if not 1 <= number <= len(self.utterances):
            return None
        utterance = self.utterances[number - 1]
        own = utterance.words
        around = [word for one in self.utterances[max(0, number - 2) : number + 1] for word in one.words]
        for words in (own, around):
            if found := quoted([word.text for word in words], quote):
                is_enough = not is_statement or says_enough(quote, found, [utterance.text])
                return _fields(words[found.start : found.stop]) if is_enough and len(found) <= MOST_WORDS else None
        return None


def says(cited: dict[str, Any], text: str) -> bool:
    """Whether the quotation contains this text, as a name or an amount must be said to be one."""
    return bool(plain(text)) and plain(text) in plain(cited["quote"])


def says_enough(quote: str, found: range, utterances: Iterable[str]) -> bool:
    """Whether a statement may rest on a quotation that has these words: a word that is in every call supports nothing,
    unless it is all that somebody says.
    """
    return len(found) >= LEAST_WORDS or any(map(is_unspaced, quote)) or plain(quote) in map(plain, utterances)


def plain(text: str) -> str:
    """A text without case, punctuation and spaces."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _fields(words: Sequence[TranscriptWord]) -> dict[str, Any]:
    start_ms, end_ms = span_ms(words)
    return {
        "words": tuple(word.id for word in words),
        "quote": joined(word.text for word in words),
        "speaker": words[0].speaker,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "disputed": any(word.disputed for word in words),
    }


def quoted(words: Sequence[str], quote: str) -> range:
    """Which of these words a quotation consists of; empty if it is not among them. It begins and ends with whole words,
    except in scripts without spaces.
    """
    wanted = plain(quote)
    if not wanted:
        return range(0)
    texts = [plain(word) for word in words]
    owners = [index for index, text in enumerate(texts) for _ in text]
    said = "".join(texts)
    at = said.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        begins = at == 0 or owners[at - 1] != owners[at] or is_unspaced(said[at])
        ends = end == len(said) or owners[end - 1] != owners[end] or is_unspaced(said[end - 1])
        if begins and ends:
            return range(owners[at], owners[end - 1] + 1)
        at = said.find(wanted, at + 1)
    return range(0)
