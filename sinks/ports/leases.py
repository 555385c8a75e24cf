"""The port of exclusive rights to long work, and of the processes that are present in the fleet."""

from __future__ import annotations

from typing import Protocol


class Leases(Protocol):
    """Rows that expire by themselves, so that a process which is killed blocks nothing for long."""

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew the exclusive right to a piece of work; False while another holder has it."""

    async def release(self, key: str, holder: str) -> None:
        """End a lease early; no effect if another holder has it by now."""

    async def register_worker(self, role: str, holder: str, seconds: float) -> int:
        """Count the process `holder` among those of a role for the next seconds; how many processes have the role."""
