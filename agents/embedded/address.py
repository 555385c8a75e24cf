"""Where a running `concord up` keeps its servers' addresses, so that other commands on the same CONCORD_DATA find
them.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson

#: In CONCORD_DATA; readable by its owner only, because the database's URL holds a password.
FILE = "servers.json"


def write(data: Path, addresses: dict[str, str]) -> None:
    """Announce environment variables by name, e.g. KAFKA_BOOTSTRAP_SERVERS."""
    part = data / f"{FILE}.part"
    part.unlink(missing_ok=True)  # one that is there has the mode it was made with
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(orjson.dumps(addresses))
    part.rename(data / FILE)


def read(data: Path) -> dict[str, str]:
    """What was announced last, or nothing."""
    try:
        found: dict[str, str] = orjson.loads((data / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def clear(data: Path) -> None:
    """Nothing runs here any more."""
    (data / FILE).unlink(missing_ok=True)
