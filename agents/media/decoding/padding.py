"""Recognizes the bytes of a recording's file that are not sound: tags of all kinds, text, and padding.

A decoder reports them like damage, so they must be distinguished before losses are counted. Tags are recognized by
their structure: an APE or ID3v2 tag contains a cover image, whose bytes look like compressed sound.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

#: Bytes that are read at once.
_BLOCK = 1 << 20
#: Consecutive tags that are recognized, at most.
_TAGS = 100
#: Bytes that are examined, at most; the rest of a longer range counts as sound.
_MOST = 64 << 20

#: Bytes of these tags.
_ID3V1, _ID3V1_EXTENDED = 128, 227
#: Bytes of the longest lyrics tag that is recognized.
_LYRICS = 1 << 16
#: Possible beginnings of data that are not sound: zeros, printable text (XMP, lyrics, a web page), a tag.
_BEGINNING = re.compile(rb"\0{64}|[\t\n\r\x20-\x7e]{64}|ID3[\x02-\x04]|APETAGEX|TAG")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]*")
_ZEROS = re.compile(rb"\0*")
_LYRICS_END = re.compile(rb"LYRICSEND|[0-9]{6}LYRICS200")


def sound_bytes(path: Path, start: int, end: int, *, zeros: bool) -> int:
    """The number of bytes from `start` to `end` that may have been sound.

    With `zeros`, zeros are padding, as they are after a recording. Within a recording they are sound that a failing
    disk has lost.
    """
    with path.open("rb") as file:
        end = min(end, path.stat().st_size)  # of a damaged file, ffmpeg reports offsets beyond its end
        end = _tags_start(file, start, end, zeros=zeros)
        return _other_bytes(file, start, end, zeros=zeros)


def tags_start(path: Path, start: int, *, zeros: bool) -> int:
    """The offset of the tags at the end of the file, at least `start`; the file's size if it ends without tags."""
    with path.open("rb") as file:
        return _tags_start(file, start, path.stat().st_size, zeros=zeros)


def tags_end(path: Path, start: int) -> int:
    """The offset of the end of the tags that begin at `start`; `start` itself if no tag begins there."""
    with path.open("rb") as file:
        for _ in range(_TAGS):
            if not _bytes(file, start, start + 11).startswith((b"ID3", b"APETAGEX", b"TAG", b"LYRICSBEGIN")):
                break
            start += _headed(_bytes(file, start, start + _LYRICS), 0)
    return start


def zeros_at_end(path: Path) -> int:
    """The number of zero bytes at the end of the file."""
    with path.open("rb") as file:
        size = path.stat().st_size
        return size - _zeros_start(file, 0, size)


def _tags_start(file: IO[bytes], start: int, end: int, *, zeros: bool) -> int:
    """As `tags_start`. Searches from the end backwards, because some tags have a footer only."""
    cut = False
    for _ in range(_TAGS):
        before = end - _footed(_bytes(file, max(start, end - _ID3V1_EXTENDED), end), cut=cut)
        if cut := zeros and before == end:
            before = _zeros_start(file, start, end)
        if not start <= before < end:
            break
        end = before
    return end


def _footed(last: bytes, *, cut: bool) -> int:
    """Bytes of the tag that ends with `last`; 0 if no tag does. With `cut`, zeros after `last` were removed, which may
    have belonged to the tag.
    """
    if footer := _footer(last, b"APETAGEX", 32, 24, cut=cut):
        return len(footer) + _ape_size(footer) - 32
    if footer := _footer(last, b"TAG", _ID3V1, 3, cut=cut):
        return len(footer)
    if last.startswith(b"TAG+") and len(last) == _ID3V1_EXTENDED:
        return _ID3V1_EXTENDED
    if last.endswith(b"LYRICS200") and last[-15:-9].isdigit():
        return int(last[-15:-9]) + 15
    if last[-10:].startswith(b"3DI"):
        return _synchsafe(last[-4:]) + 20
    return 0


def _footer(last: bytes, mark: bytes, size: int, least: int, *, cut: bool) -> bytes:
    """The footer of `size` bytes that begins with this mark, at the end of `last`; empty if there is none. With `cut`,
    zeros at its end may be missing, as long as it has `least` bytes.
    """
    if cut:
        index = last.rfind(mark, -size)
        return last[index:] if 0 <= index <= len(last) - least else b""
    footer = last[-size:]
    return footer if len(footer) == size and footer.startswith(mark) else b""


def _ape_size(footer: bytes) -> int:
    """Bytes of the APE tag with this footer."""
    header = 32 if footer[23:24] >= b"\x80" else 0
    return int.from_bytes(footer[12:16], "little") + header


def _zeros_start(file: IO[bytes], start: int, end: int) -> int:
    """The offset of the zeros that end at `end`, at least `start`."""
    size = _ID3V1
    while end > start:
        block = _bytes(file, max(start, end - size), end)
        if rest := block.rstrip(b"\0"):
            return end - len(block) + len(rest)
        end -= len(block)
        size = _BLOCK
    return end


def _other_bytes(file: IO[bytes], start: int, end: int, *, zeros: bool) -> int:
    """Bytes that belong to no tag, text or padding that is recognized by its beginning."""
    other = max(0, end - start - _MOST)
    end -= other
    while start < end:
        block = _bytes(file, start, min(end, start + _BLOCK))
        index = 0
        while index < len(block):
            match = _BEGINNING.search(block, index)
            before = match.start() if match else len(block)
            other += before - index
            index = before
            if match:
                size = max(1, _headed(block, index))
                other += 0 if zeros or block[index] else min(size, end - start - index)
                index += size
        start += index
    return other


def _headed(block: bytes, index: int) -> int:
    """Bytes of the tag, text or zeros that begin at this index; a tag may be longer than the block."""
    head = block[index : index + 32]
    if head.startswith(b"ID3"):
        return _synchsafe(head[6:10]) + (20 if head[5:6] and head[5] & 0x10 else 10)
    if head.startswith(b"APETAGEX"):
        return int.from_bytes(head[12:16], "little") + 32
    if head.startswith(b"TAG"):
        return _ID3V1
    if head.startswith(b"LYRICSBEGIN") and (lyrics := _LYRICS_END.search(block, index, index + _LYRICS)):
        return lyrics.end() - index
    run = (_ZEROS if head.startswith(b"\0") else _TEXT).match(block, index)
    return len(run[0]) if run else 0


def _synchsafe(digits: bytes) -> int:
    """An integer of seven bits a byte, as ID3v2 has it."""
    return sum((digit & 0x7F) << shift for digit, shift in zip(digits, (21, 14, 7, 0), strict=False))


def _bytes(file: IO[bytes], start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(max(0, end - start))
