"""The port of what a report over many calls says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.summaries import ItemKind, Sentiment, SummaryItem


@dataclass(frozen=True, slots=True)
class CallFacts:
    """A job's newest run."""

    job_id: str
    duration_ms: int | None
    #: Of its summary; None if it has none, or a digest.
    sentiment: Sentiment | None


class Overviews(Protocol):
    """Questions of one tenant, about jobs of which the ids are known. Raises `Unavailable`."""

    async def call_facts(self, tenant: str, job_ids: Sequence[str]) -> list[CallFacts]:
        """Those of these jobs that there are."""

    async def items_of_calls(
        self, tenant: str, job_ids: Sequence[str], kind: ItemKind, limit: int
    ) -> list[SummaryItem]:
        """At most `limit` items of their summaries, newest first; those of a call in its order."""
