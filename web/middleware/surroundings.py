"""What happens around every request: its id, problem documents for errors, compression and the access log.

This is one middleware, because each took 5 % of the CPU time of a request for a status.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from web.middleware.access_log import entry
from web.middleware.compression import compress, is_long_text
from web.middleware.request_ids import request_id
from web.middleware.request_state import REQUEST_ID
from web.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

#: The status in the access log of a request whose client has gone before it was answered, as nginx writes it.
GONE: Final = 499


def surroundings(
    write: Callable[[dict[str, object]], None] | None,
    check: Callable[[web.Request], None],
    unmatched: Callable[[Handler], Handler],
) -> Middleware:
    """`write` gets an entry for each request, when its answer is made or has been streamed. `check` refuses a request
    before its route sees it; `unmatched` answers those that have no route, instead of the handler that refuses them.
    """

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.match_info.http_exception is not None:
                handler = unmatched(handler)
            else:
                check(request)
            response = await handler(request)
        except Exception as exc:  # the edge of the process: aiohttp may answer with a traceback
            if isinstance(exc, web.HTTPException) and exc.status < HTTPStatus.BAD_REQUEST:
                raise
            response = problem_of(request, exc)
        return await compress(request, response) if is_long_text(response) else response

    @web.middleware
    async def surround(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = request_id(request)
        if write is None:
            return await answer(request, handler)
        began, status, size = time.monotonic(), GONE, None
        try:
            response = await answer(request, handler)
            status, size = response.status, response.content_length
            return response
        except web.HTTPException as exc:
            status, size = exc.status, exc.content_length
            raise
        finally:
            write(entry(request, status, size, time.monotonic() - began))

    return surround
