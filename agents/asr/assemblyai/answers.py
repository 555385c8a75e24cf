"""Reads AssemblyAI's JSON: transcripts, words, upload URLs, and pages of the list of transcripts.

Answers are read from their JSON and not from the SDK's models. Those reject a whole transcript, which is paid for, if
one value in it is newer than they are: a speech model, a policy, a status, a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, ValidationError

from agents.asr.protocols import Listed
from schemas.errors import ProviderError, Transient
from schemas.words import Hypothesis, Word

#: BCP 47 for the vendor's codes that contain a region; other codes are converted by rule.
_TAGS: Final = {"en_us": "en-US", "en_uk": "en-GB", "en_au": "en-AU", "de_ch": "de-CH"}

Finite = Annotated[float, Field(allow_inf_nan=False)]


class TranscribedWord(BaseModel):
    """A word of a transcript. Times are in ms."""

    text: str
    start: Finite | None = None
    end: Finite | None = None
    confidence: Finite | None = None
    speaker: str | None = None
    channel: str | int | None = None


class Transcript(BaseModel):
    """A transcript, completed or not. `audio_duration` is in seconds."""

    status: str
    error: str | None = None
    words: list[TranscribedWord] | None = None
    confidence: Finite | None = None
    audio_duration: Finite | None = None
    language_code: str | None = None
    language_confidence: Finite | None = None
    speech_model_used: str | None = None
    speech_model: str | None = None


class Created(BaseModel):
    """The answer to a submission: the transcript's id."""

    id: Annotated[str, Field(min_length=1)]


class Upload(BaseModel):
    """The answer to an upload: the URL by which a submission refers to the audio."""

    upload_url: Annotated[str, Field(pattern="^https?://")]


class ListItem(Created):
    """A transcript in the list of transcripts."""

    audio_url: str | None = None
    created: datetime | None = None


class Page(BaseModel):
    """One page of the list of transcripts, newest first."""

    transcripts: list[ListItem]


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], answer: object, provider: str, operation: str) -> Model:
    """The decoded JSON of an answer as a model; `provider` and `operation` are for the error's text.

    Raises:
        ProviderError: The JSON object does not have the expected fields.
        Transient: The JSON is not an object at all: it comes from a gateway and not from the vendor.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as exc:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False)[:3]]
        message = f"{provider} answered {operation} with an unexpected object ({'; '.join(problems)})"
        raise (ProviderError(message) if isinstance(answer, Mapping) else Transient(message)) from None


def hypothesis(transcript: Transcript, provider: str) -> Hypothesis:
    """A completed transcript with its words in order of time."""
    words = sorted((_word(word) for word in transcript.words or () if word.text.strip()), key=_start_ms)
    # The vendor rounds the duration to whole seconds in some way; the last word may end later.
    duration_ms = round((transcript.audio_duration or 0) * 1000)
    language_confidence = transcript.language_confidence
    return Hypothesis(
        provider=provider,
        words=tuple(words),
        language=_tag(transcript.language_code),
        duration_ms=max(duration_ms, *(word.end_ms or 0 for word in words), 0) or None,
        confidence=_probability(transcript.confidence),
        model=transcript.speech_model_used or transcript.speech_model,
        details={} if language_confidence is None else {"language_confidence": language_confidence},
    )


def listed_requests(page: Page) -> list[Listed]:
    """The transcripts of a page, each id once, in the page's order."""
    return list({item.id: _listed(item) for item in page.transcripts}.values())


def is_upload(url: str) -> bool:
    """Whether the vendor made this URL in answer to an upload."""
    parts = urlsplit(url)
    return parts.path.startswith("/upload/") and not parts.query


def is_sent_url_without_query(listed: str, sent: str) -> bool:
    """Whether a listed URL is the one that was sent, but without its query, which contains a signature.

    All runs of a job have the same URL without its query. The caller must compare creation times, too.
    """
    return "?" not in listed and path_of(listed) == path_of(sent)


def path_of(url: str) -> str:
    """The URL without its query and percent-decoded."""
    return unquote(url.partition("?")[0])


def _listed(item: ListItem) -> Listed:
    created = None if item.created is None else _utc(item.created)
    return Listed(item.id, created, None if item.audio_url is None else frozenset([item.audio_url]))


def _utc(time: datetime) -> datetime:
    """The vendor's times have no zone; they are UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _word(word: TranscribedWord) -> Word:
    start = None if word.start is None else max(0, round(word.start))
    end = None if word.end is None else max(start or 0, round(word.end))
    channel = str(word.channel)
    return Word(
        text=word.text.strip(),
        start_ms=start,
        end_ms=end if end is not None or start is None else start,
        confidence=_probability(word.confidence),
        speaker=word.speaker,
        channel=int(channel) if channel.isdecimal() and len(channel) < 4 else None,
    )


def _start_ms(word: Word) -> int:
    return word.start_ms or 0


def _probability(value: float | None) -> float | None:
    """The value, limited to 0 to 1."""
    return None if value is None else min(max(value, 0.0), 1.0)


def _tag(code: str | None) -> str | None:
    """The vendor's language code as BCP 47."""
    if not code:
        return None
    first, _, region = code.replace("-", "_").partition("_")
    return _TAGS.get(code.lower()) or (f"{first.lower()}-{region.upper()}" if region else first.lower())
