"""The port of a language model's answers about disputed words, so that no question is paid for twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.jobs.rows import Adjudication


class Adjudications(Protocol):
    """An answer serves every job of its tenant; a fault (no usable answer) serves only its own run."""

    async def adjudications(
        self, tenant_id: str, job_id: str, run: int, questions: Sequence[str]
    ) -> list[Adjudication]:
        """The tenant's answers to these questions, and the faults of this run, in order of the question."""

    async def keep_adjudications(self, rows: Sequence[Adjudication]) -> None:
        """Keep answers for the tenant and faults for the run. An answer is never replaced, a fault by anything."""
