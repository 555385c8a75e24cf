"""What people change in a transcript, as they send it, and the errors that a change is answered with."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.errors import ConcordError
from schemas.ids import Reference
from schemas.texts import readable

#: Most changes in one request, and characters of a whole text (an hour of speech has 60,000) and of a changed word.
MAX_CHANGES: Final = 1000
MAX_TEXT: Final = 2_000_000
MAX_WORD: Final = 2000
#: Most segments of a whole text; words of a transcript, those of ten hours; speakers that are renamed at once, each of
#: which takes a look at every word.
MAX_SEGMENTS: Final = 50_000
MAX_WORDS: Final = 100_000
MAX_RENAMES: Final = 50


def _spaced(text: str) -> str:
    """The text as one line, without control characters."""
    line = readable(" ".join(text.split()))
    if not line:
        raise ValueError("write at least one word")
    return line


def _name(text: str) -> str:
    if not text.isprintable() or text.isspace():
        raise ValueError("use 1 to 100 printable characters, and not spaces alone")
    return text


WordId = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=MAX_WORD), AfterValidator(_spaced)]
Speaker = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_name)]
Why = Annotated[str, StringConstraints(max_length=1000), AfterValidator(readable)]


class _Body(BaseModel):
    """Base of bodies: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ReplaceWord(_Body):
    """Write a word otherwise; it keeps its id and times."""

    op: Literal["replace"]
    word: WordId
    text: Words


class DeleteWord(_Body):
    """Remove a word."""

    op: Literal["delete"]
    word: WordId


class InsertWords(_Body):
    """Add words behind a word, or at the beginning."""

    op: Literal["insert"]
    after: WordId | None = Field(description="null: at the beginning")
    text: Words


class ChooseReading(_Body):
    """Take what a recognizer heard: the readings are those of the raw transcript, its choice first."""

    op: Literal["choose"]
    word: WordId
    reading: Annotated[int, Field(ge=0, le=100)]


class RenameSpeaker(_Body):
    """Call a speaker otherwise, in the whole transcript."""

    op: Literal["rename"]
    speaker: Annotated[str, StringConstraints(max_length=200)]
    to: Speaker


class AssignSpeaker(_Body):
    """Give words to another speaker."""

    op: Literal["assign"]
    words: Annotated[list[WordId], Field(min_length=1, max_length=MAX_CHANGES)]
    to: Speaker | None


Change = Annotated[
    ReplaceWord | DeleteWord | InsertWords | ChooseReading | RenameSpeaker | AssignSpeaker, Field(discriminator="op")
]


class TranscriptPatch(_Body):
    """Changes of single words and speakers, made together or not at all."""

    changes: Annotated[list[Change], Field(min_length=1, max_length=MAX_CHANGES)]
    reason: Why | None = None

    @model_validator(mode="after")
    def _few_renames(self) -> TranscriptPatch:
        if sum(change.op == "rename" for change in self.changes) > MAX_RENAMES:
            raise ValueError(f"rename at most {MAX_RENAMES} speakers at once")
        return self


class SegmentText(_Body):
    """What one speaker says. Times are those of the words, which keep them."""

    text: Annotated[str, StringConstraints(max_length=MAX_TEXT)]
    speaker: Speaker | None = Field(None, description="left out: as the words before the edit; null: unknown")


def _one_of(**types: str) -> ConfigDict:
    """Says in the JSON schema that a body has exactly one of these fields that is not null."""
    either: list[Any] = [{"required": [name], "properties": {name: {"type": type}}} for name, type in types.items()]
    return ConfigDict(json_schema_extra={"oneOf": either})


class WholeTranscript(_Body):
    """All of a transcript: as one text, or in segments."""

    model_config = _one_of(text="string", segments="array")

    text: Annotated[str, StringConstraints(max_length=MAX_TEXT)] | None = None
    segments: Annotated[list[SegmentText], Field(max_length=MAX_SEGMENTS)] | None = None
    reason: Why | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> WholeTranscript:
        if (self.text is None) == (self.segments is None):
            raise ValueError("send either text or segments")
        return self


class Choice(_Body):
    """What a disputed span says: one of its readings, or a text of the reviewer's own."""

    model_config = _one_of(reading="integer", text="string")

    reading: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="index of one of `readings`")
    text: Annotated[str, StringConstraints(max_length=MAX_WORD), AfterValidator(readable)] | None = Field(
        None, description="what was said instead of all readings; empty: nothing"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Choice:
        if (self.reading is None) == (self.text is None):
            raise ValueError("send either reading or text")
        return self


class Assignment(_Body):
    """Who shall decide a disputed span."""

    assignee: Reference | None = Field(None, description="left out: you; null: nobody")


class RefusedChange(ConcordError):
    """A change that this transcript does not allow; `pointer` (RFC 6901) leads to it in the body."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer


class OutOfDate(ConcordError):
    """The transcript has a newer version than the one that was edited."""
