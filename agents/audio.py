"""Everything about media: what a file really is, whether it can be transcribed, and its sound as numbers.

Uploads come from strangers, so their bytes meet ffmpeg (through PyAV) only in worker processes. The functions here are
plain and synchronous, for those processes; `agents.prober` is what an event loop uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agents.formats import (
    CONTAINERS,
    DENSE,
    EXACT,
    GAPLESS,
    TYPES,
    VIDEO_TYPES,
    head_of,
    kept_share,
    likeness,
    page_cut,
    unreadable,
    xing_s,
)
from schemas.errors import NotFound, RefusedMedia

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
        known = TYPES.get(self.format, (f"audio/x-{self.format}", f".{self.format}"))
        return VIDEO_TYPES.get(self.format, known) if self.pictures else known

    def promised_s(self) -> float | None:
        """Seconds that the header promises, where it is one that keeps its promises."""
        if self.format in EXACT:
            return self._stated_s()
        if self.format in {"wav", "caf"} and (kept := kept_share(self.path)):
            return max(self.tally.decoded_s / kept, self._stated_s() or 0.0)
        if self.format == "mp3":
            return xing_s(self.path)
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
    return cut(decode(path, rate), seconds=seconds, search_s=search_s, rate=rate)


def cut(sound: Iterable[NDArray[np.float32]], *, seconds: float, search_s: float, rate: int) -> Iterator[Piece]:
    """What comes in any portions, in pieces as `pieces` gives them: every sample in one of them, in order."""
    import numpy as np

    limit, search = int(seconds * rate), int(search_s * rate)
    held: list[NDArray[np.float32]] = []
    length = start = 0
    for samples in sound:
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
    head = head_of(path)
    if not head.strip(b"\0"):
        raise RefusedMedia(f"{label} is not a recording: it begins with {len(head)} zero bytes, as failed copies do")
    if looks := likeness(head):
        raise RefusedMedia(f"{label} is not a recording: it looks like {looks}{claims}")
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    if head[8:12] == b"WAVE":
        # ffmpeg looks long for other codecs hidden in PCM (5 ms a file); and packets of 4 KB are many.
        options |= {"probesize": "4096", "max_size": "16384"}
    try:
        # "file:" because ffmpeg takes a part of a strange name for a protocol. Tags in odd encodings do not matter.
        return av.open(f"file:{path.resolve()}", options=options, metadata_errors="ignore")
    except (FFmpegError, ValueError) as exc:
        raise RefusedMedia(f"{label} {unreadable(head, claims)}") from exc


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
    if recording.format == "ogg" and page_cut(recording.path):
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
