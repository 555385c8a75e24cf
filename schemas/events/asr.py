"""What recognizers are asked, and what they answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    Field,
)

from schemas.events.audio import Options
from schemas.events.base import Event, JobEvent, Language, Reason, Share, Uri
from schemas.ids import Name


class AsrRequest(Event):
    """Internal: what a recognizer is to submit, or which request to poll."""

    provider: Name
    audio_uri: Uri
    language: Language = "auto"
    content_type: str = "application/octet-stream"
    duration_ms: int | None = None
    options: Options = Options()
    transcode: bool = Field(
        False, description="the recording as it came would be misheard: hand it over as it is decoded"
    )
    moment: AwareDatetime | None = Field(
        None, description="reserved for a call to the provider; the event comes before"
    )


class AsrResult(JobEvent):
    """A recognizer has answered, finally: with a hypothesis, or with why there is none."""

    provider: Name
    status: Literal["ok", "failed"]
    hypothesis_uri: Uri | None = None
    confidence: Share | None = None
    word_count: int | None = None
    duration_ms: int | None = None
    language: str | None = None
    error: Reason | None = None
    remaining: Annotated[int, Field(ge=0)] = Field(0, description="recognizers of this run that have not answered yet")


class AsrDeadline(Event):
    """Internal: a run has waited long enough for its recognizers and goes on with those that answered."""

    seconds: float = Field(3600.0, description="what a recognizer is given, from the moment at which it was its turn")
    extended: int = Field(0, description="how often it was put off because a request was still queued")
