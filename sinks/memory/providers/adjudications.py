"""The double of a language model's answers about disputed words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from schemas.jobs.rows import Adjudication
from sinks.memory.state import MemoryState, dump
from sinks.ports.providers.adjudications import Adjudications

_ADJUDICATIONS = TypeAdapter(list[Adjudication])


@dataclass
class MemoryAdjudications(MemoryState, Adjudications):
    """`Adjudications` in this process."""

    async def adjudications(
        self, tenant_id: str, job_id: str, run: int, questions: Sequence[str]
    ) -> list[Adjudication]:
        """The tenant's answers to these questions, and the faults of this run."""
        stored = (self._adjudications.get((tenant_id, question)) for question in sorted(set(questions)))
        rows = [kept[0] for kept in stored if kept]
        return [row for row in rows if row.fault is None or (row.job_id, row.run) == (job_id, run)]

    async def keep_adjudications(self, rows: Sequence[Adjudication]) -> None:
        """Keep answers for the tenant and faults for the run."""
        dump(_ADJUDICATIONS, list(rows))
        for row in rows:
            stored = self._adjudications.get((row.tenant_id, row.question))
            if stored is None or stored[0].fault is not None:
                self._adjudications[row.tenant_id, row.question] = (row, self.clock())
