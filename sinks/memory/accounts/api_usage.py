"""The double of how often keys use the HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.accounts.api_usage import UsedRoute
from sinks.memory.state import MemoryState
from sinks.ports.accounts.api_usage import ApiUsage


@dataclass
class MemoryApiUsage(MemoryState, ApiUsage):
    """`ApiUsage` in this process."""

    async def count_requests(self, counts: Mapping[UsedRoute, int]) -> None:
        """Add these."""
        self.api_usage.update(counts)
