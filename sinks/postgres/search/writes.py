"""Writes the search index of transcripts, in the transaction of the step that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.jobs.transitions import Written
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import CHUNKS


async def write_index(db: Any, results: Sequence[Written]) -> None:
    """Replace what there is of each job by its new index, and have vectors made of it."""
    for index in [written.index for written in results if written.index is not None]:
        run = (index.tenant_id, index.job_id, index.run)
        await db.execute(SQL["erase_chunks"], *run)
        await db.execute(SQL["insert_chunks"], *CHUNKS.arguments(index.chunks))
        await db.execute(SQL["erase_stale_vectors"], *run)
        await db.execute(SQL["erase_earlier_work"], *run)
        await db.execute(SQL["queue_embedding"], *run, index.transcript_version)
