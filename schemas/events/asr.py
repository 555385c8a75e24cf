"""Events of recognition: requests to recognizers, their results, and the deadline of a run."""

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
    """Internal: a recording for a recognizer to submit, or a request to poll."""

    provider: Name
    audio_uri: Uri
    language: Language = "auto"
    content_type: str = "application/octet-stream"
    duration_ms: int | None = None
    options: Options = Options()
    transcode: bool = Field(
        False, description="Send the recording as Concord decodes it, since recognizers misread the original file."
    )
    moment: AwareDatetime | None = Field(
        None, description="Time reserved for a call to the provider. The event becomes due earlier."
    )
    held_s: float = Field(0.0, ge=0, description="Seconds for which it has waited for the recording's language.")


class AsrResult(JobEvent):
    """The final result of a recognizer: a hypothesis, or the reason why there is none: it failed, or it was left out,
    because it hears another language only.
    """

    provider: Name
    status: Literal["ok", "failed"]
    hypothesis_uri: Uri | None = None
    confidence: Share | None = None
    word_count: int | None = None
    duration_ms: int | None = None
    language: str | None = None
    error: Reason | None = None
    remaining: Annotated[int, Field(ge=0)] = Field(0, description="Number of recognizers of this run without a result.")


class AsrDeadline(Event):
    """Internal: the deadline of a run's recognizers. The run continues with the results that it has."""

    seconds: float = Field(3600.0, description="Time limit of a recognizer, from the admission of its request.")
    extended: int = Field(0, description="How often the deadline was extended because a request was still queued.")
