"""What is kept of speakers' voices with a tenant's consent, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

#: The step of entries in the audit log about voices. Those about a tenant's consent and about deletions have no job.
STEP: Final = "voices"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerVoice:
    """The database row of a run's speaker: what the voice sounds like. Named by a person, it is a part of that name's
    voice print.
    """

    tenant_id: str
    job_id: str
    run: int
    #: What the run called the speaker.
    speaker: str
    #: What the transcript calls the speaker now.
    label: str
    #: When and by whom the speaker was given `label` as a name; None for a mere letter.
    named_at: datetime | None = None
    named_by: str | None = None
    #: The encoder; vectors of another one cannot be compared with these.
    model: str
    #: Numbers of 4 bytes, little-endian, of length 1 as a vector.
    vector: bytes = field(repr=False)
    #: Seconds of speech that it is the mean of.
    seconds: float
    #: The name whose voice it is like, with the cosine of both; None if it is like none that is known.
    suggested: str | None = None
    similarity: float | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NamedVoice:
    """A voice print, without what the voice sounds like."""

    name: str
    #: Jobs in which a speaker was given this name.
    recordings: int
    #: Seconds of speech in them.
    seconds: float
    #: When a speaker was given this name first and last.
    created_at: datetime
    named_at: datetime
    #: When a speaker of another recording was found to sound so last.
    recognised_at: datetime | None


@dataclass(frozen=True, slots=True)
class VoiceSuggestion:
    """A name that a speaker of a run may have."""

    speaker: str
    name: str
    #: Cosine of the two voices, up to 1.
    similarity: float


@dataclass(frozen=True, slots=True)
class VoiceEvent:
    """What was done with a tenant's voice prints: `allowed`, `withdrawn`, `deleted` or `all deleted`."""

    at: datetime
    what: str
    author: str | None


@dataclass(frozen=True, slots=True)
class RenamedSpeaker:
    """A speaker that a person calls otherwise in a transcript."""

    speaker: str
    to: str
    #: Whether `to` is a name, and not a mere letter or number.
    is_name: bool
