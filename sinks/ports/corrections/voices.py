"""The port of voice prints. They are written by steps (`Outcome.voices`) and named by edits (`Outcome.edit`)."""

from __future__ import annotations

from typing import Final, Protocol

from schemas.corrections.voices import NamedVoice, SpeakerVoice, VoiceEvent, VoiceSuggestion

#: Named rows that a speaker is compared with, the newest ones: 1 kB each. Names of a list; entries of a history.
MAX_COMPARED: Final = 5000
MAX_VOICES: Final = 5000
MAX_HISTORY: Final = 100


class VoicePrints(Protocol):
    """One tenant's voice prints. There are none of a tenant that does not allow them (`AccountSettings.voice_prints`):
    a step writes none, and the change of settings that ends the consent deletes all.
    """

    async def named_voices(self, tenant: str, model: str, limit: int = MAX_COMPARED) -> list[SpeakerVoice]:
        """The rows that have a name, made by this encoder, the newest first."""

    async def voices(self, tenant: str, limit: int = MAX_VOICES) -> list[NamedVoice]:
        """The names that have a print, in order."""

    async def voice_history(self, tenant: str, limit: int = MAX_HISTORY) -> list[VoiceEvent]:
        """Who allowed voice prints, withdrew that, or deleted some; the newest first."""

    async def delete_voices(self, tenant: str, name: str | None, by: str) -> int:
        """Delete the print of a name, with what is kept of speakers in whom it was recognised; or without a name all
        that is kept of the tenant's voices. How many recordings of the print were deleted; `by` is noted, unless there
        were none of that name.
        """


class VoiceSuggestions(Protocol):
    """What people ask about the speakers of a run."""

    async def voice_suggestions(self, tenant: str, job_id: str, run: int) -> list[VoiceSuggestion]:
        """Names for speakers of the run that have none, from prints that are still kept, in order of speakers."""
