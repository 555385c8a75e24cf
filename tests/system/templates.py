"""Data folders of Kafka and PostgreSQL that are formatted once a session, and copied for each site: formatting takes
1.2 s of CPU, twice as long by the clock, and a session has thirty sites.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from agents.embedded.postgres import EmbeddedPostgres

#: All that Kafka's storage tool writes into a node's folder, and the cluster's id in it.
KAFKA_FILES = ("cluster.id", "node-1/data/meta.properties", "node-1/data/bootstrap.checkpoint")


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    folder.chmod(0o755)  # as root, PostgreSQL's user must get through
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def lay_kafka(data: Path) -> None:
    """What the first site's only node was formatted with, if there was such a site, for a server that starts there."""
    _copy(_folder() / "kafka", data / "kafka")


def keep_kafka(data: Path) -> None:
    """Keep it, of a server that has been started there."""
    _copy(data / "kafka", _folder() / "kafka")


def _copy(source: Path, target: Path) -> None:
    if not (target / KAFKA_FILES[0]).exists() and (source / KAFKA_FILES[0]).exists():
        for name in KAFKA_FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


async def lay_postgres(data: Path) -> None:
    """An empty cluster with the database `concord`, for a server that starts there."""
    template = _folder() / "postgres"
    if not template.exists():
        async with EmbeddedPostgres(_folder()):
            pass
        for name in ("ports.json", "lock", "postgres.log"):  # each site has its own
            (template / name).unlink(missing_ok=True)
    if not (template / "data").is_symlink():  # as root, where the server's user cannot reach it
        # Not shutil.copytree: the files belong to the server's user.
        await asyncio.to_thread(subprocess.run, ["cp", "-a", str(template), str(data / "postgres")], check=True)
