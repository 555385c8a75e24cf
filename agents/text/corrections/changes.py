"""Applies changes of single words and speakers to a transcript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agents.text.corrections.draft import Draft, Edited, by_hand
from schemas.corrections.changes import (
    AssignSpeaker,
    Change,
    ChooseReading,
    DeleteWord,
    InsertWords,
    RefusedChange,
    RenameSpeaker,
    ReplaceWord,
)
from schemas.transcript_words import TranscriptWord
from schemas.words import Reading

#: The readings of the decision from which a word comes, the chosen one first; none for a word without a decision.
Readings = Callable[[str], Sequence[Reading]]


def changed(words: Sequence[TranscriptWord], changes: Sequence[Change], readings: Readings, version: int) -> Edited:
    """The words of version `version` after these changes, in their order.

    Raises:
        RefusedChange: a change names a word, a reading or a speaker that this transcript does not have.
    """
    draft = Draft(words, version)
    for index, change in enumerate(changes):
        try:
            _apply(draft, change, readings)
        except RefusedChange as exc:
            raise RefusedChange(f"/changes/{index}/{exc.pointer}", str(exc)) from None
    return draft.finished()


def _apply(draft: Draft, change: Change, readings: Readings) -> None:
    match change:
        case ReplaceWord(word=id, text=text):
            draft.put(id, [by_hand(_word(draft, id), text)])
        case DeleteWord(word=id):
            _word(draft, id)
            draft.put(id, [])
        case InsertWords(after=after, text=text):
            _insert(draft, after, text)
        case ChooseReading():
            _choose(draft, change, readings)
        case RenameSpeaker(speaker=speaker, to=to):
            _rename(draft, speaker, to)
        case AssignSpeaker(words=ids, to=to):
            for number, id in enumerate(ids):
                draft.assign(id, _word(draft, id, f"words/{number}"), to)


def _word(draft: Draft, id: str, field: str = "word") -> TranscriptWord:
    """The word as it is now.

    Raises:
        RefusedChange: there is no such word.
    """
    word = draft.word(id) if id in draft else None
    if word is None:
        raise RefusedChange(field, "this version of the transcript has no such word")
    return word


def _insert(draft: Draft, after: str | None, text: str) -> None:
    if after is not None and after not in draft:
        raise RefusedChange("after", "this version of the transcript has no such word")
    neighbour = draft.word(after) if after is not None else next(iter(draft.before), None)
    speaker = neighbour.speaker if neighbour else None
    draft.add(after, [draft.new_word(part, speaker) for part in text.split()])


def _choose(draft: Draft, change: ChooseReading, readings: Readings) -> None:
    offered = readings(change.word)
    if not offered:
        raise RefusedChange("word", "no recognizer's readings belong to such a word")
    if change.reading >= len(offered):
        raise RefusedChange("reading", f"use a number from 0 to {len(offered) - 1}: there are so many readings")
    reading = offered[change.reading]
    place(draft, change.word, reading.text, (reading.start_ms, reading.end_ms))


def place(draft: Draft, slot: str, text: str | None, times: tuple[int | None, int | None]) -> None:
    """Have this text in a slot, which may have no word at present; None: no word."""
    present = draft.word(slot) if slot in draft else None
    if text is None:
        if slot in draft:
            draft.put(slot, [])
    elif slot in draft:
        times = times if times != (None, None) or present is None else (present.start_ms, present.end_ms)
        speaker = present.speaker if present else _speaker_near(draft, slot)
        draft.put(slot, [TranscriptWord(slot, text, *times, speaker, 1.0)])
    else:
        draft.add_slot(slot, TranscriptWord(slot, text, *times, _speaker_near(draft, slot), 1.0))
    draft.decide([slot])


def _speaker_near(draft: Draft, slot: str) -> str | None:
    after = draft.before_slot(slot)
    neighbour = draft.word(after) if after is not None else next(iter(draft.before), None)
    return neighbour.speaker if neighbour else None


def _rename(draft: Draft, speaker: str, to: str) -> None:
    renamed = 0

    def rename(word: TranscriptWord) -> TranscriptWord:
        nonlocal renamed
        if word.speaker != speaker:
            return word
        renamed += 1
        return replace(word, speaker=to)

    draft.map(rename)
    if not renamed:
        raise RefusedChange("speaker", "this version of the transcript has no such speaker")
