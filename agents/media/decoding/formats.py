"""What formats are called, how files begin, what headers promise: read from the bytes where ffmpeg says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from agents.media.decoding.padding import sound_bytes, tags_start

#: ffmpeg's containers that are recordings. Anything else stays shut: playlists and scripts among its formats read other
#: files and fetch URLs, images and subtitles have no sound, and headerless formats claim whatever they are given.
CONTAINERS = (
    "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,flac,flv,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,tak,tta,"
    "w64,wav,wv"
)
#: Those whose header states the length exactly (others are checked by their own rules, or cannot be).
EXACT = frozenset({"aiff", "ape", "au", "dsf", "flac", "iff", "mp4", "tak", "tta", "w64", "wv"})
#: Those whose time has no legitimate pauses: what is missing was lost.
GAPLESS = frozenset({"amr", "flac", "ogg"})
#: Those that are frame after frame without a clock, or one that only counts frames: what lies between two was lost, or
#: is a tag.
RAW = frozenset({"aac", "ac3", "avi", "eac3", "mp3"})
#: Those with a clock in which audio packets follow each other in the file: what lies between two was lost if the clock
#: says that time is missing, too. If not, it is an index, a cover, or stuffing.
TIMED = frozenset({"flv", "matroska", "mpeg", "mpegts", "webm"})
#: Those whose bytes are compressed sound, in which no long row of zeros has a meaning.
PACKED = frozenset({"aac", "ac3", "eac3", "mp3", "ogg", "webm", "matroska", "amr"})
#: ffmpeg's decoders that are used: those of the containers above. Pictures are never decoded, and neither are the
#: dozens of codecs that only games used, in which nobody looks for holes.
CODECS = (
    "aac,aac_latm,ac3,eac3,alac,libopencore_amrnb,libopencore_amrwb,amrnb,amrwb,ape,dca,flac,g722,g723_1,g726,g726le,g729,"
    "gsm,gsm_ms,ilbc,mp1,mp1float,mp2,mp2float,mp3,mp3float,mpc7,mpc8,nellymoser,opus,libopus,qcelp,evrc,sipr,speex,tak,"
    "truespeech,tta,vorbis,wavpack,wmav1,wmav2,wmapro,wmalossless,wmavoice,dsd_lsbf,dsd_lsbf_planar,dsd_msbf,"
    "dsd_msbf_planar,8svx_exp,8svx_fib,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_ima_oki,adpcm_swf,adpcm_yamaha,"
    "pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_s16be,pcm_s16be_planar,pcm_s16le,"
    "pcm_s16le_planar,pcm_s24be,pcm_s24le,pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,"
    "pcm_s8,pcm_s8_planar,pcm_u16be,pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8"
)

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
    if not head.strip(b"\0"):
        return f"is not a recording: it begins with {len(head)} zero bytes, as failed copies do"
    for start, name in _MEDIA:
        if head.startswith(start):
            return f"is damaged: it begins as {name}, but cannot be read as that"
    return f"is not a recording in any known format (it begins with the bytes {head[:4].hex(' ')}){claims}"


@dataclass(frozen=True, slots=True)
class SoundData:
    """Where a file whose sound is one block of bytes has it, as its header says."""

    #: The first byte of sound.
    start: int
    #: Bytes of sound that the header states; None if it states none, as live recorders do.
    length: int | None
    #: The field that states it: where it is, its bytes, their order, and what it counts besides.
    field: int
    width: int
    order: Literal["big", "little"]
    extra: int = 0

    def stating(self, length: int) -> bytes:
        """The field's bytes for another length."""
        largest = (1 << 8 * self.width) - 1
        return min(length + self.extra, largest).to_bytes(self.width, self.order)


