"""Events of uploads: the event that producers publish, its options, and the download of the recording."""

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

from schemas.accounts.redaction import Unredacted
from schemas.events.base import Data, Event, Filename, Language, Metadata, Moment, Reason, Uri
from schemas.ids import Name, Reference, canonical_uuid
from schemas.mail.addresses import Recipients

#: The id that programs send when their variable for it is empty.
NIL_UUID: Final = str(UUID(int=0))


class Options(Data):
    """Options of an upload. An unknown option, or one that cannot be carried out, is refused."""

    model_config = ConfigDict(extra="forbid")

    diarize: bool = Field(False, description="Label the words of each speaker.")
    speakers: Annotated[int, Field(ge=1, le=20, strict=True)] | None = Field(
        None, description="Number of speakers, with diarize. Unset: as many as are heard."
    )
    redact_pii: bool | None = Field(
        None, description="Hide personal data in the transcript and the recording. Unset: as the tenant has set it."
    )
    redact: Unredacted | None = Field(
        None,
        description="What becomes of what was not redacted, with redact_pii: `keep` it for keys with the scope "
        "`unredacted`, or `forget` it. Unset: as the tenant has set it, else `keep`.",
    )
    mail_to: Recipients | None = Field(None, description="Whom the report is mailed to. Unset: as the tenant has set.")
    enrich: bool | None = Field(None, description="Create documents, summaries and reports. Unset: as installed.")


class AudioUploaded(Data):
    """A recording is ready to be transcribed. The only event that external producers write."""

    tenant_id: Name
    audio_uri: Annotated[
        Uri,
        Field(
            description="Location of the recording: an https:// URL of a public host, without a user name; an s3:// or "
            "file:// URI in this installation's own storage below the tenant's name, with the key plain or "
            "percent-encoded; or a file:// URI below a folder that the operator has permitted. A recording that is "
            "not there yet is retried for minutes."
        ),
    ]
    filename: Filename
    job_id: Name | None = Field(
        None,
        description="A UUID, which becomes the job's id. Any other text is used as the reference. If absent, the id "
        "is derived from tenant and reference, or from tenant and event id.",
    )
    reference: Reference | None = Field(
        None,
        description="Your own name for the job, unique within the tenant: 1 to 255 printable characters. "
        "A second upload with the same name is a duplicate. Every event of the job carries it.",
    )
    content_type: Annotated[Reason, StringConstraints(max_length=255)] | None = None
    language: Language = "auto"
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    not_before: Moment | None = Field(
        None,
        description="The job waits as `uploaded` until then (RFC 3339, with an offset), at most 90 days. The recording "
        "is fetched and checked at once. Of a time that is over, nothing is waited for.",
    )
    options: Options = Options()
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, upload: Any) -> Any:
        """Treat null as absent: many serializers write every field of a class."""
        if not isinstance(upload, dict):
            return upload
        return {name: value for name, value in upload.items() if value is not None}

    @model_validator(mode="after")
    def _named(self) -> Self:
        """Bring the id to its canonical form; an id that is not a UUID becomes the reference."""
        if self.job_id is None:
            return self
        id, reference = canonical_uuid(self.job_id), self.reference
        if id == NIL_UUID:
            raise ValueError("job_id: the nil UUID is not a valid id; leave job_id out to have an id derived")
        if id is None:
            if reference not in (None, self.job_id):
                raise ValueError(
                    "job_id is not a UUID and is therefore used as the reference, but reference has another value: "
                    "send a UUID as job_id, or only one of the two"
                )
            reference = self.job_id
        # Assigns to a frozen model, which only its validator may do.
        object.__setattr__(self, "job_id", id)
        object.__setattr__(self, "reference", reference)
        return self


class AudioFetch(Event):
    """Internal: continue a download that runs outside its event. It has the fields of the download only; the others are
    in the job's row, because an upload may be as large as an event can be, and this event must not be larger.
    """

    audio_uri: Uri
    filename: Filename
    content_type: Annotated[Reason, StringConstraints(max_length=255)] | None = None
    restricted: bool = Field(False, description="Store it where only readers of what is not redacted may read.")
    failing_since: AwareDatetime | None = Field(None, description="When its host first failed to deliver.")
