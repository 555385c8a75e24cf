"""Responses that stream a blob from the store, whole or a byte range of it, as RFC 9110 defines them."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote

from aiohttp import web
from pydantic import Field

from schemas.errors import ConcordError, InvalidInput, NotFound
from sinks.ports.blobs import Blob
from web.parameters import Flag
from web.route import ResponseSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from schemas.jobs.rows import File
    from sinks.ports.blobs import Store

log = logging.getLogger(__name__)

#: The parameter of routes that answer by `send_file`.
Redirect = Annotated[Flag, Field(description="false: from here, even where object storage could be asked")]

#: Seconds for which a link to object storage is valid.
LINK_S: Final = 900

#: Whatever type a recording claims to have, a browser must never show it as a page of this origin.
_HEADERS: Final = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def file_responses(what: str, media_type: str, *media_types: str) -> dict[int, ResponseSpec]:
    """The responses of a route that answers by `send_file`; `what` names the file in them."""
    return {
        200: ResponseSpec("all of it", media_type=media_type, media_types=media_types),
        206: ResponseSpec("the range that `Range` asks for"),
        302: ResponseSpec("a link to object storage, valid for some minutes"),
        304: ResponseSpec("it is the one that `If-None-Match` names"),
        416: ResponseSpec(f"{what} has no such range"),
    }


@contextlib.contextmanager
def hide_storage(what: str) -> Iterator[None]:
    """Replaces the store's errors, which contain URIs, by ones for clients. `what` names the blob in them.

    Raises:
        NotFound: the store does not have the blob.
    """
    try:
        yield
    except (NotFound, InvalidInput) as exc:
        log.warning("%s is not in the store: %s", what, exc)
        raise NotFound(f"{what} is not in the storage of this installation any more") from exc


async def send_file(
    request: web.Request, store: Store, file: File, filename: str, *, redirect: bool
) -> web.StreamResponse:
    """A file of a job, by a link to object storage if that is wanted and the store makes links, else from here.

    Raises:
        HTTPFound: it is at this link.
        HTTPRequestRangeNotSatisfiable, NotFound: as `send` does.
    """
    if redirect:
        with hide_storage(filename):
            url = await store.presigned_url(file.uri, LINK_S)
        if url is not None:
            raise web.HTTPFound(url, headers={"Cache-Control": "no-store"})
    blob = Blob(file.uri, file.size_bytes, file.sha256, file.content_type)
    return await send(request, store, blob, filename)


async def send(request: web.Request, store: Store, blob: Blob, filename: str) -> web.StreamResponse:
    """The blob, the part of it that a Range header asks for, or 304 if the client has it already.

    Raises:
        HTTPRequestRangeNotSatisfiable: the range lies behind the blob's end.
        NotFound: the store does not have the blob.
    """
    tag = f'"{blob.sha256}"'
    headers = _HEADERS | {"ETag": tag, "Content-Disposition": disposition(filename)}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    requested = request.headers.get("Range") if request.headers.get("If-Range", tag) == tag else None
    part = byte_range(requested, blob.size_bytes)
    start, end = part or (0, blob.size_bytes)
    if part and start == end:
        raise web.HTTPRequestRangeNotSatisfiable(
            text=f"it has {blob.size_bytes} bytes, none of them in this range",
            headers={"Content-Range": f"bytes */{blob.size_bytes}"},
        )
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    response.headers["Content-Type"] = _harmless(blob.content_type)
    response.content_length = end - start
    return await _stream(request, response, store.stream(blob.uri, start, end), filename)


async def _stream(
    request: web.Request, response: web.StreamResponse, chunks: AsyncIterator[bytes], what: str
) -> web.StreamResponse:
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    with hide_storage(what):
        first = await anext(chunks, b"")  # errors until here are answered with a problem document
    await response.prepare(request)
    try:
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConcordError as exc:
        # The head has promised more bytes than will come: only a broken connection tells the client.
        log.warning("%s broke off: %s", what, exc)
        abort(request)
    except ConnectionError:
        log.debug("the client of %s has disconnected", what)
    return response


def abort(request: web.Request) -> None:
    """Break the connection off, so that the client does not take the part that it has for the whole."""
    if request.transport is not None:
        request.transport.abort()


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) that a Range header asks for, of `size` bytes; None for all of them.

    A header that cannot be read, or asks for several ranges, is ignored as RFC 9110 prescribes. A range behind the last
    byte gives an empty one, to be answered with 416.
    """
    unit, _, spec = (header or "").replace(" ", "").partition("=")
    first, dash, last = spec.partition("-")
    if unit.lower() != "bytes" or not dash or not _digits(first, last):
        return None
    if not first:
        return max(size - int(last), 0), size
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, end) if start < size else (size, size)


def _digits(*texts: str) -> bool:
    return any(texts) and all(not text or (text.isascii() and text.isdigit() and len(text) < 20) for text in texts)


def disposition(filename: str) -> str:
    """A Content-Disposition that shows the blob in the browser, and saves it under its name, whatever characters are in
    it.
    """
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"


def _harmless(content_type: str) -> str:
    """The type under which a browser may have it. Plain text is ours, in UTF-8, and is sent with `nosniff`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/plain":
        return "text/plain; charset=utf-8"
    is_shown = kind.startswith(("audio/", "video/")) or kind in ("application/json", "application/pdf")
    return kind if is_shown else "application/octet-stream"
