"""What was said in a conversation, as a text for people and as a hypothesis like that of any recognizer. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from agents.conversations.answers import Conversation, Turn
from schemas.events.conversation import AGENT
from schemas.printable import printable
from schemas.words import Hypothesis, Word

#: How the two sides are called.
SPEAKERS: Final = {True: "AI", False: "User"}

#: The name in a hypothesis' details of how many words each turn has.
TURNS: Final = "turns"

#: Milliseconds that a word takes at most: where a turn is followed by a pause, its words do not last until its end.
WORD_MS: Final = 400


def text(conversation: Conversation) -> str:
    """A line for each turn, as `AI: ...` or `User: ...`."""
    return "".join(f"{SPEAKERS[turn.is_agent]}: {printable(turn.text)}\n" for turn in conversation.turns)


def text_of(turns: Iterable[tuple[str | None, str]]) -> str:
    """The same of what is left of turns, with who says each."""
    return "".join(f"{speaker or SPEAKERS[False]}: {printable(said)}\n" for speaker, said in turns)


def turns_of(details: Mapping[str, Any]) -> tuple[int, ...]:
    """The words of each turn of a hypothesis with these details; none if that is not known any more."""
    return tuple(count for count in details.get(TURNS) or () if isinstance(count, int))


def hypothesis(conversation: Conversation) -> Hypothesis:
    """The same words with their speakers, and times that are spread over each turn: ElevenLabs tells when a turn
    begins, and nothing of its words.
    """
    return Hypothesis(
        provider=AGENT,
        words=tuple(_words(conversation.turns, conversation.duration_ms)),
        language=conversation.language,
        duration_ms=conversation.duration_ms,
        details={
            "has_audio": conversation.has_audio,
            "notes": list(conversation.notes),
            TURNS: [len(turn.text.split()) for turn in conversation.turns],
            "started_at": conversation.started_at.isoformat() if conversation.started_at else None,
        },
    )


def _words(turns: Sequence[Turn], duration_ms: int | None) -> Iterator[Word]:
    ends = [after.start_ms for _, after in pairwise(turns)] + [duration_ms]
    for turn, end in zip(turns, ends, strict=False):
        texts = turn.text.split()
        share = WORD_MS if end is None or turn.start_ms is None else max(end - turn.start_ms, 0) // len(texts)
        ms = min(share, WORD_MS)
        for number, word in enumerate(texts):
            start = None if turn.start_ms is None else turn.start_ms + number * ms
            end = None if start is None else start + ms
            yield Word(word, _within(start, duration_ms), _within(end, duration_ms), speaker=SPEAKERS[turn.is_agent])


def _within(at_ms: int | None, duration_ms: int | None) -> int | None:
    """The time, at the call's end if it is behind that: before a turn without a time, words have the longest one."""
    return at_ms if at_ms is None or duration_ms is None else min(at_ms, duration_ms)