def sound_data(path: Path) -> SoundData | None:
    """Of a WAV, AIFF, CAF or AU; None for any other, or where the header says nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head.startswith(b".snd") and len(head) == 12:
            length = int.from_bytes(head[8:12], "big")
            known = length if 0 < length < _UNKNOWN else None
            return SoundData(int.from_bytes(head[4:8], "big"), known, 8, 4, "big")
        kind = next((kind for begins, kind in _CHUNKED.items() if head.startswith(begins)), None)
        return _data_chunk(file, size, *kind) if kind else None


#: By the first bytes: order, bytes of a chunk's length, where chunks begin, the chunk with the sound, and what lies in
#: it before the sound.
_CHUNKED: dict[bytes, tuple[Literal["big", "little"], int, int, bytes, int]] = {
    b"RIFF": ("little", 4, 12, b"data", 0),
    b"RF64": ("little", 4, 12, b"data", 0),
    b"RIFX": ("big", 4, 12, b"data", 0),
    b"FORM": ("big", 4, 12, b"SSND", 8),
    b"caff": ("big", 8, 8, b"data", 4),
}
#: A stated length of four bytes from which it means "until the end", as live recorders write.
_UNKNOWN = 0x7F000000
#: Chunks that are looked at: a hostile file has no end of them.
_CHUNKS = 1000


def _data_chunk(
    file: IO[bytes], size: int, order: Literal["big", "little"], width: int, place: int, wanted: bytes, before: int
) -> SoundData | None:
    large: int | None = None  # RF64: where the length of the data is as 64 bits, 32 not being enough
    for name, start, length in _chunks(file, place, size, order, width):
        if name == b"ds64":
            large = start + 8
        if name != wanted:
            continue
        if length == 0xFFFFFFFF and large is not None:
            file.seek(large)
            length = int.from_bytes(file.read(8), "little")
            return SoundData(start, length if 0 < length < 1 << 63 else None, large, 8, "little")
        unknown = length <= before or length >= (1 << 63 if width == 8 else _UNKNOWN)
        known = None if unknown else length - before
        return SoundData(start + before, known, start - width, width, order, before)
    return None


def _chunks(
    file: IO[bytes], place: int, size: int, order: Literal["big", "little"], width: int
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length in bytes of the chunks from there."""
    for _ in range(_CHUNKS):
        if place >= size:
            return
        file.seek(place)
        name, length = file.read(4), int.from_bytes(file.read(width), order)
        start = place + 4 + width
        yield name, start, length
        place = start + length + (length % 2 if width == 4 else 0)


def kept_share(path: Path) -> float | None:
    """How much of the data that a header promises is in the file, 0 to 1; None if it promises nothing.

    ffmpeg reads such files to their end without a word, so this looks itself.
    """
    data = sound_data(path)
    if data is None or data.length is None:
        return None
    return min(1.0, max(0, path.stat().st_size - data.start) / data.length)


def unstated_sound(path: Path) -> tuple[SoundData, int] | None:
    """The sound data of a file that goes on with sound where its header says that it ends, and how many bytes it really
    has. (A recorder that died, or was cut off, had not yet written the length; ffmpeg believes what is there.)
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


#: Bytes behind the stated end that are no accident: half a second of a telephone call.
_UNSTATED = 4096


def _chunk_follows(path: Path, end: int, data: SoundData) -> bool:
    """Whether what begins there is another chunk, and no sound."""
    size = path.stat().st_size
    width = 4 if data.width == 8 and data.order == "little" else data.width
    with path.open("rb") as file:
        for place in (end, end + end % 2):
            file.seek(place)
            name, length = file.read(4), int.from_bytes(file.read(width), data.order)
            if _CHUNK_NAME.fullmatch(name) and place + 4 + width + length <= size + 1:
                return True
    return False


_CHUNK_NAME = re.compile(rb"[\x20-\x7e]{4}")


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
    if at < 0 or len(frame) < at + 12 or not frame[at + 7] & 1 or (kind := _mp3_frame(frame)) is None:
        return None
    _, rate, version = kind
    return int.from_bytes(frame[at + 8 : at + 12], "big") * (1152 if version == 1 else 576) / rate


def mp3_frame_cut(packet: bytes) -> bool:
    """Whether these bytes are less than the MP3 frame that they begin with."""
    frame = _mp3_frame(packet)
    return frame is not None and len(packet) < frame[0]


#: Kilobits a second by the number in a frame's header, for MPEG 1 and for 2 and 2.5.
_MP3_KILOBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)


def _mp3_frame(head: bytes) -> tuple[int, int, int] | None:
    """Bytes, sample rate and MPEG version (1, or 2 for 2.5 as well) of a frame of layer 3; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, kilobits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate == 3 or kilobits == 15:
        return None
    number = 1 if version == 3 else 2
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    size = (144_000 if number == 1 else 72_000) * _MP3_KILOBITS[number - 1][kilobits] // hertz + (head[2] >> 1 & 1)
    return size, hertz, number
