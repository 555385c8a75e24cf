"""The port of requests to external recognizers: who may submit one, and when a scheduled look at one is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.jobs.rows import ProviderRequest


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to submit one provider request, until it expires."""

    request: ProviderRequest
    #: Whether the provider has requests that no row knows; see `sinks.ports.providers.strays`.
    strays: bool = False


class Requests(Protocol):
    """One row per (tenant, job, run, provider), so that a recording is paid for once."""

    async def requests(self, tenant_id: str, job_id: str, run: int) -> list[ProviderRequest]:
        """The run's provider requests, by name of the provider."""

    async def claim(
        self, tenant_id: str, job_id: str, run: int, provider: str, seconds: float
    ) -> Claim | ProviderRequest | None:
        """Commit the intention to submit a waiting request within so many seconds, with a new fencing token.

        Of several callers one gets the claim. The request's row is returned instead if it was claimed before, however
        long ago, or is past that; None if there is no such request.
        """

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a submitted request due now; False if none is scheduled: the request is unknown or has
        ended, or the look is due already.
        """

    async def expedite_job(self, tenant_id: str, job_id: str, provider: str) -> bool:
        """The same for a request of any state, found by its job."""

    async def doubtful(self, limit: int) -> list[ProviderRequest]:
        """The newest requests that are parked, or that the last run which had them left behind."""
