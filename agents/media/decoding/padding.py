"""Bytes of a recording's file that are no sound: tags of every make, text, and padding.

A decoder stumbles over them as over damage; whoever says what was lost must tell them apart. Tags are told by their own
structure: an APE or ID3v2 tag holds a cover, whose bytes look like any compressed sound.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

#: Bytes that are looked at at once.
_BLOCK = 1 << 20
#: Tags behind each other that are looked for.
_TAGS = 100
#: Bytes that are looked through at most; a longer stretch is what it is for the most part.
_MOST = 64 << 20

_ID3V1, _ID3V1_EXTENDED = 128, 227
#: Bytes of the longest lyrics that are believed.
_LYRICS = 1 << 16
#: Where something that is no sound may begin: zeros, printable text (XMP, lyrics, a page), a tag.
_BEGINNING = re.compile(rb"\0{64}|[\t\n\r\x20-\x7e]{64}|ID3[\x02-\x04]|APETAGEX|TAG")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]*")
_ZEROS = re.compile(rb"\0*")
_LYRICS_END = re.compile(rb"LYRICSEND|[0-9]{6}LYRICS200")


def sound_bytes(path: Path, start: int, end: int, *, zeros: bool) -> int:
    """How many of the bytes from `start` to `end` may have been sound. `zeros` says that zeros are padding there, as
    they are behind a recording; within one, they are what a failing disk leaves of it.
    """
    with path.open("rb") as file:
        end = min(end, path.stat().st_size)  # of a file that is damaged, ffmpeg tells places that are none
        end = _tags_start(file, start, end, zeros=zeros)
        return _other_bytes(file, start, end, zeros=zeros)


def tags_start(path: Path, start: int, *, zeros: bool) -> int:
    """Where the tags begin with which the file ends, not before `start`; its size if it ends otherwise."""
    with path.open("rb") as file:
        return _tags_start(file, start, path.stat().st_size, zeros=zeros)


def tags_end(path: Path, start: int) -> int:
    """Where the tags end that begin at `start`; `start` itself if none does."""
    with path.open("rb") as file:
        for _ in range(_TAGS):
            if not _bytes(file, start, start + 11).startswith((b"ID3", b"APETAGEX", b"TAG", b"LYRICSBEGIN")):
                break
            start += _headed(_bytes(file, start, start + _LYRICS), 0)
    return start


def zeros_at_end(path: Path) -> int:
    """How many zero bytes the file ends with."""
    with path.open("rb") as file:
        size = path.stat().st_size
        return size - _zeros_start(file, 0, size)


def _tags_start(file: IO[bytes], start: int, end: int, *, zeros: bool) -> int:
    """From the end backwards, because some tags have a footer only."""
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
    """Bytes of the tag that ends with these bytes; 0 if none does. `cut` says that zeros were cut off behind them, and
    some tags end with zeros.
    """
    for mark, length, least in ((b"APETAGEX", 32, 24), (b"TAG", _ID3V1, 3)):
        place = last.rfind(mark, -length) if cut else (len(last) - length if last[-length:].startswith(mark) else -1)
        if place >= 0 and least <= len(last) - place <= length:
            return len(last) - place + (_ape_size(last[place:]) - 32 if mark == b"APETAGEX" else 0)
    if last.startswith(b"TAG+") and len(last) == _ID3V1_EXTENDED:
        return _ID3V1_EXTENDED
    if last.endswith(b"LYRICS200") and last[-15:-9].isdigit():
        return int(last[-15:-9]) + 15
    if last[-10:].startswith(b"3DI"):
        return _synchsafe(last[-4:]) + 20
    return 0


def _ape_size(footer: bytes) -> int:
    """Bytes of an APE tag, by its footer."""
    header = 32 if footer[23:24] >= b"\x80" else 0
    return int.from_bytes(footer[12:16], "little") + header


def _zeros_start(file: IO[bytes], start: int, end: int) -> int:
    look = _ID3V1
    while end > start:
        block = _bytes(file, max(start, end - look), end)
        if kept := block.rstrip(b"\0"):
            return end - len(block) + len(kept)
        end -= len(block)
        look = _BLOCK
    return end


def _other_bytes(file: IO[bytes], start: int, end: int, *, zeros: bool) -> int:
    """Bytes that are none of what can be told from its beginning."""
    other = max(0, end - start - _MOST)
    end -= other
    while start < end:
        block = _bytes(file, start, min(end, start + _BLOCK))
        place = 0
        while place < len(block):
            found = _BEGINNING.search(block, place)
            before = found.start() if found else len(block)
            other += before - place
            place = before
            if found:
                size = max(1, _headed(block, place))
                other += 0 if zeros or block[place] else min(size, end - start - place)
                place += size
        start += place
    return other


def _headed(block: bytes, place: int) -> int:
    """Bytes of what begins there and is no sound; a tag may be longer than the block."""
    head = block[place : place + 32]
    if head.startswith(b"ID3"):
        return _synchsafe(head[6:10]) + (20 if head[5:6] and head[5] & 0x10 else 10)
    if head.startswith(b"APETAGEX"):
        return int.from_bytes(head[12:16], "little") + 32
    if head.startswith(b"TAG"):
        return _ID3V1
    if head.startswith(b"LYRICSBEGIN") and (lyrics := _LYRICS_END.search(block, place, place + _LYRICS)):
        return lyrics.end() - place
    run = (_ZEROS if head.startswith(b"\0") else _TEXT).match(block, place)
    return len(run[0]) if run else 0


def _synchsafe(digits: bytes) -> int:
    return sum((digit & 0x7F) << shift for digit, shift in zip(digits, (21, 14, 7, 0), strict=False))


def _bytes(file: IO[bytes], start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(max(0, end - start))
