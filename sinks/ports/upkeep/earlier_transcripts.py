"""The port of completed jobs that were never indexed: of before there was an index, or while it was not made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.jobs.rows import Job


class EarlierTranscripts(Protocol):
    """Raises `Unavailable`."""

    async def never_indexed(self, limit: int, most_open: int) -> Sequence[Job]:
        """At most `limit` such jobs whose uploads did not refuse it, the newest of each tenant first, and of every
        tenant before a second one of any; fewer while others are being indexed, so that at most `most_open` are.
        """
