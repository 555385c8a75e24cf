"""The access log: one line of JSON for each request, without secrets.

It has no header but `User-Agent`, and no queries: keys stand in headers, and names of files and people in queries.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from web.middleware.request_state import CALLER, OPERATION, REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

#: Characters of a path and of a User-Agent that are written.
_PATH_CHARS, _AGENT_CHARS = 500, 200


def entry(request: web.Request, status: int, size: int | None, seconds: float) -> dict[str, object]:
    """What is written about a request. `bytes` is None for an answer whose length was not known before."""
    caller = request.get(CALLER)
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request[REQUEST_ID],
        "method": request.method[:20],
        "path": request.rel_url.raw_path[:_PATH_CHARS],
        "operation": request.get(OPERATION),
        "status": status,
        "bytes": size,
        "ms": round(seconds * 1000, 1),
        "caller": caller.id if caller else None,
        "tenant": caller.whose if caller and isinstance(caller.whose, str) else None,
        "client": request.remote,
        "user_agent": request.headers.get("User-Agent", "")[:_AGENT_CHARS],
    }


def open_access_log(target: str | None) -> Callable[[dict[str, object]], None] | None:
    """A function that writes entries to `stdout`, `stderr` or a file, which is opened again once it was moved away.
    None where there is to be no log.

    Raises:
        OSError: the file cannot be opened.
    """
    if target is None:
        return None
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    stream = streams.get(target)
    handler = logging.StreamHandler(stream) if stream else logging.handlers.WatchedFileHandler(target, encoding="utf-8")
    log = logging.getLogger("concord.access")
    log.propagate, log.level, log.handlers = False, logging.INFO, []
    log.addHandler(handler)

    def write(line: dict[str, object]) -> None:
        # A path may have bytes that are no UTF-8; orjson refuses the surrogates that stand for them.
        text = {name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
                for name, value in line.items()}  # fmt: skip
        log.info("%s", orjson.dumps(text).decode())

    return write
