"""Recordings that come in: what producers publish, and the fetching of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from schemas.events.base import Data, Event, Filename, Language, Metadata, Reason, Uri
from schemas.ids import Name, Reference, canonical_uuid

#: What programs send that have an empty variable for an id.
NIL_UUID: Final = str(UUID(int=0))


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


class AudioFetch(Event):
    """Internal: look again at a recording that is being fetched outside its event. Whatever is not about fetching is in
    the job's row: an upload may be as large as an event can be, and this one must not be larger.
    """

    audio_uri: Uri
    filename: Filename
    content_type: Annotated[Reason, StringConstraints(max_length=255)] | None = None
    failing_since: AwareDatetime | None = Field(None, description="when its host first did not deliver")
