"""The port of what providers' requests used up: tokens, seconds of audio, requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.jobs.rows import Usage


class UsageRows(Protocol):
    """Written once and kept for good: it is what was paid."""

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up; a row that exists already stays unchanged."""
