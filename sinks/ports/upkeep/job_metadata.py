"""The port of metadata that lists of jobs are filtered by, for jobs of earlier versions."""

from __future__ import annotations

from typing import Protocol


class IndexesMetadata(Protocol):
    """New jobs are indexed as they are written; these were there before."""

    async def index_metadata(self, jobs: int) -> bool:
        """Index the metadata of the next jobs, at most so many; whether there may be more. Safe to call from several
        workers at once, and again after any of them was killed.
        """
