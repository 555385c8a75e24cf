"""Media formats: those that are accepted, their content types, and what their headers state.

Headers are read here where ffmpeg does not report their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from agents.media.decoding.padding import sound_bytes, tags_start

#: ffmpeg's demuxers that may open an upload. The others may not: playlists and scripts among them read other files and
#: fetch URLs, images and subtitles have no sound, and formats without a header accept any bytes.
CONTAINERS = (
    "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,flac,flv,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,tak,tta,"
    "w64,wav,wv"
)
#: Formats whose header states the length exactly. (Others are checked by rules of their own, or cannot be.)
EXACT = frozenset({"aiff", "ape", "au", "dsf", "flac", "iff", "mp4", "tak", "tta", "w64", "wv"})
#: Formats whose timestamps have no legitimate pauses: missing time was lost.
GAPLESS = frozenset({"amr", "flac", "ogg"})
#: Formats that are a sequence of frames without timestamps, or with timestamps that only count frames: bytes between
#: two frames are lost data or a tag.
RAW = frozenset({"aac", "ac3", "avi", "eac3", "mp3"})
#: Formats with timestamps whose audio packets follow each other in the file: bytes between two packets are lost data if
#: time is missing, too. If not, they are an index, a cover image, or stuffing.
TIMED = frozenset({"flv", "matroska", "mpeg", "mpegts", "webm"})
#: Formats whose bytes are compressed sound, which never contains many consecutive zeros.
PACKED = frozenset({"aac", "ac3", "eac3", "mp3", "ogg", "webm", "matroska", "amr"})
#: ffmpeg's decoders that may be used: those of the containers above. Pictures are never decoded, and neither are the
#: dozens of codecs that only games use, whose decoders nobody audits.
CODECS = (
    "aac,aac_latm,ac3,eac3,alac,libopencore_amrnb,libopencore_amrwb,amrnb,amrwb,ape,dca,flac,g722,g723_1,g726,g726le,g729,"
    "gsm,gsm_ms,ilbc,mp1,mp1float,mp2,mp2float,mp3,mp3float,mpc7,mpc8,nellymoser,opus,libopus,qcelp,evrc,sipr,speex,tak,"
    "truespeech,tta,vorbis,wavpack,wmav1,wmav2,wmapro,wmalossless,wmavoice,dsd_lsbf,dsd_lsbf_planar,dsd_msbf,"
    "dsd_msbf_planar,8svx_exp,8svx_fib,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_ima_oki,adpcm_swf,adpcm_yamaha,"
    "pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_s16be,pcm_s16be_planar,pcm_s16le,"
    "pcm_s16le_planar,pcm_s24be,pcm_s24le,pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,"
    "pcm_s8,pcm_s8_planar,pcm_u16be,pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8"
)

#: By format: (content type, extension) of a recording without pictures.
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
#: The same for a recording with pictures.
VIDEO_TYPES = {
    "asf": ("video/x-ms-wmv", ".wmv"),
    "matroska": ("video/x-matroska", ".mkv"),
    "mp4": ("video/mp4", ".mp4"),
    "ogg": ("video/ogg", ".ogv"),
    "webm": ("video/webm", ".webm"),
}

#: First bytes of files that people upload by mistake, and their description.
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
#: First bytes of recordings, to name the format of a file that ffmpeg cannot open.
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
    """A description of a file that is certainly no recording; None if it may be one."""
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
    """The rest of an error text that begins with the name of a file that ffmpeg cannot open; `claims` ends it."""
    if head[4:8] == b"ftyp":
        return "is cut off or damaged: it begins as an MP4 recording, but its index (the moov atom) is missing"
    if not head.strip(b"\0"):
        return f"is not a recording: it begins with {len(head)} zero bytes, as failed copies do"
    for start, name in _MEDIA:
        if head.startswith(start):
            return f"is damaged: it begins as {name}, but cannot be read as that"
    return f"is not a recording in any known format (it begins with the bytes {head[:4].hex(' ')}){claims}"


@dataclass(frozen=True, slots=True)
class SoundData:
    """The position of the sound in a file that has it in one block of bytes, as its header states it."""

    #: Offset of the first byte of sound.
    start: int
    #: Bytes of sound that the header states; None if it states none, as headers of live recorders do.
    length: int | None
    #: The header's field with the length: its offset, its width in bytes, their order, and bytes that it counts besides
    #: the sound.
    field: int
    width: int
    order: Literal["big", "little"]
    extra: int = 0

    def stating(self, length: int) -> bytes:
        """The content of the header's field for another length."""
        largest = (1 << 8 * self.width) - 1
        return min(length + self.extra, largest).to_bytes(self.width, self.order)


