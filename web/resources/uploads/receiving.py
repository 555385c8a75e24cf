"""Receives a request's body into a file: `multipart/form-data` with fields, or the recording alone.

Nothing is whole in memory. The body is bounded in bytes, in fields, and in the time that it may take.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from aiohttp import web
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from schemas.errors import Unavailable
from web.problems import FieldProblem, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sinks.blobs.threads import Threads

#: Seconds without a byte, and bytes a second that a client must send after the first minute.
STALL_S: Final = 30.0
GRACE_S, LEAST_RATE = 60.0, 16_384

#: Bytes that are read, hashed and written at once, of which each upload has some in memory: 50 uploads at the same time
#: take 56 MB, where all that had arrived was read at once 120. Half of it takes 9 MB less, and a third more CPU time.
PORTION: Final = 1 << 17

#: Bytes of one field besides the recording, bytes of all of them with the form's own, and how many there may be.
FIELD_BYTES, FORM_BYTES, FIELDS = 900_000, 1 << 21, 32

#: The field that is the recording.
FILE: Final = "file"


@dataclass
class Received:
    """What a request brought."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    content_type: str | None = None
    size: int = 0
    sha256: str = ""


class TooLong(web.HTTPRequestEntityTooLarge):
    """The recording has more bytes than an upload may have."""

    def __init__(self, limit: int) -> None:
        detail = f"the recording has more than {megabytes(limit)}, the limit of an upload in a request; send it with "
        super().__init__(limit, limit, text=f"{detail}POST /audio/uploads")


async def receive(request: web.Request, path: Path, limit: int, threads: Threads) -> Received:
    """The body of a request, its recording in the file `path`. `limit` is the recording's, in bytes.

    Raises:
        HTTPUnsupportedMediaType: it is neither a form nor a recording.
        HTTPRequestEntityTooLarge: the recording is too long.
        HTTPRequestTimeout: it does not arrive in time.
        InvalidRequest: it is a form that cannot be read, or has no recording.
        Unavailable: our own disk does not take it.
    """
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    is_form = kind == "multipart/form-data"
    if not is_form and not kind.startswith(("audio/", "video/")) and kind != "application/octet-stream":
        raise web.HTTPUnsupportedMediaType(
            text="send a form (multipart/form-data) with the recording as its field `file`, or the recording itself "
            "with its media type, such as audio/wav",
            headers={"Accept": "multipart/form-data, audio/*, video/*, application/octet-stream"},
        )
    if (request.content_length or 0) > limit + (FORM_BYTES if is_form else 0):
        raise TooLong(limit)
    try:
        with path.open("xb") as opened:
            file = _File(opened, limit, threads)
            if not is_form:
                async for piece in pieces(request, limit):
                    await file.write(piece)
                return Received(content_type=kind, size=file.size, sha256=await file.finish())
            return await _form(request, options.get("boundary", ""), file, limit)
    except OSError as exc:
        raise Unavailable(f"no recording can be received in {path.parent} now: {exc}") from exc


async def _form(request: web.Request, boundary: str, file: _File, limit: int) -> Received:
    received, values = Received(), _Fields()
    try:
        parser = PushMultipartParser(boundary, max_segment_count=FIELDS, strict=True)
        async for piece in pieces(request, limit, FORM_BYTES):
            for event in parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    _begin(event, received, values)
                elif event is not None and values.current == FILE:
                    await file.write(bytes(event))
                elif event is not None:
                    values.add(bytes(event))
        parser.close()
    except (MultipartError, ValueError) as exc:
        raise _wrong("", f"this form cannot be read: {exc}") from exc
    if received.filename is None:
        raise _wrong(FILE, "is missing: send the recording as this field, with a file name")
    received.fields, received.size, received.sha256 = values.decoded(), file.size, await file.finish()
    return received


def _begin(segment: MultipartSegment, received: Received, values: _Fields) -> None:
    """The next field of a form begins. Raises InvalidRequest for a second one of the same name."""
    values.begin(segment.name or "")
    if segment.name == FILE:
        received.filename, received.content_type = segment.filename or "audio", segment.content_type


class _Fields:
    """The fields of a form besides the recording."""

    def __init__(self) -> None:
        self.current = ""
        self._values: dict[str, bytearray] = {}

    def begin(self, name: str) -> None:
        """The next field. Raises InvalidRequest if there was one of this name."""
        if name in self._values:
            raise _wrong(name, "is there twice")
        self.current, self._values[name] = name, bytearray()

    def add(self, piece: bytes) -> None:
        """More of the current field. Raises InvalidRequest if it is too long."""
        value = self._values[self.current]
        value += piece
        if len(value) > FIELD_BYTES:
            raise _wrong(self.current, f"has more than {FIELD_BYTES} bytes")

    def decoded(self) -> dict[str, str]:
        """Their values. Raises InvalidRequest for one that is not UTF-8."""
        return {name: _text(name, value) for name, value in self._values.items() if name != FILE}


def _text(name: str, value: bytes | bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _wrong(name, "is not UTF-8") from None


def _wrong(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest([FieldProblem(pointer=f"#/{name[:100]}" if name else "#", detail=detail)])


async def pieces(request: web.Request, limit: int, more: int = 0) -> AsyncIterator[bytes]:
    """The body as it arrives, at most `limit` bytes and `more` for the form. Raises HTTPRequestTimeout, and TooLong."""
    began, received = time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                piece = await request.content.read(PORTION)
        except TimeoutError:
            raise _timeout(f"nothing has arrived for {STALL_S:.0f} s") from None
        if not piece:
            return
        received += len(piece)
        if received > limit + more:
            raise TooLong(limit)
        if time.monotonic() - began > GRACE_S + received / LEAST_RATE:
            raise _timeout(f"it arrives with less than {LEAST_RATE} bytes a second")
        yield piece


def _timeout(reason: str) -> web.HTTPRequestTimeout:
    return web.HTTPRequestTimeout(text=f"the recording does not arrive in time: {reason}; send it again")


class _File:
    """A file that is written and hashed in threads, a portion at a time."""

    def __init__(self, file: IO[bytes], limit: int, threads: Threads) -> None:
        self._file, self._limit, self._threads = file, limit, threads
        self._digest, self._buffer = hashlib.sha256(), bytearray()
        self.size = 0

    async def write(self, piece: bytes) -> None:
        """Append bytes. Raises TooLong."""
        self.size += len(piece)
        if self.size > self._limit:
            raise TooLong(self._limit)
        self._buffer += piece
        if len(self._buffer) >= PORTION:
            await self._flush()

    async def finish(self) -> str:
        """Write what is left; the SHA-256 of all of it, in hexadecimal digits."""
        await self._flush()
        self._file.flush()
        return self._digest.hexdigest()

    async def _flush(self) -> None:
        portion, self._buffer = self._buffer, bytearray()
        await self._threads.run(self._append, portion)

    def _append(self, portion: bytearray) -> None:
        self._digest.update(portion)
        self._file.write(portion)


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / (1 << 20):.4g} MB" if size >= 10_000 else f"{size} bytes"
