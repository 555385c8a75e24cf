"""An open recording: its container recognized, one of its tracks decoded, what is missing counted.

ffmpeg reads nothing but the file, through containers and decoders that are named here; pictures are never decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from agents.media.decoding.damage import Tally
from agents.media.decoding.formats import (
    CODECS,
    CONTAINERS,
    EXACT,
    GAPLESS,
    RAW,
    TIMED,
    TYPES,
    VIDEO_TYPES,
    head_of,
    kept_share,
    likeness,
    mp3_frame_cut,
    unreadable,
    unstated_sound,
    xing_s,
)
from agents.media.decoding.padding import sound_bytes, tags_end, tags_start
from schemas.errors import NotFound, RefusedMedia

if TYPE_CHECKING:
    import av

#: Hertz: what recorders make, from toy to studio (DSD counts as 705,600). Outside it, a header is broken.
RATES = range(1_000, 1_000_000)
#: Samples a second, of all channels: 192 kHz in eight. A call has 16,000; what has more only keeps a machine busy.
MAX_SAMPLE_RATE = 1_600_000
#: Tracks of any kind, and those with sound: what phones, cameras and studios make has a handful.
MAX_TRACKS, MAX_SOUND_TRACKS = 100, 16
#: Seconds between two timestamps that are no jitter but a pause in the recording, kept as silence so that times stay
#: right; and the longest pause believed, since a broken clock can claim years.
SHORTEST_GAP_S, LONGEST_GAP_S = 0.25, 600.0
#: Bytes between two packets that are no framing but lost data.
_HOLE_BYTES = 4096
#: Share of the bytes that a pause's sound would have had, from which a hole in the file is where it was.
_HOLE_SHARE = 0.25
#: Bytes behind the sound that do no harm.
_PADDING_BYTES = 64
#: How often reading is tried again without any packet in between.
_READ_ON = 100


class Recording:
    """A file that a container was recognized in, and a track of it. Use as a context manager."""

    def __init__(self, path: Path, label: str, claims: str = "", track: int | None = None) -> None:
        """`track` is the index of the stream to decode; by default, the one that a player would play.

        Raises `NotFound`, or `RefusedMedia` in words for the file's owner, who calls it `label`.
        """
        self.path, self.label = path, label
        self.tally = Tally()
        #: Bytes that the header states and that are there, if those are more.
        self.unstated: tuple[int, int] | None = None
        self._file: BinaryIO | None = None
        #: Bytes that the packet at hand lies behind where it should.
        self._hole = 0
        #: The newest packet, where packets are frames.
        self._last: av.Packet[av.AudioStream] | None = None
        #: Where a tag ends that is among the frames, and where the tags begin behind them all.
        self._tag_end, self._sound_end = 0, 0
        self._container = self._open(claims)
        #: The container's time, in seconds, that is the recording's zero; None until a frame says so.
        start: int | None = self._container.start_time
        self._origin = None if start is None else start / 1e6
        try:
            self.usable = self._usable()
            self.stream = self._choose(track)
            self.format = self._format()
            if self.format in RAW:
                self._sound_end = tags_start(path, 0, zeros=self.format != "avi")
            # Set again by every frame: headers lie, and only the decoder knows.
            self.rate, self.channels = self.stream.codec_context.sample_rate, self.stream.codec_context.channels
            if self.rate:
                self.check_rate()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def check_rate(self) -> None:
        """Refuse a rate that no recorder makes, or that only keeps a machine busy."""
        if self.rate not in RATES:
            raise RefusedMedia(f"{self.label} is damaged: its header states {self.rate} samples a second")
        if self.rate * self.channels > MAX_SAMPLE_RATE:
            raise RefusedMedia(
                f"{self.label} has {self.rate * self.channels} samples a second ({self.rate} Hz, {self.channels} "
                f"channels); at most {MAX_SAMPLE_RATE} are accepted"
            )

    def _open(self, claims: str) -> av.container.InputContainer:
        import av
        from av.error import FFmpegError

        head = _head(self.path, self.label, claims)
        options = {
            "format_whitelist": CONTAINERS,
            "codec_whitelist": CODECS,
            "protocol_whitelist": "file",
            "max_streams": str(MAX_TRACKS),
        }
        if head[8:12] == b"WAVE":
            # ffmpeg looks long for other codecs hidden in PCM (5 ms a file); and packets of 4 KB are many.
            options |= {"probesize": "4096", "max_size": "16384"}
        try:
            # "file:" because ffmpeg takes a part of a strange name for a protocol. Tags in odd encodings do not matter.
            source = self._mended(head) or f"file:{self.path.resolve()}"
            return av.open(source, options=options, metadata_errors="ignore")
        except (FFmpegError, ValueError) as exc:
            if self._file is not None:
                self._file.close()
            raise RefusedMedia(f"{self.label} {unreadable(head, claims)}") from exc

    def _mended(self, head: bytes) -> Any:
        """The file as ffmpeg should see it, if that is not as it is: with the right length in its header, or, where any
        bytes pass for sound, without the tags behind it.
        """
        size, sound_end, field, content = self.path.stat().st_size, 0, 0, b""
        if unstated := unstated_sound(self.path):
            data, length = unstated
            field, content = data.field, data.stating(length)
            if data.length is not None:
                self.unstated = (data.length, length)
        elif head.startswith(b"#!AMR"):
            sound_end = tags_start(self.path, 0, zeros=True)
        if not content and not 0 < sound_end < size - _PADDING_BYTES:
            return None
        self._file = self.path.open("rb")
        return _View(self._file, sound_end or size, field, content)

    def _usable(self) -> list[av.AudioStream]:
        """The tracks that can be decoded here."""
        tracks = self._container.streams.audio
        if not tracks:
            seen = "pictures but no sound track" if self._container.streams.video else "no sound track"
            raise RefusedMedia(f"{self.label} has {seen}: there is nothing to transcribe in it")
        if len(tracks) > MAX_SOUND_TRACKS:
            raise RefusedMedia(f"{self.label} has {len(tracks)} sound tracks; at most {MAX_SOUND_TRACKS} are accepted")
        usable = [track for track in tracks if _codec(track) in _DECODERS]
        if not usable:
            raise RefusedMedia(f"the sound of {self.label} is encrypted or in a codec that cannot be decoded here")
        return usable

    def _choose(self, index: int | None) -> av.AudioStream:
        best = self._container.streams.best("audio") if index is None else None
        chosen = (track for track in self.usable if (track is best if index is None else track.index == index))
        return next(chosen, self.usable[0])

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
            return self.stated_s()
        if self.format in {"wav", "caf"} and (kept := kept_share(self.path)):
            return max(self.tally.decoded_s / kept, self.stated_s() or 0.0)
        if self.format == "mp3":
            return xing_s(self.path)
        if self.format in {"matroska", "webm", "flv"} and not self.pictures and self._container.duration:
            return self._container.duration / 1e6
        return None

    def ends_whole(self) -> bool:
        """Whether an MP3 ends with a good frame and all of it, tags left out."""
        if self.format != "mp3" or self._last is None or self.tally.tail_packets:
            return False
        return not mp3_frame_cut(bytes(self._last))

    def stated_s(self) -> float | None:
        """What ffmpeg takes the track's length to be: from the header, or a guess."""
        length, base = self.stream.duration, self.stream.time_base
        return float(length * base) if length and base else None

    def frames(self) -> Iterator[tuple[float, av.AudioFrame]]:
        """Every frame that can be decoded, each with the seconds of pause before it (0.0 almost always)."""
        tally, clocked = self.tally, self.format not in RAW
        for packet in self._packets():
            for frame in self._decoded(packet):
                gap, length = self._gap(frame.time) if clocked else 0.0, frame.samples / frame.sample_rate
                if gap or tally.tail_bytes or tally.tail_packets:
                    self._interrupted(gap)
                tally.decoded_s += length
                tally.end_s += gap + length
                if frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
                    self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
                    self.check_rate()
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

    def _interrupted(self, gap_s: float) -> None:
        """Sound goes on after something bad, or after a pause, or both."""
        tally = self.tally
        if tally.tail is not None and self.format in RAW:
            tally.tail_bytes = sound_bytes(self.path, *tally.tail, zeros=False)
            if not tally.tail_bytes:
                tally.forget_tail()
        hole = gap_s > 0 and self._hole >= _HOLE_SHARE * gap_s * tally.byte_rate
        lost = hole or bool(tally.tail_bytes or tally.tail_packets) or self.format in GAPLESS
        if gap_s or lost:
            tally.interrupted(gap_s, lost=lost)

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """The track's packets, up to where the container can be read; what is missing shows in the tally."""
        raw = self.format in RAW
        if len(self._container.streams) != 1 or not (raw or self.format in TIMED):
            yield from self._readable()
            return
        end: int | None = None  # of the packet before
        last: int | None = None  # its beginning, or that of the block that holds several
        for packet in self._readable():
            place, size = packet.pos, packet.size
            self._hole = 0
            if size and place is not None and place != last:
                self._hole = place - (place if end is None else end)
                if raw and self._hole > _HOLE_BYTES:
                    self.tally.bad(self._hole, end, packets=0)
                end = last = place
            if end is not None:
                end += size
            if not raw or not self._is_tag(place):
                yield packet
                if size:
                    self._last = packet
        if end is not None:
            self._rest(end)

    def _is_tag(self, place: int | None) -> bool:
        """Whether it lies in a tag, whose bytes may well pass for sound. (Two recordings that were put end to end have
        some between them.)
        """
        return place is not None and (place < self._tag_end or place >= self._sound_end > 0)

    def _rest(self, place: int) -> None:
        """What lies behind the last packet."""
        size = (self._sound_end or self.path.stat().st_size) - place
        if size <= 0:
            return
        if self.format == "aac" and self.tally.losses and not self.tally.tail:
            # Its demuxer jumps over what is bad without a word, and tells places as if it had not.
            self.tally.losses[-1].size += size
        else:
            self.tally.bad(size, place, packets=0)

    def _readable(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Packets, reading on behind damage as long as that leads anywhere."""
        from av.error import FFmpegError

        failures = 0
        while failures < _READ_ON:
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
            frames, failed = packet.decode(), False
        except FFmpegError:
            frames, failed = [], True
        if frames:
            self.tally.packets += 1
            self.tally.good_bytes += packet.size
            return frames
        if self.format in RAW and self.format != "aac" and packet.pos is not None:
            self._tag_end = tags_end(self.path, packet.pos)
        if failed and not self._is_tag(packet.pos):
            self.tally.bad(packet.size, packet.pos)
        return []


class _View:
    """A file up to some place, in which a few bytes are others, for reading."""

    def __init__(self, file: BinaryIO, end: int, place: int, content: bytes) -> None:
        self._file, self._end, self._place, self._content = file, end, place, content
        self.tell = file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._end + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def read(self, size: int) -> bytes:
        start = self._file.tell()
        found = self._file.read(max(0, min(size, self._end - start)))
        place = self._place - start
        if place >= len(found) or place + len(self._content) <= 0:
            return found
        patched = bytearray(found)
        for number, byte in enumerate(self._content, place):
            if 0 <= number < len(patched):
                patched[number] = byte
        return bytes(patched)


def _head(path: Path, label: str, claims: str) -> bytes:
    """How a file begins that may be a recording."""
    if not path.is_file():
        raise NotFound(f"{label} is not there, or is no file")
    if path.stat().st_size == 0:
        raise RefusedMedia(f"{label} is empty (0 bytes): upload it again")
    head = head_of(path)
    if looks := likeness(head):
        raise RefusedMedia(f"{label} is not a recording: it looks like {looks}{claims}")
    return head


_DECODERS = frozenset(CODECS.split(","))


def _codec(track: Any) -> str | None:
    """The codec's name; None if ffmpeg knows none for the track (PyAV's types do not say that this happens)."""
    return None if track.codec_context is None else str(track.codec_context.name)
