"""Decompresses record batches incrementally and within bounds: a small batch may decompress to a huge one.

aiokafka decompresses a batch at once, whatever its size: a gzip batch of 153 kB takes 150 MB of memory. Here bytes are
decompressed as they are read, and never more than `LIMIT` bytes of one batch.
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

#: Most bytes that one batch may decompress to. One of 1 MB, Kafka's own limit, may hold 20 MB of repetitive JSON.
LIMIT = 256 << 20

#: Most bytes of a zstd batch whose window is larger than 2^`WINDOW_LOG` bytes: its decoder keeps all its output.
LIMIT_WITH_WINDOW = 32 << 20
WINDOW_LOG = 23

#: Bytes of input and of output in one step of a decoder.
INPUT_BYTES, OUTPUT_BYTES = 16 << 10, 256 << 10

#: Snappy cannot compress to less than one part in so many.
SNAPPY_RATIO = 64

_XERIAL = b"\x82SNAPPY\0"


class Undecodable(Exception):
    """The bytes do not follow their codec's format, or decompress to too many; the message says which."""


class _Frame(Protocol):
    """The interface of the incremental decoders in `bz2`, `lzma`, `lz4.frame` and `compression.zstd`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decoder with the interface of `_Frame`; `zlib` itself has that from Python 3.14 on."""

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
        # zlib may keep output that did not fit although it has consumed all input.
        self.needs_input = not self._inflate.unconsumed_tail and len(out) < max_length
        return out


def _frames(data: memoryview, new_frame: Callable[[], _Frame], magic: tuple[bytes, ...]) -> Iterator[bytes]:
    """The contents of the frames at the beginning. Bytes after the last frame are ignored, as Kafka itself does."""
    at = 0
    while True:
        frame = new_frame()
        while not frame.eof:
            chunk = b""
            if frame.needs_input:
                if at >= len(data):
                    raise Undecodable("the compressed bytes end too early")
                chunk = bytes(data[at : at + INPUT_BYTES])
                at += len(chunk)
            yield frame.decompress(chunk, OUTPUT_BYTES)
        at -= len(frame.unused_data or b"")
        if not bytes(data[at : at + 4]).startswith(magic):
            return


def _zstd(data: memoryview) -> Iterator[bytes]:
    magic = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)))
    small_window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    has_output = False
    try:
        for chunk in _frames(data, lambda: zstd.ZstdDecompressor(options=small_window), magic):
            has_output = has_output or bool(chunk)
            yield chunk
    except zstd.ZstdError:
        if has_output:
            raise
        yield from _bounded(_frames(data, zstd.ZstdDecompressor, magic), LIMIT_WITH_WINDOW)


def _snappy(data: memoryview) -> Iterator[bytes]:
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        yield _snappy_block(data)
        return
    at = 0
    while at < len(data):
        if bytes(data[at : at + len(_XERIAL)]) == _XERIAL:
            at += 16  # the magic and two version numbers, which have always been 1
            continue
        (size,) = struct.unpack_from(">i", data, at)
        if not 0 <= size <= len(data) - at - 4:
            raise Undecodable(f"a snappy block declares {size} bytes, where {len(data) - at - 4} are left")
        yield _snappy_block(data[at + 4 : at + 4 + size])
        at += 4 + size


def _snappy_block(block: memoryview) -> bytes:
    if cramjam.snappy.decompress_raw_len(bytes(block)) > SNAPPY_RATIO * len(block):
        raise Undecodable(f"a snappy block declares more than {SNAPPY_RATIO} times its size, which snappy cannot reach")
    return bytes(cramjam.snappy.decompress_raw(bytes(block)))


_CODECS: dict[int, Callable[[memoryview], Iterator[Any]]] = {
    0: lambda data: iter([data]),
    1: lambda data: _frames(data, _Gzip, (b"\x1f\x8b",)),
    2: _snappy,
    3: lambda data: _frames(data, lz4.frame.LZ4FrameDecompressor, (b"not an lz4 frame: Kafka reads one only",)),
    4: _zstd,
}

#: What the decoders raise for bytes that do not follow their format.
_ERRORS = (zlib.error, cramjam.DecompressionError, RuntimeError, zstd.ZstdError, struct.error, EOFError, ValueError)


def _bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise Undecodable(f"the batch decompresses to more than {limit} bytes")
        yield chunk


class DecompressedStream:
    """The decompressed bytes of a batch, read from front to back. Damaged input ends the stream and sets `error`."""

    def __init__(self, data: memoryview, codec: int) -> None:
        self._chunks: Iterator[bytes | memoryview] = _bounded(self._decode(data, codec), LIMIT)
        self._chunk = memoryview(b"")
        #: Why the stream ended early; None while it has not, and at its regular end.
        self.error: Undecodable | None = None

    @staticmethod
    def _decode(data: memoryview, codec: int) -> Iterator[bytes]:
        if codec not in _CODECS:
            raise Undecodable(f"the compression codec {codec} is unknown")
        yield from _CODECS[codec](data)

    def read_some(self, size: int) -> memoryview:
        """Between 1 and `size` bytes; none only at the end, or after an error."""
        while not self._chunk:
            try:
                self._chunk = memoryview(next(self._chunks))
            except StopIteration:
                break
            except Undecodable as exc:
                self.error = exc
            except _ERRORS as exc:
                self.error = Undecodable(f"the compressed bytes are damaged: {str(exc)[:200]}")
        data, self._chunk = self._chunk[:size], self._chunk[size:]
        return data

    def put_back(self, data: bytes) -> None:
        """Return bytes that were read to the front of the stream."""
        self._chunks = itertools.chain([self._chunk], self._chunks)
        self._chunk = memoryview(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer only at the end, or after an error."""
        chunk = self.read_some(size)
        if len(chunk) == size:
            return bytes(chunk)
        chunks = [chunk]
        while chunk and (size := size - len(chunk)):
            chunk = self.read_some(size)
            chunks.append(chunk)
        return b"".join(chunks)
