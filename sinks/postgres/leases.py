"""Leases on PostgreSQL."""

from __future__ import annotations

from sinks.ports.leases import Leases
from sinks.postgres.connection.port import PostgresPort


class PostgresLeases(PostgresPort, Leases):
    """`Leases` on a pool."""

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False while another holder has it."""
        return bool(await self._fetch("lease", key, holder, seconds))

    async def release(self, key: str, holder: str) -> None:
        """End a lease early."""
        await self._fetch("release", key, holder)

    async def register_worker(self, role: str, holder: str, seconds: float) -> int:
        """How many processes have the role, this one included."""
        return int((await self._fetch("register_worker", role, holder, seconds))[0][0])
