"""A table: its files are free for the next app of the process, and a status is what the row says now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.runtime.faust_binding import RECENT, FaustTable, table_app
from agents.runtime.group_commit import Committer
from agents.runtime.kafka.client import Kafka
from agents.runtime.metrics import Metrics
from agents.runtime.skips import Skips
from agents.stages import track
from schemas.events.job import JobStatus
from schemas.jobs.rows import Job
from schemas.jobs.status import status_of
from schemas.operations import Skip
from sinks.memory.database import MemoryDatabase


class NoRows:
    """Nothing is to be passed over."""

    async def skips(self) -> list[Skip]:
        return []

    async def done(self, skip: Skip, stage: str) -> None: ...


def opened(data: Path) -> tuple[FaustTable, Any]:
    """A table of an app that was never stopped, and one of its files."""
    kafka = Kafka("localhost:1")
    committer, skips = Committer(MemoryDatabase()), Skips(NoRows())
    _, table = table_app(track.TABLE_STAGE, kafka, data, committer, Metrics(), lambda _: None, skips)
    return table, table._table.data._db_for_partition(0)


async def test_files_can_be_opened_again(tmp_path: Path) -> None:
    table, file = opened(tmp_path)
    file.put(b"job", b"row")
    with pytest.raises(Exception, match="lock hold by current process"):
        opened(tmp_path)
    table.close()
    again, file = opened(tmp_path)
    assert file.get(b"job") == b"row"
    again.close()
    again.close()


def row(job_id: str, version: int = 1) -> dict[str, Any]:
    job = Job(tenant_id="acme", job_id=job_id, filename="a.wav", audio_uri="s3://b/a", version=version)
    at = datetime(2026, 5, 1, tzinfo=UTC)
    return status_of(replace(job, created_at=at, updated_at=at)).model_dump(mode="json")


def test_a_status_is_made_of_a_row_once_and_is_what_the_row_says_now() -> None:
    app = SimpleNamespace(started=True, rebalancing=False, in_recovery=False, rebalancing_count=1)
    rows = {f"acme/j{n}": row(f"j{n}") for n in range(RECENT + 1)}
    table = FaustTable(app, rows)
    first = table.get("acme", "j0")

    assert table.get("acme", "j0") is first
    newer = JobStatus.model_validate(row("j0", version=2))
    table.put("acme/j0", newer)
    assert table.get("acme", "j0") == newer
    assert rows["acme/j0"] == row("j0", version=2)
    table.delete("acme/j0")
    assert table.get("acme", "j0") is None
    assert "acme/j0" not in rows
    for n in range(1, RECENT + 1):
        table.get("acme", f"j{n}")
    assert len(table._recent) == RECENT


def test_what_was_read_before_partitions_moved_is_read_anew() -> None:
    app = SimpleNamespace(started=True, rebalancing=False, in_recovery=False, rebalancing_count=1)
    rows = {"acme/j": row("j")}
    table = FaustTable(app, rows)
    table.get("acme", "j")
    rows["acme/j"] = row("j", version=2)  # another worker's, which a recovery has written
    app.rebalancing_count = 2
    moved = table.get("acme", "j")

    assert moved is not None
    assert moved.version == 2
    app.in_recovery = True
    assert table.get("acme", "j") is None
    rows["acme/j"] = row("j", version=3)
    app.in_recovery = False
    recovered = table.get("acme", "j")
    assert recovered is not None
    assert recovered.version == 3
