"""Reads ElevenLabs' conversations from their JSON: any field may be missing, or of another type."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from schemas.errors import Transient
from schemas.rendering.markdown import clock
from schemas.texts import readable
from schemas.words import LONGEST_MS

#: What a conversation comes to. `open` are all statuses that this version does not know, too: they are asked again.
State = Literal["open", "done", "failed"]

_STATES: Final[dict[str, State]] = {"done": "done", "failed": "failed"}

#: Turns of a conversation, and characters of one, at most: a day of talk.
MOST_TURNS, MOST_CHARS = 20_000, 100_000

#: The end of the times that Python has, in seconds since 1970.
_LATEST_S: Final = 253_402_300_800

#: Characters of a language's tag.
_TAG_CHARS: Final = 35

Model = TypeVar("Model", bound=BaseModel)


def _text(value: Any) -> Any:
    return readable(value) if isinstance(value, str) else None


def _seconds(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and 0 <= value * 1000 < LONGEST_MS else None


def _moment(value: Any) -> Any:
    """A time in seconds since 1970 (UTC), before the year 10000; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return datetime.fromtimestamp(value, UTC) if is_number and 0 < value < _LATEST_S else None


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else []


Text = Annotated[str | None, BeforeValidator(_text)]
Seconds = Annotated[float | None, BeforeValidator(_seconds)]
Moment = Annotated[datetime | None, BeforeValidator(_moment)]


class _Turn(BaseModel):
    role: Text = None
    message: Text = None
    time_in_call_secs: Seconds = None


class _Metadata(BaseModel):
    start_time_unix_secs: Moment = None
    call_duration_secs: Seconds = None
    main_language: Text = None


class _Conversation(BaseModel):
    status: str
    agent_id: Text = None
    has_audio: Annotated[bool, BeforeValidator(lambda value: value is True)] = False
    metadata: Annotated[_Metadata, BeforeValidator(lambda value: value if isinstance(value, dict) else {})] = (
        _Metadata()
    )
    transcript: Annotated[list[Any], BeforeValidator(_list)] = []


class _Listed(BaseModel):
    conversation_id: str
    status: Text = None
    start_time_unix_secs: Moment = None


class _Page(BaseModel):
    conversations: Annotated[list[Any], BeforeValidator(_list)]
    has_more: Annotated[bool, BeforeValidator(lambda value: value is True)] = False
    next_cursor: Text = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says, from one turn to the next."""

    #: Whether the agent says it; else it is the person who calls.
    is_agent: bool
    text: str
    #: Milliseconds from the start of the call; None if unknown.
    start_ms: int | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as ElevenLabs has it at the moment."""

    state: State
    #: ElevenLabs' own word for it.
    status: str
    has_audio: bool = False
    turns: tuple[Turn, ...] = ()
    #: When the call began.
    started_at: datetime | None = None
    duration_ms: int | None = None
    #: BCP 47 tag.
    language: str | None = None
    agent_id: str | None = None
    #: What a reader of the transcript should know.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation in the list of an agent's."""

    conversation_id: str
    status: str
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of that list, newest first, and where the next begins; None after the last."""

    conversations: tuple[Listed, ...]
    cursor: str | None


def conversation(content: bytes) -> Conversation:
    """A conversation from the body of an answer.

    Raises:
        Transient: The answer is no conversation.
    """
    read = _read(_Conversation, content, "a conversation")
    seconds = read.metadata.call_duration_secs
    duration_ms = round(seconds * 1000) if seconds else None
    turns, notes = _turns(read.transcript, duration_ms)
    tag = (read.metadata.main_language or "").replace("_", "-")
    return Conversation(
        state=_STATES.get(read.status, "open"),
        status=read.status[:40],
        has_audio=read.has_audio,
        turns=turns,
        started_at=read.metadata.start_time_unix_secs,
        duration_ms=duration_ms,
        language=tag if tag.replace("-", "").isalnum() and tag.isascii() and len(tag) <= _TAG_CHARS else None,
        agent_id=read.agent_id,
        notes=notes,
    )


def page(content: bytes) -> Page:
    """A page of the list from the body of an answer. Raises as `conversation` does. What has no id is left out."""
    read = _read(_Page, content, "a list of conversations")
    listed = [one for item in read.conversations if (one := _optional(_Listed, item)) is not None]
    return Page(
        tuple(Listed(one.conversation_id, one.status or "", one.start_time_unix_secs) for one in listed),
        read.next_cursor if read.has_more else None,
    )


def _turns(answer: list[Any], duration_ms: int | None) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """What was said, and notes on what is not as it was answered. Turns in which only tools are called have no text.
    A turn that is said to begin behind the call's end begins at that.
    """
    turns, notes = [], []
    cut = late = 0
    for item in answer[:MOST_TURNS]:
        turn = _optional(_Turn, item)
        cut += turn is not None and len(turn.message or "") > MOST_CHARS
        text = " ".join((turn.message or "")[:MOST_CHARS].split()) if turn else ""
        if turn is None or not text:
            continue
        start_ms = None if turn.time_in_call_secs is None else round(turn.time_in_call_secs * 1000)
        if start_ms is not None and duration_ms is not None and start_ms > duration_ms:
            start_ms, late = duration_ms, late + 1
        turns.append(Turn(turn.role == "agent", text, start_ms))
    if len(answer) > MOST_TURNS:
        notes.append(f"This transcript ends after {MOST_TURNS:,} of {len(answer):,} turns of the conversation.")
    if cut:
        notes.append(f"In {_counted(cut)} of the conversation, only the first {MOST_CHARS:,} characters are read.")
    if late:
        notes.append(
            f"ElevenLabs has {_counted(late)} of the conversation behind its end, at {clock(duration_ms)}: shown there."
        )
    return tuple(turns), tuple(notes)


def _counted(turns: int) -> str:
    return "1 turn" if turns == 1 else f"{turns:,} turns"


def _read(model: type[Model], content: bytes, what: str) -> Model:
    try:
        # By Python's parser, which takes half an emoji.
        return model.model_validate(json.loads(content))
    except (ValueError, RecursionError):
        raise Transient(f"ElevenLabs answered with something that is not {what}") from None


def _optional(model: type[Model], answer: Any) -> Model | None:
    try:
        return model.model_validate(answer)
    except ValidationError:
        return None
