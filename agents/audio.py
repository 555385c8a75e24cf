"""Everything about media: what a file really is, whether it can be transcribed, and its sound as numbers.

Uploads come from strangers, so their bytes meet ffmpeg (through PyAV) only in worker processes. The functions here are
plain and synchronous, for those processes; `Prober` is what an event loop uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self

from agents.processes import Died, Worker, begin, serve
from schemas.errors import NotFound, RefusedMedia, Transient

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

#: Milliseconds: ten hours. Longer recordings are refused unless the caller says otherwise.
MAX_DURATION_MS = 36_000_000
#: Milliseconds: nobody says a word in less.
MIN_DURATION_MS = 20
#: Peak amplitude, full scale being 1 (-60 dB): a recording that never gets louder is called silent.
SILENT_PEAK = 0.001
#: Hertz: what recorders make, from toy to studio (DSD counts as 705,600). Outside it, a header is broken.
RATES = range(1_000, 1_000_000)
#: Share of a recording that may be undecodable, scattered through it: bit rot and stray tags happen to good files.
TOLERATED_DAMAGE = 0.1
#: Share of what a header promises that may be missing, and never less than this many seconds: encoders round and pad.
TOLERATED_LOSS, TOLERATED_LOSS_S = 0.01, 0.25
#: Seconds between two timestamps that are no jitter but a pause in the recording, kept as silence so that times stay
#: right; and the longest pause believed, since a broken clock can claim years.
SHORTEST_GAP_S, LONGEST_GAP_S = 0.25, 600.0
#: Bytes between two packets that are no framing but lost data.
HOLE_BYTES = 4096

#: How often reading is tried again without any packet in between.
READ_ON = 100

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
_TYPES = {
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
_VIDEO_TYPES = {
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


@dataclass(frozen=True, slots=True)
class Probe:
    """What a recording really is, whatever its name said, after all of it was decoded."""

    #: The container, in one word: "wav", "flac", "mp3", "mp4", "ogg", "webm" ...
    format: str
    #: ffmpeg's name of the codec: "pcm_s16le", "aac", "opus" ...
    codec: str
    #: Hertz.
    sample_rate: int
    channels: int
    duration_ms: int
    content_type: str
    #: With its dot.
    extension: str
    #: True if it never gets louder than `SILENT_PEAK`.
    silent: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording, mono."""

    #: Where it begins, from the start of the recording.
    start_ms: int
    samples: NDArray[np.float32]


@dataclass(slots=True)
class _Tally:
    """What decoding went through so far. "Lost" lies between good packets, "tail" after the last good one."""

    decoded_s: float = 0.0
    #: Decoded time and the pauses between: the recording's own clock.
    end_s: float = 0.0
    gaps_s: float = 0.0
    packets: int = 0
    good_bytes: int = 0
    lost_bytes: int = 0
    lost_packets: int = 0
    tail_bytes: int = 0
    tail_packets: int = 0

    def good(self, size: int) -> None:
        """A packet was decoded, so whatever was bad before it was not the end."""
        self.packets += 1
        self.good_bytes += size
        self.lost_bytes += self.tail_bytes
        self.lost_packets += self.tail_packets
        self.tail_bytes = self.tail_packets = 0

    def bad(self, size: int, packets: int = 1) -> None:
        self.packets += packets
        self.tail_packets += packets
        self.tail_bytes += size

    def damage(self, *, gapless: bool) -> float:
        """Share of the recording, up to its last good packet, that could not be decoded: by bytes, packets or time."""
        size = self.good_bytes + self.lost_bytes
        packets = self.packets - self.tail_packets
        return max(
            self.lost_bytes / size if size else 0.0,
            self.lost_packets / packets if packets else 0.0,
            self.gaps_s / self.end_s if gapless and self.end_s else 0.0,
        )


