"""The next version of a transcript while it is made: words by id, with what a person has changed."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Final

from agents.text.corrections.times import with_times
from schemas.transcript_words import TranscriptWord

_SLOT: Final = re.compile(r"w(\d+)")


@dataclass(frozen=True, slots=True)
class Edited:
    """The words of a new version, and what is different in it."""

    words: list[TranscriptWord]
    #: Words that were added, removed, or written otherwise or by another speaker.
    changed_words: int
    #: Ids of words whose text a person has decided, removed ones included.
    decided: tuple[str, ...]


@dataclass
class Draft:
    """A transcript that is being changed. `version` is the number of the new version."""

    before: Sequence[TranscriptWord]
    version: int
    #: By id of a word before, what stands in its place, and behind it.
    _cells: dict[str, list[TranscriptWord]] = field(init=False)
    _behind: dict[str | None, list[TranscriptWord]] = field(init=False, default_factory=dict)
    _decided: dict[str, None] = field(init=False, default_factory=dict)
    _numbers: count[int] = field(init=False, default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self._cells = {word.id: [word] for word in self.before}

    def __contains__(self, id: str) -> bool:
        return id in self._cells

    def new_word(self, text: str, speaker: str | None) -> TranscriptWord:
        """A word that a person has written, with an id of its own and without times."""
        return TranscriptWord(f"e{self.version}.{next(self._numbers)}", text, speaker=speaker, confidence=1.0)

    def put(self, id: str, words: list[TranscriptWord]) -> None:
        """Have these words in the place of one."""
        self._cells[id] = words
        self._decided[id] = None

    def assign(self, id: str, word: TranscriptWord, speaker: str | None) -> None:
        """Give the word to a speaker; its text is not decided thereby."""
        self._cells[id] = [replace(word, speaker=speaker)]

    def add(self, after: str | None, words: Iterable[TranscriptWord]) -> None:
        """Have these words behind one, and behind those that were added there before; None: at the beginning."""
        self._behind.setdefault(after, []).extend(words)

    def add_slot(self, slot: str, word: TranscriptWord) -> None:
        """Have this word in a slot that has none, behind the words of the slots before."""
        words = self._behind.setdefault(self.before_slot(slot), [])
        following = (index for index, other in enumerate(words) if (_number(other.id) or 0) > (_number(slot) or 0))
        words.insert(next(following, len(words)), word)

    def map(self, change: Callable[[TranscriptWord], TranscriptWord]) -> None:
        """Change every word; whether it was decided stays."""
        for words in (*self._cells.values(), *self._behind.values()):
            words[:] = map(change, words)

    def word(self, id: str) -> TranscriptWord | None:
        """The word as it is now; None if it was removed."""
        return next(iter(self._cells[id]), None)

    def decide(self, slots: Iterable[str]) -> None:
        """Note that a person has decided what stands in these places."""
        self._decided.update(dict.fromkeys(slots))

    def before_slot(self, slot: str) -> str | None:
        """The word behind which one of this slot belongs that the transcript does not have; None: at the beginning."""
        place = bisect.bisect_left(self._slots, _number(slot) or 0)
        return f"w{self._slots[place - 1]}" if place else None

    @cached_property
    def _slots(self) -> list[int]:
        """The numbers of the slots that have a word, in order."""
        return sorted(number for word in self.before if (number := _number(word.id)) is not None)

    def finished(self) -> Edited:
        """The new version."""
        words = list(self._behind.get(None, ()))
        for id, placed in self._cells.items():
            words += placed
            words += self._behind.get(id, ())
        words = with_times(words)
        return Edited(words, changed_words(self.before, words), tuple(self._decided))


def changed_words(before: Sequence[TranscriptWord], after: Sequence[TranscriptWord]) -> int:
    """Words that were added, removed, or written otherwise or by another speaker."""
    old = {word.id: (word.text, word.speaker) for word in before}
    kept = [word for word in after if word.id in old]
    different = sum(old[word.id] != (word.text, word.speaker) for word in kept)
    return different + (len(after) - len(kept)) + (len(old) - len(kept))


def by_hand(word: TranscriptWord, text: str) -> TranscriptWord:
    """The word as a person has written or confirmed it."""
    return replace(word, text=text, confidence=1.0, disputed=False)


def _number(id: str) -> int | None:
    match = _SLOT.fullmatch(id)
    return int(match[1]) if match else None
