"""A table's files are free for the next app of the process, also after a crash of the app before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.runtime.faust_binding import FaustTable, table_app
from agents.runtime.group_commit import Committer
from agents.runtime.kafka.client import Kafka
from agents.runtime.metrics import Metrics
from agents.runtime.skips import Skips
from agents.stages import track
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
