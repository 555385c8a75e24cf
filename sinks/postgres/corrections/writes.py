"""Writes what steps correct: new versions of transcripts, and the review queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.corrections.rows import TranscriptEdit
from schemas.jobs.transitions import Written
from sinks.postgres.connection.port import by_column
from sinks.postgres.corrections.voices import rename_voices
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import REVIEW_CHOICES, REVIEW_ITEMS, TRANSCRIPT_VERSIONS, TRANSCRIPTS


async def write_corrections(db: Any, results: Sequence[Written]) -> None:
    """Write the edits and the review items of steps that were applied."""
    items = [item for written in results for item in written.review]
    if items:
        await db.execute(SQL["insert_review_items"], *REVIEW_ITEMS.arguments(items))
    runs = [(t.tenant_id, t.job_id, t.run) for written in results if (t := written.transcript) and t.run > 1]
    if runs:
        await db.execute(SQL["drop_earlier_items"], *by_column(runs, 3))
    for written in results:
        if written.edit is not None:
            await _write_edit(db, written.edit)


async def _write_edit(db: Any, edit: TranscriptEdit) -> None:
    version, choice = edit.version, edit.choice
    await db.executemany(SQL["insert_version"], TRANSCRIPT_VERSIONS.values([version]))
    await db.executemany(SQL["update_transcript"], TRANSCRIPTS.values([edit.transcript]))
    await rename_voices(db, edit)
    if edit.decided:
        run = (version.tenant_id, version.job_id, version.run)
        await db.execute(SQL["settle_review_items"], *run, edit.decided, version.author)
    if choice is not None:
        item = (choice.tenant_id, choice.item, choice.reviewer)
        await db.execute(SQL["decide_review_item"], *item, choice.choice, choice.text)
        await db.execute(SQL["upsert_review_choices"], *REVIEW_CHOICES.arguments([choice]))
