"""Blobs over HTTP: streamed from the store in pieces, whole or in part, as RFC 9110 has it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import web

from schemas.errors import ConcordError, InvalidInput, NotFound
from web.views import byte_range

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sinks.ports.blobs import Blob, Store

log = logging.getLogger(__name__)

#: Whatever a recording claims to be, a browser must never take it for a page of ours.
_HEADERS: Final = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@contextlib.contextmanager
def from_store(what: str) -> Iterator[None]:
    """The store's errors as a stranger may read them: they name places."""
    try:
        yield
    except (NotFound, InvalidInput) as exc:
        log.warning("%s is not in the store: %s", what, exc)
        raise NotFound(f"{what} is not in the storage of this installation any more") from exc


async def send(request: web.Request, store: Store, blob: Blob, filename: str) -> web.StreamResponse:
    """The blob, the part of it that a Range header asks for, or nothing if the client has it already."""
    tag = f'"{blob.sha256}"'
    headers = _HEADERS | {"ETag": tag, "Content-Disposition": disposition(filename)}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    wanted = request.headers.get("Range") if request.headers.get("If-Range", tag) == tag else None
    part = byte_range(wanted, blob.size_bytes)
    start, end = part or (0, blob.size_bytes)
    if part and start == end:
        raise web.HTTPRequestRangeNotSatisfiable(
            text=f"the recording has {blob.size_bytes} bytes, none of them in this range",
            headers={"Content-Range": f"bytes */{blob.size_bytes}"},
        )
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    response.content_type = _harmless(blob.content_type)
    response.content_length = end - start
    return await _stream(request, response, store.stream(blob.uri, start, end), filename)


async def _stream(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes], what: str
) -> web.StreamResponse:
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    with from_store(what):
        first = await anext(pieces, b"")  # errors until here are answered as such
    await response.prepare(request)
    try:
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except ConcordError as exc:
        # The head has promised more bytes than will come: only a broken connection tells the client.
        log.warning("%s broke off: %s", what, exc)
        cut(request)
    except ConnectionError:
        log.debug("nobody waits for %s any more", what)
    return response


def cut(request: web.Request) -> None:
    """Break the connection off, so that the client does not take what it has for the whole."""
    if request.transport is not None:
        request.transport.abort()


def disposition(filename: str) -> str:
    """Show it here, but save it under its name, whatever characters are in it."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"


def _harmless(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    return kind if kind.startswith(("audio/", "video/")) or kind == "application/json" else "application/octet-stream"
