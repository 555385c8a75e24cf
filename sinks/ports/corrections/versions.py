"""The port through which people read the versions of a transcript. They are written by steps (`Outcome.edit`)."""

from __future__ import annotations

from typing import Protocol

from schemas.corrections.rows import TranscriptVersion

#: Versions that a list has at most; all can be read by number.
MAX_VERSIONS = 1000


class Versions(Protocol):
    """The versions that people have made, of one tenant's transcripts."""

    async def versions(self, tenant: str, job_id: str, run: int, limit: int = MAX_VERSIONS) -> list[TranscriptVersion]:
        """Those of a run, without their words, newest first. The run's own version is none of them."""

    async def version(self, tenant: str, job_id: str, run: int, version: int) -> TranscriptVersion | None:
        """One of them, with its words."""
