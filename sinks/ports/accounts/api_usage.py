"""The port of how often keys use the HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from schemas.accounts.api_usage import UsedRoute


class ApiUsage(Protocol):
    """Counts of requests."""

    async def count_requests(self, counts: Mapping[UsedRoute, int]) -> None:
        """Add these to what is stored."""
