"""The port of the database's clock, which all workers share."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Deadlines, claims and pauses are compared with this clock, never with a worker's own."""

    async def now(self) -> datetime:
        """The database's time, with its time zone."""
