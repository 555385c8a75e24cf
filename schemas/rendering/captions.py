"""A transcript as captions: SubRip (`.srt`) and WebVTT (`.vtt`, https://www.w3.org/TR/webvtt1/).

By the rules of the field (such as the BBC's and Netflix's guidelines): two lines of 42 characters at most, a cue is
shown for one to seven seconds, and no two at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from schemas.printable import printable
from schemas.rendering.plain_text import written
from schemas.transcript_words import TranscriptWord

#: Characters of a line, and lines of a cue.
LINE, LINES = 42, 2

#: Milliseconds for which a cue is shown.
SHORTEST_MS, LONGEST_MS = 1000, 7000

#: Milliseconds of silence that end a cue.
PAUSE_MS = 1000

#: Milliseconds that a word is taken to last for which no recognizer gave a time.
WORD_MS = 300


@dataclass(frozen=True, slots=True)
class Cue:
    """Some lines of text, and when they are shown."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Timed:
    """A word with times that rise from word to word."""

    word: TranscriptWord
    start_ms: int
    end_ms: int


def srt(words: Sequence[TranscriptWord], *, speakers: bool = True, mark_disputed: bool = False) -> str:
    """The words as SubRip. A cue whose speaker is not that of the one before begins with the speaker's label."""
    blocks = [
        "\n".join((str(number), f"{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}", *cue.lines, ""))
        for number, cue in enumerate(cues(words, labels=speakers, mark_disputed=mark_disputed), 1)
    ]
    return "\n".join(blocks)


def vtt(words: Sequence[TranscriptWord], *, speakers: bool = True, mark_disputed: bool = False) -> str:
    """The words as WebVTT, with a voice span for each cue of a known speaker."""
    blocks = ["WEBVTT\n"]
    for cue in cues(words, labels=False, mark_disputed=mark_disputed):
        voice = f"<v {_escaped(printable(cue.speaker))}>" if speakers and cue.speaker else ""
        text = "\n".join(map(_escaped, cue.lines))
        blocks.append(f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{voice}{text}\n")
    return "\n".join(blocks)


def cues(words: Sequence[TranscriptWord], *, labels: bool = False, mark_disputed: bool = False) -> list[Cue]:
    """The words as cues, none of which breaks a rule of this module; with `labels`, a new speaker is named in the text.

    Where people speak faster than the rules allow, cues come later than their words, until a pause.
    """
    shown: list[Cue] = []
    speaker: str | None = None
    for group in _groups(_timed(words), labels, mark_disputed):
        label = _label(group[0].word.speaker, labels and group[0].word.speaker != speaker)
        speaker = group[0].word.speaker
        lines = _wrapped(label + written([timed.word for timed in group], mark_disputed=mark_disputed))
        shown += [  # more than one only for a word that is longer than a cue
            Cue(group[0].start_ms, group[-1].end_ms, tuple(lines[first : first + LINES]), speaker)
            for first in range(0, len(lines), LINES)
        ]
    return _spaced(shown)


def _label(speaker: str | None, is_new: bool) -> str:
    return f"{printable(speaker)}: " if speaker and is_new else ""


def _groups(words: Sequence[_Timed], labels: bool, mark_disputed: bool) -> Iterator[list[_Timed]]:
    group: list[_Timed] = []
    speaker: str | None = None
    for timed in words:
        if group:
            label = _label(group[0].word.speaker, labels and group[0].word.speaker != speaker)
            longer = written([one.word for one in (*group, timed)], mark_disputed=mark_disputed)
            if _is_apart(group, timed) or len(_wrapped(label + longer)) > LINES:
                yield group
                speaker, group = group[0].word.speaker, []
        group.append(timed)
    if group:
        yield group


def _is_apart(group: Sequence[_Timed], following: _Timed) -> bool:
    return (
        following.word.speaker != group[-1].word.speaker
        or following.start_ms - group[-1].end_ms > PAUSE_MS
        or following.end_ms - group[0].start_ms > LONGEST_MS
    )


def _wrapped(text: str) -> list[str]:
    """The text in lines, broken at spaces; within a word only where it is longer than a line, as in scripts that have
    no spaces.
    """
    lines: list[str] = []
    while len(text) > LINE:
        space = text.rfind(" ", 1, LINE + 1)
        end = space if space > 0 else LINE
        lines.append(text[:end])
        text = text[end:].lstrip(" ")
    return [*lines, text] if text else lines


def _timed(words: Sequence[TranscriptWord]) -> list[_Timed]:
    """The words with times, those of words that have none between those of their neighbours."""
    timed: list[_Timed] = []
    now = 0
    for word in words:
        start = max(now, word.start_ms if word.start_ms is not None else now)
        end = max(start, word.end_ms if word.end_ms is not None else start + WORD_MS)
        timed.append(_Timed(word, start, end))
        now = end
    return timed


def _spaced(shown: Sequence[Cue]) -> list[Cue]:
    """The cues one after the other, each for as long as the rules allow."""
    spaced: list[Cue] = []
    free_ms = 0
    for cue, following in zip_longest(shown, shown[1:]):
        start = max(cue.start_ms, free_ms)
        longest = start + LONGEST_MS
        # A short one stays until the next, where there is time; it is never shown for less than the shortest.
        until = min(max(cue.end_ms, start + SHORTEST_MS), longest)
        if following is not None and following.start_ms < until:
            until = max(start + SHORTEST_MS, following.start_ms)
        spaced.append(replace(cue, start_ms=start, end_ms=until))
        free_ms = until
    return spaced


def _time(at_ms: int, point: str) -> str:
    seconds, milliseconds = divmod(at_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{milliseconds:03}"


def _escaped(text: str) -> str:
    """Without `<`, `&` and `-->`, which WebVTT reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
