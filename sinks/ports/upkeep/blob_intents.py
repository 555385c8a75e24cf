"""The port of blobs that are about to be written: what no file refers to afterwards is an orphan and can be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.ids import Key


class BlobIntents(Protocol):
    """A note is written before its blob; the step that refers to the blob removes the note."""

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Note that a blob is about to be written for a job, which may not exist yet."""

    async def hold_blob(self, key: Key, uri: str, seconds: float) -> None:
        """Note that a blob is about to be written for a job that does not exist yet, and is an orphan after that time
        unless this is called again or a step is committed with it (`Steps.commit`).

        Raises Contended if the blob is being deleted as an orphan.
        """

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """URIs of blobs that were intended and that no file of their job refers to: at once where a step with them was
        refused or they are held no more, after `settled_s` where the job has another original or has ended, after
        `age_s` in any case, except for those that are held for a job.
        """

    async def forget_blobs(self, uris: Sequence[str]) -> None:
        """Remove the notes of blobs that are deleted, or referred to."""
