"""Compressed record batches, a slice at a time: what a stranger compressed may be thirty thousand times its size.

aiokafka decompresses a batch in one piece, whatever comes of it; a gzip batch of 153 kB then takes 150 MB. Here nothing
is decompressed before somebody asks for it, and never more than `LIMIT` bytes of one batch.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cramjam
import lz4.frame
from backports import zstd

#: Most bytes that one batch may come to. One of 1 MB, Kafka's own limit, may come to 20 MB of JSON that repeats itself.
LIMIT = 256 << 20

#: Most bytes of a zstd batch whose window is larger than `WINDOW_LOG` says: its decoder keeps all that it has decoded.
LIMIT_WITH_WINDOW = 32 << 20
WINDOW_LOG = 23

#: Bytes of input and of output in one step of a decoder.
PIECE, SLICE = 16 << 10, 256 << 10

#: Snappy cannot come to more than this many times its size.
SNAPPY_RATIO = 64

_XERIAL = b"\x82SNAPPY\0"


class Undecodable(Exception):
    """The bytes are not what their codec says, or come to too much; the message says which."""


class _Frame(Protocol):
    """A decoder of one frame, as `bz2`, `lzma`, `lz4.frame` and `compression.zstd` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decoder in the shape of the others; `zlib` itself has that from Python 3.14 on."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        # Output that did not fit may wait inside although all input is consumed.
        self.needs_input = not self._inflate.unconsumed_tail and len(out) < max_length
        return out


def _frames(data: memoryview, opened: Callable[[], _Frame], magic: tuple[bytes, ...]) -> Iterator[bytes]:
    """What the frames at the beginning hold. Bytes after the last frame are passed over, as Kafka itself does."""
    at = 0
    while True:
        frame = opened()
        while not frame.eof:
            piece = b""
            if frame.needs_input:
                if at >= len(data):
                    raise Undecodable("the compressed bytes end too early")
                piece = bytes(data[at : at + PIECE])
                at += len(piece)
            yield frame.decompress(piece, SLICE)
        at -= len(frame.unused_data or b"")
        if not bytes(data[at : at + 4]).startswith(magic):
            return


def _zstd(data: memoryview) -> Iterator[bytes]:
    magic = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)))
    narrow: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    begun = False
    try:
        for chunk in _frames(data, lambda: zstd.ZstdDecompressor(options=narrow), magic):
            begun = begun or bool(chunk)
            yield chunk
    except zstd.ZstdError:
        if begun:
            raise
        yield from _bounded(_frames(data, zstd.ZstdDecompressor, magic), LIMIT_WITH_WINDOW)


def _snappy(data: memoryview) -> Iterator[bytes]:
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        yield _snappy_block(data)
        return
    at = 0
    while at < len(data):
        if bytes(data[at : at + len(_XERIAL)]) == _XERIAL:
            at += 16  # two versions follow, which have never been other than 1
            continue
        (size,) = struct.unpack_from(">i", data, at)
        if not 0 <= size <= len(data) - at - 4:
            raise Undecodable(f"a snappy block of {size} bytes is not there")
        yield _snappy_block(data[at + 4 : at + 4 + size])
        at += 4 + size


def _snappy_block(block: memoryview) -> bytes:
    if cramjam.snappy.decompress_raw_len(bytes(block)) > SNAPPY_RATIO * len(block):
        raise Undecodable("the snappy block says that it is larger than snappy can make it")
    return bytes(cramjam.snappy.decompress_raw(bytes(block)))


_CODECS: dict[int, Callable[[memoryview], Iterator[Any]]] = {
    0: lambda data: iter([data]),
    1: lambda data: _frames(data, _Gzip, (b"\x1f\x8b",)),
    2: _snappy,
    3: lambda data: _frames(data, lz4.frame.LZ4FrameDecompressor, (b"not an lz4 frame: Kafka reads one only",)),
    4: _zstd,
}

#: What the decoders raise for bytes that are not theirs.
_ERRORS = (zlib.error, cramjam.DecompressionError, RuntimeError, zstd.ZstdError, struct.error, EOFError, ValueError)


def _bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise Undecodable(f"the batch comes to more than {limit} bytes")
        yield chunk


class Decoded:
    """The decompressed bytes of a batch, read from front to back."""

    def __init__(self, data: memoryview, codec: int) -> None:
        self._chunks: Iterator[bytes | memoryview] = _bounded(self._decode(data, codec), LIMIT)
        self._chunk = memoryview(b"")
        #: Why nothing more can be read, if that is not simply the end.
        self.trouble: Undecodable | None = None

    @staticmethod
    def _decode(data: memoryview, codec: int) -> Iterator[bytes]:
        if codec not in _CODECS:
            raise Undecodable(f"the compression codec {codec} is unknown")
        yield from _CODECS[codec](data)

    def slice(self, size: int) -> memoryview:
        """Up to `size` bytes more; none only at the end, or when there is trouble."""
        while not self._chunk:
            try:
                self._chunk = memoryview(next(self._chunks))
            except StopIteration:
                break
            except Undecodable as exc:
                self.trouble = exc
            except _ERRORS as exc:
                self.trouble = Undecodable(f"the compressed bytes are damaged: {str(exc)[:200]}")
        found, self._chunk = self._chunk[:size], self._chunk[size:]
        return found

    def put_back(self, data: bytes) -> None:
        """Have these bytes, which were read, read again."""
        self._chunks = itertools.chain([self._chunk], self._chunks)
        self._chunk = memoryview(data)

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only at the end, or when there is trouble."""
        found = self.slice(size)
        if len(found) == size:
            return bytes(found)
        parts = [found]
        while found and (size := size - len(found)):
            found = self.slice(size)
            parts.append(found)
        return b"".join(parts)
