"""The port of what providers' requests used up: tokens, seconds of audio, requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.jobs.rows import Usage

#: The unit of what language models count; its quantities are limited by budgets.
TOKENS: Final = "total_tokens"


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """Tokens that language models of all providers have used."""

    of_job: float
    #: By all jobs of its tenant since the month began, in UTC.
    of_month: float


class UsageRows(Protocol):
    """Written once and kept for good: it is what was paid."""

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up; a row that exists already stays unchanged."""

    async def tokens_used(self, tenant_id: str, job_id: str) -> TokensUsed:
        """What the job has used, and its tenant in this month."""
