"""Events of recognition: requests to recognizers, their results, and the deadline of a run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    StringConstraints,
    model_validator,
)

from schemas.events.audio import Options
from schemas.events.base import Event, JobEvent, Language, Reason, Share, Uri
from schemas.events.received import ReceivedWords
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
    published: int = Field(0, ge=0, description="How often it was published to a recognizer that reads Kafka.")
    answer_by: AwareDatetime | None = Field(None, description="Until when that recognizer may answer.")


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


#: Identifies a request among those to all recognizers; an answer repeats it.
Marker = Annotated[str, StringConstraints(min_length=1, max_length=600)]


class RecognitionRequested(JobEvent):
    """A recording for a recognizer outside of Concord, which reads this topic and answers on `asr.hypotheses`.

    It may come again, with another URL: by the marker it is known as the same request, which one answer ends.
    """

    recognizer: Name = Field(description="The recognizer that is asked; an answer repeats it.")
    marker: Marker = Field(description="Identifies the request; an answer repeats it.")
    audio_url: Uri = Field(
        description="Where the recording is: a presigned https:// URL, or a file:// URI where the storage is a folder. "
        "Whoever has such a URL can read the recording."
    )
    audio_expires_at: AwareDatetime | None = Field(None, description="When the URL ends to give access.")
    content_type: str
    duration_ms: int | None = None
    language: Language = Field("auto", description="BCP 47, or `auto`: the recognizer is to tell it.")
    diarize: bool = Field(False, description="Whether the words of each speaker are to be labelled.")
    speakers: int | None = Field(None, description="How many speakers there are, if whoever uploaded it knows.")
    redact_pii: bool = Field(False, description="Whether personal data will be hidden; it may be hidden here already.")
    answer_by: AwareDatetime = Field(description="When the run goes on without an answer; a later one changes nothing.")
    attempt: int = Field(1, ge=1, description="How often the request has been published, this time included.")
    attempts: int = Field(1, ge=1, description="How often it is published at most.")


class RecognitionAnswered(ReceivedWords, Event):
    """The answer of a recognizer outside of Concord: a transcript, where one can be read, or why there is none.

    The first answer to a request counts. One that cannot be read, or that has another marker than the request, is kept
    on `asr.hypotheses.dlq`, and may be sent again.
    """

    recognizer: Name = Field(description="As in the request.")
    marker: Marker = Field(description="As in the request.")
    status: Literal["ok", "failed"]
    transcript_uri: Uri | None = Field(
        None,
        description="Instead of `words`, for transcripts of more than some thousands: where a JSON object with the "
        "same fields (`words`, `language`, ...) is, of 16 MiB at most. An https:// URL of a public host, or a URI in "
        "this installation's own storage below the tenant's name.",
    )
    error: Reason | None = Field(None, description="Why there is no transcript, if it failed.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status == "failed" and not self.error:
            raise ValueError("error: say why there is no transcript")
        if self.transcript_uri is not None and (self.words or self.text):
            raise ValueError("send words or text, or a transcript_uri with them")
        return self
