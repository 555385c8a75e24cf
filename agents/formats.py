"""What formats are called, how files begin, what headers promise: read from the bytes where ffmpeg says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

#: ffmpeg's containers that are recordings. Anything else stays shut: playlists and scripts among its formats read other
#: files and fetch URLs, images and subtitles have no sound, and headerless formats claim whatever they are given.
CONTAINERS = (
    "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,flac,flv,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,tak,tta,"
    "w64,wav,wv"
)
#: Those whose header states the length exactly (others are checked by their own rules, or cannot be).
EXACT = frozenset({"aiff", "ape", "au", "dsf", "flac", "iff", "mp4", "tak", "tta", "w64", "wv"})
#: Those whose time has no legitimate pauses: what is missing was lost.
GAPLESS = frozenset({"aac", "ac3", "amr", "flac", "mp3", "ogg"})
#: Those in which audio packets follow each other in the file: what lies between was lost.
DENSE = frozenset({"aac", "avi", "flv", "matroska", "mp3", "mpeg", "mpegts", "webm"})

#: Format: (content type, extension) of a recording without pictures.
TYPES = {
    "aac": ("audio/aac", ".aac"),
    "ac3": ("audio/ac3", ".ac3"),
    "eac3": ("audio/eac3", ".eac3"),
    "aiff": ("audio/aiff", ".aiff"),
    "amr": ("audio/amr", ".amr"),
    "asf": ("audio/x-ms-wma", ".wma"),
    "au": ("audio/basic", ".au"),
    "avi": ("video/x-msvideo", ".avi"),
    "caf": ("audio/x-caf", ".caf"),
    "flac": ("audio/flac", ".flac"),
    "flv": ("video/x-flv", ".flv"),
    "matroska": ("audio/x-matroska", ".mka"),
    "mp3": ("audio/mpeg", ".mp3"),
    "mp4": ("audio/mp4", ".m4a"),
    "mpeg": ("video/mpeg", ".mpg"),
    "mpegts": ("video/mp2t", ".ts"),
    "ogg": ("audio/ogg", ".ogg"),
    "wav": ("audio/wav", ".wav"),
    "webm": ("audio/webm", ".webm"),
}
#: The same with pictures.
VIDEO_TYPES = {
    "asf": ("video/x-ms-wmv", ".wmv"),
    "matroska": ("video/x-matroska", ".mkv"),
    "mp4": ("video/mp4", ".mp4"),
    "ogg": ("video/ogg", ".ogv"),
    "webm": ("video/webm", ".webm"),
}

#: How files begin that people upload by mistake, and what to call them.
_NOT_MEDIA = (
    (b"PK\x03\x04", "a ZIP archive (or an Office document)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"(\xb5/\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3", "an SQLite database"),
    (b"MThd", "a MIDI file, which holds notes and no sound"),
)
#: How recordings begin, for saying what a file that cannot be opened once was.
_MEDIA = (
    (b"RIFF", "WAV"),
    (b"RIFX", "WAV"),
    (b"RF64", "WAV"),
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"FORM", "AIFF"),
    (b"ID3", "MP3"),
    (b"\xff\xfb", "MP3"),
    (b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (b"#!AMR", "AMR"),
    (b"caff", "CAF"),
    (b".snd", "AU"),
)


def head_of(path: Path) -> bytes:
    """The first 4096 bytes."""
    with path.open("rb") as file:
        return file.read(4096)


def likeness(head: bytes) -> str | None:
    """What a file that is surely no recording looks like; None if it may be one."""
    for start, name in _NOT_MEDIA:
        if head.startswith(start):
            return name
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page (an error page saved in place of the recording?)"
    if text.startswith(b"#EXTM3U"):
        return "a playlist, which names recordings and holds none"
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-4].decode() if len(head) == 4096 else head.decode()  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)


def unreadable(head: bytes, claims: str) -> str:
    """What to say of a file that ffmpeg cannot open, after its name; `claims` ends the sentence."""
    if head[4:8] == b"ftyp":
        return "is cut off or damaged: it begins as an MP4 recording, but its index (the moov atom) is missing"
    for start, name in _MEDIA:
        if head.startswith(start):
            return f"is damaged: it begins as {name}, but cannot be read as that"
    return f"is not a recording in any known format (it begins with the bytes {head[:4].hex(' ')}){claims}"


def kept_share(path: Path) -> float | None:
    """How much of the data that a WAV or CAF header promises is in the file, 0 to 1; None if it promises nothing.

    ffmpeg reads such files to their end without a word, so this looks itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for name, start, length in _chunks(file, size):
            if name == b"data":
                return max(0, size - start) / length if size - start < length else 1.0
    return None


def _chunks(file: IO[bytes], size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length in bytes of a WAV's or CAF's chunks, without those of unknown length (live recordings)."""
    form = file.read(12)
    caf = form.startswith(b"caff")
    order: Literal["big", "little"] = "big" if caf or form.startswith(b"RIFX") else "little"
    width, place, large = (8, 8, 0) if caf else (4, 12, 0)
    while place < size:
        file.seek(place)
        name, length = file.read(4), int.from_bytes(file.read(width), order)
        start = place + 4 + width
        if name == b"ds64":  # RF64: the length of the data as 64 bits, 32 not being enough
            large = int.from_bytes(file.read(16)[8:], "little")
        if not caf and length == 0xFFFFFFFF:
            length = large
        unknown = length == 0 or (length >= 0x7FFFF000 and not large) if not caf else length >= 1 << 63
        if unknown:
            return
        yield name, start, length
        place = start + length + (length % 2 if not caf else 0)


def page_cut(path: Path) -> bool:
    """Whether an Ogg file ends within a page. (A recorder that died between two pages cannot be told from one that
    stopped.)
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 65_536))  # a page is shorter
        end = file.read()
    page = end.rfind(b"OggS")
    if page < 0 or page + 27 > len(end):
        return page >= 0
    lengths = end[page + 27 : page + 27 + end[page + 26]]
    return page + 27 + end[page + 26] + sum(lengths) > len(end)


def xing_s(path: Path) -> float | None:
    """Seconds that an MP3 promises in its first frame ("Xing" or "Info"), as nearly every encoder writes; else None."""
    with path.open("rb") as file:
        head = file.read(10)
        tag = 0
        if head.startswith(b"ID3"):
            tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(tag)
        frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 12 or not frame[at + 7] & 1:
        return None
    version, rate_index = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if frame[0] != 0xFF or version == 1 or rate_index == 3:
        return None
    rate = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    count = int.from_bytes(frame[at + 8 : at + 12], "big")
    return count * (1152 if version == 3 else 576) / rate
