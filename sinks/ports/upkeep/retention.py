"""The port of rows that are too old to be kept."""

from __future__ import annotations

from typing import Protocol


class ExpiresRows(Protocol):
    """Deletes in slices, so that no transaction is long."""

    async def forget(self, table: str, days: float, rows: int) -> int | None:
        """Delete at most so many of the table's oldest rows that are older than `days`; how many they were. None if
        another worker is deleting at the moment.
        """
