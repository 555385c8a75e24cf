"""The events on the stream: one frozen pydantic model per topic, which is also what the published schemas are made
from.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from schemas import errors, texts
from schemas.ids import Name, Reference, canonical_uuid

#: Unicode's categories of what no URI may contain: controls, lone surrogates, line and paragraph separators.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _plain_filename(name: str) -> str:
    """The last part of whatever path was sent, without control characters: a label, never a path."""
    base = posixpath.basename(name.replace("\\", "/"))
    clean = "".join(c for c in base if c.isprintable())[:255]
    return clean if clean.strip(". ") else "audio"


def _no_controls(uri: str) -> str:
    if not uri.isprintable() and any(unicodedata.category(character) in _CONTROLS for character in uri):
        raise ValueError("must not contain control characters")
    return uri


def _readable(value: Any) -> Any:
    return texts.readable(value, texts.ERROR_CHARS) if isinstance(value, str) else value


#: Bytes of an upload's metadata as JSON: whatever fits into a record, if its numbers do not grow when written out.
MAX_METADATA_BYTES = 900_000


def _storable(metadata: Any) -> Any:
    return texts.storable_json(metadata) if isinstance(metadata, dict) else metadata


def _small_enough(metadata: dict[str, Any]) -> dict[str, Any]:
    length = texts.written_bytes(metadata)
    if length > MAX_METADATA_BYTES:
        raise ValueError(f"has {length} bytes as JSON with numbers written out; at most {MAX_METADATA_BYTES} are kept")
    return metadata


_LANGUAGE = re.compile("auto|[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def _language(text: str) -> str:
    """BCP 47, also as POSIX writes it (`de_DE`). A language's name is refused: there are several for most of them."""
    tag = text.strip().replace("_", "-") or "auto"
    if not _LANGUAGE.fullmatch(tag):
        raise ValueError('write "auto", or a BCP 47 tag such as "en", "de-DE" or "pt-BR"')
    return tag


Filename = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_plain_filename)]
#: A label or a message: cleaned and cut rather than refused, so that what says why something failed cannot itself fail.
Reason = Annotated[str, BeforeValidator(_readable)]
#: Spaces may be in it, as they are in keys of S3 and names of files, but not at its end.
Uri = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S(.*\S)?$"),
    AfterValidator(_no_controls),
]
#: What a producer adds to a call for its own use. It must not keep the call from being transcribed: what no store takes
#: is kept as text (`texts.storable_json`). Its size leaves room for everything else in an event that carries it.
Metadata = Annotated[dict[str, Any], BeforeValidator(_storable), Field(max_length=64), AfterValidator(_small_enough)]
Language = Annotated[str, AfterValidator(_language), Field(json_schema_extra={"pattern": f"^{_LANGUAGE.pattern}$"})]
Share = Annotated[float, Field(ge=0, le=1)]
#: Bytes of metadata, as JSON, that `persisted` repeats at most: an upload may bring 900 kB of it.
MAX_EVENT_METADATA_BYTES: Final = 65_536

#: What programs send that have an empty variable for an id.
NIL_UUID: Final = str(UUID(int=0))

#: A run's number; every reprocessing makes the next.
Run = Annotated[int, Field(ge=1, le=1_000_000)]


class Data(BaseModel):
    """Base of every event's data. Fields we do not know are ignored, so that producers may be newer than we are."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Event(Data):
    """Data of an event that belongs to one run of one tenant's job."""

    tenant_id: Name
    job_id: Name
    run: Run = 1


class JobEvent(Event):
    """Data of an event that others may read: it carries the producer's own name for the job.

    Who makes one need not know the reference: `schemas.jobs.advance` puts it there from the job's row.
    """

    reference: Reference | None = Field(None, description="your own name for the job, if the upload brought one")


class Options(Data):
    """What an upload may ask for. An option that nobody knows, or no configured recognizer carries out, is refused."""

    model_config = ConfigDict(extra="forbid")

    diarize: bool = Field(False, description="tell speakers apart")
    redact_pii: bool = Field(False, description="hide personal data")
    enrich: bool | None = Field(None, description="make documents, summaries and reports; unset: as installed")