def sound_data(path: Path) -> SoundData | None:
    """The sound data of a WAV, AIFF, CAF or AU; None for other files, or if there is no data chunk."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head.startswith(b".snd") and len(head) == 12:
            length = int.from_bytes(head[8:12], "big")
            stated = length if 0 < length < _UNKNOWN else None
            return SoundData(int.from_bytes(head[4:8], "big"), stated, 8, 4, "big")
        kind = next((kind for begins, kind in _CHUNKED.items() if head.startswith(begins)), None)
        return _data_chunk(file, size, *kind) if kind else None


#: By a file's first bytes: byte order, bytes of a chunk's length, offset of the first chunk, name of the chunk with the
#: sound, and bytes in it before the sound.
_CHUNKED: dict[bytes, tuple[Literal["big", "little"], int, int, bytes, int]] = {
    b"RIFF": ("little", 4, 12, b"data", 0),
    b"RF64": ("little", 4, 12, b"data", 0),
    b"RIFX": ("big", 4, 12, b"data", 0),
    b"FORM": ("big", 4, 12, b"SSND", 8),
    b"caff": ("big", 8, 8, b"data", 4),
}
#: A length of four bytes from which it means "until the end of the file", as live recorders write it.
_UNKNOWN = 0x7F000000
#: Chunks that are read, at most: a hostile file can have any number.
_CHUNKS = 1000


def _data_chunk(
    file: IO[bytes], size: int, order: Literal["big", "little"], width: int, offset: int, data: bytes, before: int
) -> SoundData | None:
    large: int | None = None  # RF64: the offset of the data's length in 64 bits
    for name, start, length in _chunks(file, offset, size, order, width):
        if name == b"ds64":
            large = start + 8
        if name != data:
            continue
        if length == 0xFFFFFFFF and large is not None:
            file.seek(large)
            length = int.from_bytes(file.read(8), "little")
            return SoundData(start, length if 0 < length < 1 << 63 else None, large, 8, "little")
        unknown = length <= before or length >= (1 << 63 if width == 8 else _UNKNOWN)
        stated = None if unknown else length - before
        return SoundData(start + before, stated, start - width, width, order, before)
    return None


def _chunks(
    file: IO[bytes], offset: int, size: int, order: Literal["big", "little"], width: int
) -> Iterator[tuple[bytes, int, int]]:
    """The chunks from this offset: name, offset of the content, and its length in bytes."""
    for _ in range(_CHUNKS):
        if offset >= size:
            return
        file.seek(offset)
        name, length = file.read(4), int.from_bytes(file.read(width), order)
        start = offset + 4 + width
        yield name, start, length
        offset = start + length + (length % 2 if width == 4 else 0)


def kept_share(path: Path) -> float | None:
    """The share (0 to 1) of the sound stated in the header that is in the file; None if the header states none.

    ffmpeg reads a truncated file to its end without an error.
    """
    data = sound_data(path)
    if data is None or data.length is None:
        return None
    return min(1.0, max(0, path.stat().st_size - data.start) / data.length)


def unstated_sound(path: Path) -> tuple[SoundData, int] | None:
    """The sound data of a file with more sound than its header states, and the bytes of sound in it; otherwise None.

    A recorder that was interrupted has not written the final length, and ffmpeg stops at the stated one.
    """
    data = sound_data(path)
    if data is None:
        return None
    if data.length is None:
        return data, path.stat().st_size - data.start
    end = data.start + data.length
    if end >= path.stat().st_size or _chunk_follows(path, end, data):
        return None
    sound_end = tags_start(path, end, zeros=True)
    if sound_bytes(path, end, sound_end, zeros=True) < _UNSTATED:
        return None
    return data, sound_end - data.start


#: Bytes after the stated end from which they count as sound: half a second of a telephone call.
_UNSTATED = 4096


def _chunk_follows(path: Path, end: int, data: SoundData) -> bool:
    """Whether another chunk begins at this offset, so that the bytes there are not sound."""
    size = path.stat().st_size
    width = 4 if data.width == 8 and data.order == "little" else data.width
    with path.open("rb") as file:
        for offset in (end, end + end % 2):
            file.seek(offset)
            name, length = file.read(4), int.from_bytes(file.read(width), data.order)
            if _CHUNK_NAME.fullmatch(name) and offset + 4 + width + length <= size + 1:
                return True
    return False


_CHUNK_NAME = re.compile(rb"[\x20-\x7e]{4}")


def page_cut(path: Path) -> bool:
    """Whether an Ogg file ends within a page.

    A recording that was interrupted between two pages looks like a complete one.
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
    """Seconds that an MP3 states in its first frame ("Xing" or "Info"), as nearly every encoder writes; else None."""
    with path.open("rb") as file:
        head = file.read(10)
        tag = 0
        if head.startswith(b"ID3"):
            tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(tag)
        frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 12 or not frame[at + 7] & 1 or (kind := _mp3_frame(frame)) is None:
        return None
    _, rate, version = kind
    return int.from_bytes(frame[at + 8 : at + 12], "big") * (1152 if version == 1 else 576) / rate


def mp3_frame_cut(packet: bytes) -> bool:
    """Whether these bytes are only the beginning of an MP3 frame."""
    frame = _mp3_frame(packet)
    return frame is not None and len(packet) < frame[0]


#: Kilobits per second by the index in a frame's header, for MPEG 1, and for MPEG 2 and 2.5.
_MP3_KILOBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)


def _mp3_frame(head: bytes) -> tuple[int, int, int] | None:
    """Of a layer 3 frame: its bytes, its sample rate in Hz, and its MPEG version (2 for 2.5, too). None otherwise."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, kilobits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate == 3 or kilobits == 15:
        return None
    number = 1 if version == 3 else 2
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    size = (144_000 if number == 1 else 72_000) * _MP3_KILOBITS[number - 1][kilobits] // hertz + (head[2] >> 1 & 1)
    return size, hertz, number
