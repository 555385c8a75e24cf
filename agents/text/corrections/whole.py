"""Replaces all of a transcript's text: words that stay keep their ids and times, by alignment with the words before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from agents.text.alignment.align import align
from agents.text.corrections.draft import Draft, Edited, by_hand, changed_words
from agents.text.corrections.times import with_times
from schemas.corrections.changes import MAX_WORDS, RefusedChange, SegmentText, WholeTranscript
from schemas.texts import is_unspaced, readable
from schemas.transcript_words import TranscriptWord

_MARKS: Final = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is aligned: a word as spaces divide it, or a character of a script that is written without spaces."""

    text: str
    #: Whether a space stands before it.
    spaced: bool
    #: Index of the word before the edit, or of the segment, that it belongs to.
    owner: int


def rewritten(words: Sequence[TranscriptWord], whole: WholeTranscript, version: int) -> Edited:
    """The words of version `version`, which has this text and these speakers.

    Raises:
        RefusedChange: it has too many words.
    """
    segments = whole.segments if whole.segments is not None else [SegmentText(text=whole.text or "")]
    old = [unit for index, word in enumerate(words) for unit in _units(word.text, index)]
    new = [unit for index, segment in enumerate(segments) for unit in _units(segment.text, index)]
    if len(new) > MAX_WORDS:
        raise RefusedChange("/text" if whole.text else "/segments", f"use at most {MAX_WORDS} words")
    draft = Draft(words, version)
    after: list[TranscriptWord] = []
    for owner, group in _grouped(new, _matched(old, new)):
        text = "".join(f"{' ' * unit.spaced}{unit.text}" for unit in group).strip()
        word = draft.new_word(text, _speaker(after, words)) if owner is None else words[owner]
        word = word if word.text == text else by_hand(word, text)
        segment = segments[group[0].owner]
        has_speaker = "speaker" in segment.model_fields_set and segment.speaker != word.speaker
        after.append(replace(word, speaker=segment.speaker) if has_speaker else word)
    after = with_times(after)
    return Edited(after, changed_words(words, after), tuple(_decided(words, after)))


def _speaker(after: Sequence[TranscriptWord], words: Sequence[TranscriptWord]) -> str | None:
    """Who says a new word: who speaks before it, or first."""
    neighbours = [*after[-1:], *words[:1]]
    return neighbours[0].speaker if neighbours else None


def _decided(before: Sequence[TranscriptWord], after: Iterable[TranscriptWord]) -> Iterator[str]:
    """Ids of the words that are gone or written otherwise."""
    texts = {word.id: word.text for word in after}
    return (word.id for word in before if texts.get(word.id) != word.text)


def _units(text: str, owner: int) -> Iterator[_Unit]:
    for token in readable(" ".join(text.split())).split():
        spaced = True
        for part in _parts(token):
            yield _Unit(part, spaced, owner)
            spaced = False


def _parts(token: str) -> Iterator[str]:
    """The token, or its characters where they belong to a script without spaces."""
    if token.isascii() or not any(map(is_unspaced, token)):
        yield token
        return
    rest = ""
    for character in token:
        if is_unspaced(character):
            if rest:
                yield rest
            yield character
            rest = ""
        else:
            rest += character
    if rest:
        yield rest


def _matched(old: Sequence[_Unit], new: Sequence[_Unit]) -> list[int | None]:
    """For each new unit the index of the word before that it belongs to."""
    matched: list[int | None] = [None] * len(new)
    if not old or not new:
        return matched
    names: dict[str, int] = {}
    rows = [np.array([names.setdefault(_key(unit), len(names)) for unit in units]) for units in (old, new)]
    for left, right in align(rows, list(names)).tolist():
        if left >= 0 and right >= 0:
            matched[right] = old[left].owner
    return matched


def _key(unit: _Unit) -> str:
    """What is compared: without case and punctuation, unless it is punctuation alone."""
    return _MARKS.sub("", unit.text.casefold()) or unit.text


def _grouped(units: Sequence[_Unit], matched: Sequence[int | None]) -> list[tuple[int | None, list[_Unit]]]:
    """The units of each new word, with the word before whose place it takes. What stands between two units of one word
    before, and in the same segment, belongs to that word.
    """
    groups: list[tuple[int | None, list[_Unit]]] = []
    last = 0  # of the groups, the last one that takes a word's place
    for unit, owner in zip(units, matched, strict=True):
        if groups and owner is not None and owner == groups[last][0]:
            between = [one for _, group in groups[last:] for one in group]
            if between[0].owner == unit.owner:
                groups[last:] = [(owner, [*between, unit])]
                continue
            owner = None  # the word before is in the segment before
        adjoins = bool(groups) and not unit.spaced and groups[-1][1][-1].owner == unit.owner
        if owner is None and adjoins:
            groups[-1][1].append(unit)
            continue
        last = len(groups) if owner is not None else last
        groups.append((owner, [unit]))
    return groups
