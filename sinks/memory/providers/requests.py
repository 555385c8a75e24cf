"""The double of requests to external recognizers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from schemas import topics
from schemas.jobs.rows import ProviderRequest
from sinks.memory.providers.strays import MemoryStrays
from sinks.memory.state import REQUEST
from sinks.ports.providers.requests import Claim, Requests


@dataclass
class MemoryRequests(MemoryStrays, Requests):
    """`Requests` in this process. A claim tells of strays, hence the base."""

    async def requests(self, tenant_id: str, job_id: str, run: int) -> list[ProviderRequest]:
        """The run's provider requests, by name of the provider."""
        return [row for _, row in sorted(self._of_run(tenant_id, job_id, run).items())]

    async def claim(
        self, tenant_id: str, job_id: str, run: int, provider: str, seconds: float
    ) -> Claim | ProviderRequest | None:
        """Commit the intention to submit a waiting request; its row instead if it does not wait."""
        row = self._of_run(tenant_id, job_id, run).get(provider)
        if row is None:
            return None
        if row.state != "waiting":
            return row
        until = self.clock() + timedelta(seconds=seconds)
        claimed = replace(row, state="intended", token=row.token + 1, claimed_until=until)
        self._write(claimed)
        return Claim(claimed, strays=any(name == provider for name, _ in self._strays))

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a submitted request due now."""
        rows = [REQUEST.validate_json(of[provider]) for of in self._requests.values() if provider in of]
        jobs = {(r.tenant_id, r.job_id) for r in rows if r.state == "submitted" and r.provider_id == provider_id}
        return bool(self._make_due(topics.requests(provider).name, jobs))

    async def expedite_job(self, tenant_id: str, job_id: str, provider: str) -> bool:
        """Make the next look at a request due now, whatever its state."""
        return bool(self._make_due(topics.requests(provider).name, [(tenant_id, job_id)]))

    async def doubtful(self, limit: int) -> list[ProviderRequest]:
        """The newest requests that are parked or were left behind."""
        rows = self._all_requests()
        newest = {(row.tenant_id, row.job_id, row.provider): row for row in sorted(rows, key=lambda row: row.run)}
        return [row for row in rows if row.state == "parked" or (row.abandoned_at and row in newest.values())][:limit]
