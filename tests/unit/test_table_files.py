"""A table's files are free for the next app of the process, also when the app before it crashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.bind import FaustTable, track_app
from agents.committer import Committer
from agents.kafka import Kafka
from agents.metrics import Metrics
from sinks.memory import MemoryDatabase


def opened(data: Path) -> tuple[FaustTable, Any]:
    """A table of an app that was never stopped, and one of its files."""
    kafka = Kafka("localhost:1")
    _, table = track_app(kafka, data, Committer(MemoryDatabase()), Metrics(), lambda _: None)
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
