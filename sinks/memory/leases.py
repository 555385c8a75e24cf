"""The double of leases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sinks.memory.state import MemoryState
from sinks.ports.leases import Leases


@dataclass
class MemoryLeases(MemoryState, Leases):
    """`Leases` in this process."""

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False while another holder has it."""
        other, until = self._leases.get(key, (holder, self.clock()))
        if other != holder and until > self.clock():
            return False
        self._leases[key] = (holder, self.clock() + timedelta(seconds=seconds))
        return True

    async def release(self, key: str, holder: str) -> None:
        """End a lease early."""
        if self._leases.get(key, ("", None))[0] == holder:
            del self._leases[key]

    async def register_worker(self, role: str, holder: str, seconds: float) -> int:
        """How many processes have the role, this one included."""
        now = self.clock()
        self._leases[f"{role}/{holder}"] = (holder, now + timedelta(seconds=seconds))
        return sum(key.startswith(f"{role}/") and until > now for key, (_, until) in self._leases.items())
