"""The event of a transcript that a person has edited."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from schemas.events.base import JobEvent, Reason, Uri


class TranscriptEdited(JobEvent):
    """The transcript of a completed run has a new version. One event for each version, in their order."""

    version: Annotated[int, Field(ge=2)] = Field(description="Version of the transcript; 1 is the run's own.")
    author: str = Field(description="Id of the API key, or of the caller, that made it.")
    reason: Reason | None = None
    changed_words: int = Field(description="Words that were added, removed, or written otherwise.")
    word_count: int
    agent_optimized_uri: Uri
    edited_at: AwareDatetime | None = None