class _Recording:
    """An open file, its container recognized and its sound track chosen. Use as a context manager."""

    def __init__(self, path: Path, label: str, claims: str = "") -> None:
        self.path, self.label = path, label
        self.tally = _Tally()
        self._container = _open(path, label, claims)
        #: The container's time, in seconds, that is the recording's zero; None until a frame says so.
        start: int | None = self._container.start_time
        self._origin = None if start is None else start / 1e6
        try:
            self.stream = self._choose()
            self.format = self._format()
            # Set again by every frame: headers lie, and only the decoder knows.
            self.rate, self.channels = self.stream.codec_context.sample_rate, self.stream.codec_context.channels
            if self.rate and self.rate not in RATES:
                raise RefusedMedia(f"{label} is damaged: its header states {self.rate} samples a second")
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _choose(self) -> av.AudioStream:
        tracks = self._container.streams.audio
        if not tracks:
            seen = "pictures but no sound track" if self._container.streams.video else "no sound track"
            raise RefusedMedia(f"{self.label} has {seen}: there is nothing to transcribe in it")
        usable = [track for track in tracks if _codec(track)]
        if not usable:
            raise RefusedMedia(f"the sound of {self.label} is encrypted or in a codec that cannot be decoded here")
        best = self._container.streams.best("audio")
        return next((track for track in usable if track is best), usable[0])

    @property
    def pictures(self) -> bool:
        """Whether it is a video; cover art does not count."""
        from av.stream import Disposition

        return any(not track.disposition & Disposition.attached_pic for track in self._container.streams.video)

    def _format(self) -> str:
        names = self._container.format.name.split(",")
        if "mp4" in names:
            return "mp4"
        codecs = {_codec(track) for track in self._container.streams} - {None}
        if "webm" in names and codecs <= {"opus", "vorbis", "vp8", "vp9", "av1", "libdav1d", "libvpx-vp9"}:
            return "webm"
        return "amr" if names[0].startswith("amr") else names[0]

    def content_type(self) -> tuple[str, str]:
        """The honest content type, and the extension that goes with it."""
        known = _TYPES.get(self.format, (f"audio/x-{self.format}", f".{self.format}"))
        return _VIDEO_TYPES.get(self.format, known) if self.pictures else known

    def promised_s(self) -> float | None:
        """Seconds that the header promises, where it is one that keeps its promises."""
        if self.format in EXACT:
            return self._stated_s()
        if self.format in {"wav", "caf"} and (kept := _kept_share(self.path)):
            return max(self.tally.decoded_s / kept, self._stated_s() or 0.0)
        if self.format == "mp3":
            return _xing_s(self.path)
        if self.format in {"matroska", "webm", "flv"} and not self.pictures and self._container.duration:
            return self._container.duration / 1e6
        return None

    def _stated_s(self) -> float | None:
        """What ffmpeg takes the track's length to be: from the header, or a guess."""
        length, base = self.stream.duration, self.stream.time_base
        return float(length * base) if length and base else None

    def frames(self) -> Iterator[tuple[float, av.AudioFrame]]:
        """Every frame that can be decoded, each with the seconds of pause before it (0.0 almost always)."""
        tally = self.tally
        for packet in self._packets():
            for frame in self._decoded(packet):
                gap, length = self._gap(frame.time), frame.samples / frame.sample_rate
                tally.decoded_s += length
                tally.gaps_s += gap
                tally.end_s += gap + length
                self.rate, self.channels = frame.sample_rate, len(frame.layout.channels)
                yield gap, frame

    def _gap(self, time: float | None) -> float:
        """Seconds of pause before the frame of that time."""
        if time is None:
            return 0.0
        if self._origin is None:
            self._origin = time
        gap = time - self._origin - self.tally.end_s
        if gap > LONGEST_GAP_S:  # the clock jumped; nobody paused
            self._origin, gap = time - self.tally.end_s, 0.0
        return gap if gap >= SHORTEST_GAP_S else 0.0

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """The track's packets, up to where the container can be read; what is missing shows in the tally."""
        dense = self.format in DENSE and len(self._container.streams) == 1
        place: int | None = None  # in the file, where the next packet should begin
        for packet in self._readable():
            if dense and packet.pos is not None and packet.size:
                if place is not None and packet.pos - place > HOLE_BYTES:
                    self.tally.bad(packet.pos - place, packets=0)
                place = packet.pos + packet.size
            yield packet
        if place is not None:
            self.tally.bad(max(0, self.path.stat().st_size - place), packets=0)

    def _readable(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Packets, reading on behind damage as long as that leads anywhere."""
        from av.error import FFmpegError

        failures = 0
        while failures < READ_ON:
            try:
                for packet in self._container.demux(self.stream):
                    failures = 0
                    yield packet
                return
            except FFmpegError:
                failures += 1
                self.tally.bad(0)

    def _decoded(self, packet: av.Packet[av.AudioStream]) -> list[av.AudioFrame]:
        from av.error import FFmpegError

        try:
            frames = packet.decode()
        except FFmpegError:
            self.tally.bad(packet.size)
            return []
        if frames:
            self.tally.good(packet.size)
        return frames


def probe(
    path: Path,
    *,
    name: str | None = None,
    declared_type: str | None = None,
    max_duration_ms: int = MAX_DURATION_MS,
    beat: Callable[[], None] = lambda: None,
) -> Probe:
    """Decode all of a file and say what it is; `RefusedMedia`, in words for its owner, if it cannot be transcribed.

    A recording in another container than its name (`name`, else the path's) or `declared_type` says is welcome, under
    its true type. `beat` is called often while it works. Memory stays bounded however long the recording is.
    """
    label = name or path.name
    with _Recording(path, label, _claims(label, declared_type)) as recording:
        silent = _listen(recording, max_duration_ms, beat)
        _judge(recording)
        content_type, extension = recording.content_type()
        return Probe(
            format=recording.format,
            codec=recording.stream.codec_context.name.removesuffix("float"),
            sample_rate=recording.rate,
            channels=recording.channels,
            duration_ms=round(recording.tally.end_s * 1000),
            content_type=content_type,
            extension=extension,
            silent=silent,
        )


def decode(path: Path, rate: int = 16_000) -> Iterator[NDArray[np.float32]]:
    """The sound of a recording, mono at `rate` hertz, -1 to 1, in pieces of some milliseconds each.

    What cannot be decoded is left out and pauses are filled with silence, so a sample's place is its time.
    `RefusedMedia` if there is no sound at all.
    """
    import numpy as np

    with _Recording(path, path.name) as recording:
        mono, shape = _Mono(rate), None
        for gap_s, frame in recording.frames():
            this = (frame.format.name, frame.layout.name, frame.sample_rate)
            if gap_s or this != shape:  # a resampler takes one kind of frame only
                yield from mono.flush()
                shape = this
            if gap_s:
                yield np.zeros(round(gap_s * rate), dtype=np.float32)
            yield from mono.convert(frame)
        yield from mono.flush()
        if shape is None:
            raise RefusedMedia(f"{recording.label} holds no sound")


def pieces(path: Path, *, seconds: float = 300.0, search_s: float = 30.0, rate: int = 16_000) -> Iterator[Piece]:
    """A recording in pieces of at most `seconds`, each cut at the quietest place of its last `search_s`.

    An hours-long recording needs no more memory than one piece.
    """
    import numpy as np

    limit, search = int(seconds * rate), int(search_s * rate)
    held: list[NDArray[np.float32]] = []
    length = start = 0
    for samples in decode(path, rate):
        held.append(samples)
        length += len(samples)
        while length >= limit:
            whole = np.concatenate(held)
            cut = limit - search + _quietest(whole[limit - search : limit], rate)
            yield Piece(start * 1000 // rate, whole[:cut])
            held, start, length = [whole[cut:]], start + cut, length - cut
    if length:
        yield Piece(start * 1000 // rate, np.concatenate(held))


def _quietest(samples: NDArray[np.float32], rate: int) -> int:
    """The middle of the quietest 300 ms."""
    import numpy as np

    step = rate // 50
    power = np.square(samples[: len(samples) // step * step].reshape(-1, step)).mean(axis=1)
    if len(power) < 15:
        return len(samples)
    return (int(np.convolve(power, np.ones(15), "valid").argmin()) + 7) * step


class _Mono:
    """Turns frames of any kind into mono samples at one rate."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: av.AudioResampler | None = None

    def convert(self, frame: av.AudioFrame) -> Iterator[NDArray[np.float32]]:
        from av import AudioResampler

        if self._resampler is None:
            # Through 16 bits: there ffmpeg keeps the sum of the channels within full scale; in floats it does not, and
            # two loud channels clip.
            self._resampler = AudioResampler(format="s16", layout="mono", rate=self._rate)
        frame.pts = None
        yield from map(_floats, self._resampler.resample(frame))

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """What the filter still holds; the next frame may be of another kind."""
        if self._resampler is not None:
            yield from map(_floats, self._resampler.resample(None))
        self._resampler = None


def _codec(track: Any) -> str | None:
    """The codec's name; None if ffmpeg knows none for the track (PyAV's types do not say that this happens)."""
    return None if track.codec_context is None else str(track.codec_context.name)


def _floats(frame: av.AudioFrame) -> NDArray[np.float32]:
    import numpy as np

    return frame.to_ndarray().reshape(-1).astype(np.float32) / np.float32(32768)


def _open(path: Path, label: str, claims: str) -> av.container.InputContainer:
    import av
    from av.error import FFmpegError

    if not path.is_file():
        raise NotFound(f"{label} is not there, or is no file")
    if path.stat().st_size == 0:
        raise RefusedMedia(f"{label} is empty (0 bytes): upload it again")
    head = _head(path)
    if not head.strip(b"\0"):
        raise RefusedMedia(f"{label} is not a recording: it begins with {len(head)} zero bytes, as failed copies do")
    if looks := _likeness(head):
        raise RefusedMedia(f"{label} is not a recording: it looks like {looks}{claims}")
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    if head[8:12] == b"WAVE":
        # ffmpeg looks long for other codecs hidden in PCM (5 ms a file); and packets of 4 KB are many.
        options |= {"probesize": "4096", "max_size": "16384"}
    try:
        # "file:" because ffmpeg takes a part of a strange name for a protocol. Tags in odd encodings do not matter.
        return av.open(f"file:{path.resolve()}", options=options, metadata_errors="ignore")
    except (FFmpegError, ValueError) as exc:
        raise RefusedMedia(f"{label} {_unreadable(head, claims)}") from exc


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _likeness(head: bytes) -> str | None:
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


def _unreadable(head: bytes, claims: str) -> str:
    if head[4:8] == b"ftyp":
        return "is cut off or damaged: it begins as an MP4 recording, but its index (the moov atom) is missing"
    for start, name in _MEDIA:
        if head.startswith(start):
            return f"is damaged: it begins as {name}, but cannot be read as that"
    return f"is not a recording in any known format (it begins with the bytes {head[:4].hex(' ')}){claims}"


def _claims(label: str, declared_type: str | None) -> str:
    """What the uploader said it was, as the end of a sentence that says it is not."""
    said = [f"is named {suffix}"] if (suffix := Path(label).suffix) else []
    if declared_type and declared_type != "application/octet-stream":
        said.append(f"was declared as {declared_type}")
    return f", though it {' and '.join(said)}" if said else ""


def _listen(recording: _Recording, max_duration_ms: int, beat: Callable[[], None]) -> bool:
    """Decode to the end, and return whether it was silent."""
    silent = True
    for _, frame in recording.frames():
        silent = silent and not _audible(frame)
        if recording.tally.end_s * 1000 > max_duration_ms:
            raise RefusedMedia(
                f"{recording.label} is longer than the {_clock(max_duration_ms / 1000)} allowed: split it, or ask your "
                "administrator to raise the limit"
            )
        beat()
    return silent


def _audible(frame: av.AudioFrame) -> bool:
    import numpy as np

    samples: NDArray[Any] = frame.to_ndarray()
    middle, top = 0, 1.0
    if samples.dtype == np.uint8:
        middle, top = 128, 128.0
    elif samples.dtype.kind == "i":
        top = -float(np.iinfo(samples.dtype).min)
    return bool(np.nanmax(samples) > middle + SILENT_PEAK * top or np.nanmin(samples) < middle - SILENT_PEAK * top)


def _judge(recording: _Recording) -> None:
    """Refuse what is too damaged, too short, or less than its header promises."""
    tally, label = recording.tally, recording.label
    if not tally.decoded_s:
        raise RefusedMedia(f"{label} holds no sound: it is a header without a recording, or none of it can be decoded")
    promised = recording.promised_s()
    if promised and promised - tally.end_s > max(TOLERATED_LOSS_S, promised * TOLERATED_LOSS):
        raise RefusedMedia(
            f"{label} is cut off: its header promises {_clock(promised)}, but only {_clock(tally.end_s)} are there"
        )
    if recording.format == "ogg" and _page_cut(recording.path):
        raise RefusedMedia(f"{label} is cut off: it ends in the middle of a page, after {_clock(tally.end_s)}")
    damage = tally.damage(gapless=recording.format in GAPLESS)
    if damage > TOLERATED_DAMAGE:
        raise RefusedMedia(f"{label} is damaged: {damage:.0%} of it cannot be decoded")
    if tally.tail_bytes > tally.good_bytes + tally.lost_bytes:
        raise RefusedMedia(f"{label} is damaged: after {_clock(tally.end_s)} nothing can be decoded any more")
    if tally.end_s * 1000 < MIN_DURATION_MS:
        raise RefusedMedia(f"{label} is only {tally.end_s * 1000:.1f} ms long: too short for a word")


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h" if minutes >= 60 else f"{minutes}:{rest:02} min"


def _kept_share(path: Path) -> float | None:
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


def _page_cut(path: Path) -> bool:
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


def _xing_s(path: Path) -> float | None:
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


#: Bytes of memory that probing one file may take: a hostile header must not get the machine's.
PROBE_MEMORY = 4 << 30


class Prober:
    """Probes files in worker processes of its own, which live on from file to file. For an event loop."""

    def __init__(
        self,
        *,
        processes: int = 2,
        max_duration_ms: int = MAX_DURATION_MS,
        stall_s: float = 20.0,
        start_s: float = 60.0,
    ) -> None:
        """Up to `processes` files at once, each process started when first needed; one that shows no progress for
        `stall_s` is killed.
        """
        self._max_duration_ms = max_duration_ms
        self._stall_s = stall_s
        self._idle = [Worker("agents.audio", start_s=start_s) for _ in range(processes)]
        self._workers = tuple(self._idle)
        self._places = asyncio.Semaphore(processes)

    @property
    def pids(self) -> tuple[int, ...]:
        """The worker processes that are alive."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def probe(self, path: Path, name: str | None = None, declared_type: str | None = None) -> Probe:
        """What the file is; see the function `probe`.

        A file that crashes or hangs its process is tried once more in a new one, then refused. `Transient` when the
        processes were killed by someone else (out of memory, an operator), `Unavailable` when they do not start.
        """
        request = {
            "path": str(path.resolve()),
            "name": name or path.name,
            "declared_type": declared_type,
            "max_duration_ms": self._max_duration_ms,
        }
        async with self._places:
            worker = self._idle.pop()
            try:
                return Probe(**await self._asked(worker, request))
            finally:
                self._idle.append(worker)

    async def _asked(self, worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(Died, TimeoutError):
            return await worker.ask(request, stall_s=self._stall_s)
        name = request["name"]
        try:
            return await worker.ask(request, stall_s=self._stall_s)
        except TimeoutError as exc:
            raise RefusedMedia(f"{name} is damaged: decoding it comes to no end") from exc
        except Died as exc:
            if exc.crashed:
                raise RefusedMedia(f"{name} is damaged: it crashes the decoder ({exc})") from exc
            raise Transient(f"probing {name} was interrupted: {exc}") from exc

    async def close(self) -> None:
        """End the worker processes. Safe to call twice."""
        await asyncio.gather(*(worker.close() for worker in self._workers))


def _answer(request: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    path = Path(request.pop("path"))
    try:
        return asdict(probe(path, **request, beat=lambda: tell({})))
    except (MemoryError, ArithmeticError, LookupError, ValueError) as exc:
        # Ours or PyAV's stumbling over its bytes: the same again next time.
        raise RefusedMedia(f"{request['name']} is damaged: it cannot be decoded ({type(exc).__name__}: {exc})") from exc


def main() -> None:
    """A worker process of `Prober`: `python -m agents.audio`."""
    begin()
    import av  # noqa: F401  (so that the first file does not wait for it)

    resource.setrlimit(resource.RLIMIT_AS, (PROBE_MEMORY, PROBE_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(_answer)


if __name__ == "__main__":
    main()
