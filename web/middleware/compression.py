"""Answers in gzip, for clients that take it. Streams (events, recordings, raw transcripts) are sent as they are."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final, TypeGuard, cast

from aiohttp import web

#: Bytes below which a packet is sent in any case, and above which the event loop would stand still: 64 kB take 1 ms.
LEAST: Final = 1400
_THREAD: Final = 65_536

#: The ratio grows by a tenth from here to 9, and the time threefold.
_LEVEL: Final = 4

_TYPES: Final = frozenset(
    {
        *("application/json", "application/problem+json", "text/html", "text/javascript", "text/css", "text/plain"),
        *("text/markdown", "text/vtt", "image/svg+xml", "application/x-subrip"),
    }
)


def is_long_text(response: web.StreamResponse) -> TypeGuard[web.Response]:
    """Whether it is a whole body of text that is worth it."""
    body = response.body if isinstance(response, web.Response) else None
    is_long = isinstance(body, bytes) and len(body) >= LEAST
    return is_long and response.content_type in _TYPES and "Content-Encoding" not in response.headers


async def compress(request: web.Request, response: web.Response) -> web.Response:
    """Compress a long text for a client that takes it."""
    response.headers.add("Vary", "Accept-Encoding")
    if takes_gzip(request) and response.status != 206:
        body = cast("bytes", response.body)
        response.body = await asyncio.to_thread(zipped, body) if len(body) >= _THREAD else zipped(body)
        response.headers["Content-Encoding"] = "gzip"
    return response


def zipped(body: bytes) -> bytes:
    """The body in gzip."""
    return gzip.compress(body, _LEVEL, mtime=0)


def takes_gzip(request: web.Request) -> bool:
    """Whether `Accept-Encoding` names gzip, or everything, and does not refuse it by `q=0`."""
    accepted = request.headers.get("Accept-Encoding")
    if not accepted:
        return False
    codings: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        quality = parameters.replace(" ", "").removeprefix("q=")
        codings[coding.strip()] = quality.strip("0.") != "" or not parameters
    return codings.get("gzip", codings.get("x-gzip", codings.get("*", False)))
