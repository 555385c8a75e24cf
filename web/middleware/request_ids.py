"""Gives every request an id, which the answer repeats, and writes one line about it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from aiohttp import web

from web.middleware.access_log import entry
from web.middleware.request_state import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

HEADER: Final = "X-Request-Id"

#: An id that a client or proxy may bring along: safe in headers, logs and pages.
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")

#: The status in the access log of a request whose client has gone before it was answered, as nginx writes it.
GONE: Final = 499


def request_ids(write: Callable[[dict[str, object]], None] | None) -> Middleware:
    """`write` gets an entry for each request, when its answer is made or has been streamed."""

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        brought = request.headers.get(HEADER, "")
        request[REQUEST_ID] = brought if _SANE.fullmatch(brought) else uuid4().hex
        began, status, size = time.monotonic(), GONE, None
        try:
            response = await handler(request)
            status, size = response.status, response.content_length
            return response
        except web.HTTPException as exc:
            status, size = exc.status, exc.content_length
            raise
        finally:
            if write is not None:
                write(entry(request, status, size, time.monotonic() - began))

    return handle