class AudioUploaded(Data):
    """A recording is there to be transcribed. The only event that strangers must know how to write."""

    tenant_id: Name
    audio_uri: Annotated[
        Uri,
        Field(
            description="https:// of a public host, without a user name in it; s3:// or file:// of this installation's "
            "own storage below the tenant's name, the key as it is or percent-encoded; file:// below a folder that the "
            "operator has opened. What is not there yet is asked for again for minutes"
        ),
    ]
    filename: Filename
    job_id: Name | None = Field(
        None,
        description="a UUID, which becomes the job's id; any other text is taken as the reference. When absent, the id "
        "is derived from tenant and reference, or from tenant and event id",
    )
    reference: Reference | None = Field(
        None,
        description="your own name for the job, unique within the tenant: 1 to 255 printable characters. "
        "A second upload with it is a repeat; it stands on every event of the job",
    )
    content_type: Annotated[Reason, StringConstraints(max_length=255)] | None = None
    language: Language = "auto"
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    options: Options = Options()
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, upload: Any) -> Any:
        """Many serializers write every field that a class has."""
        if not isinstance(upload, dict):
            return upload
        return {name: value for name, value in upload.items() if value is not None}

    @model_validator(mode="after")
    def _named(self) -> Self:
        """The id in its canonical form, or as the reference that it is."""
        if self.job_id is None:
            return self
        id, reference = canonical_uuid(self.job_id), self.reference
        if id == NIL_UUID:
            raise ValueError("job_id: the nil UUID names no job; leave it out to have an id derived")
        if id is None:
            if reference not in (None, self.job_id):
                raise ValueError(
                    "job_id is no UUID and therefore taken as the reference, but reference says something else: "
                    "send a UUID as job_id, or one of the two"
                )
            reference = self.job_id
        # The model is frozen for everybody else.
        object.__setattr__(self, "job_id", id)
        object.__setattr__(self, "reference", reference)
        return self


class JobReprocess(Event):
    """Ask for a new run of a job whose last run has ended; `run` is the run to begin."""

    reason: Reason = ""


class AudioFetch(Event):
    """Internal: look again at a recording that is being fetched outside its event. Whatever is not about fetching is in
    the job's row: an upload may be as large as an event can be, and this one must not be larger.
    """

    audio_uri: Uri
    filename: Filename
    content_type: Annotated[Reason, StringConstraints(max_length=255)] | None = None
    failing_since: AwareDatetime | None = Field(None, description="when its host first did not deliver")


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


class Reconciled(JobEvent):
    """The recognizers' transcripts have become one."""

    raw_uri: Uri
    method: Literal["calibrated", "gemini", "single"]
    confidence: Share | None = None
    agreement: Share | None = None


class Persisted(JobEvent):
    """Terminal: the transcript is stored, in object storage and in PostgreSQL. Once per (job, run)."""

    status: Literal["completed"] = "completed"
    raw_transcript_uri: Uri
    agent_optimized_uri: Uri
    confidence: Share | None = None
    word_count: int
    duration_seconds: float
    language: str | None = Field(None, description="as the transcript has it; absent where nobody could tell")
    filename: str | None = None
    metadata: dict[str, Any] | None = Field(
        None,
        description=f"the upload's; left out when it has more than {MAX_EVENT_METADATA_BYTES} bytes as JSON: "
        "agent_optimized.json has it, under metadata.custom",
    )
    completed_at: datetime


class JobFailed(JobEvent):
    """Terminal: there will be no transcript of this run, and why. Once per (job, run)."""

    stage: str
    code: str = Field("internal_error", description=f"for programs; more may come: {', '.join(sorted(errors.CODES))}")
    error: Reason
    attempts: int
    failed_at: AwareDatetime | None = None


class RunSweep(Event):
    """Internal: delete what a failed run left in storage."""


class StepState(Data):
    """How far one stage is with one run."""

    state: Literal["waiting", "running", "retrying", "done", "failed"]
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    progress: Share | None = None
    error: Reason | None = None
    notes: tuple[Reason, ...] | None = Field(
        None, description="what intake found odd about the recording: what was lost, how channels and tracks were mixed"
    )


class JobStatus(JobEvent):
    """Where a job stands. Compacted; the highest version is the truth, whatever the order of arrival."""

    status: Literal["uploaded", "transcribing", "reconciling", "persisting", "completed", "failed"]
    version: Annotated[int, Field(ge=1)]
    filename: str
    steps: dict[str, StepState]
    progress: Share = 0.0
    reason: Reason | None = None
    code: str | None = Field(None, description="for programs, where it failed: as in job.failed")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
