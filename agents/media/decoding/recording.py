"""Opens a recording with ffmpeg, decodes one of its tracks frame by frame, and counts what is missing.

ffmpeg may open only this file, and use only the containers and decoders of `formats`. Pictures are never decoded.
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

#: Hertz: the rates of all recorders, from toy to studio (DSD counts as 705,600). Another rate means a broken header.
RATES = range(1_000, 1_000_000)
#: Samples per second in all channels: eight channels of 192 kHz. A call has 16,000; larger values only cost time.
MAX_SAMPLE_RATE = 1_600_000
#: Tracks of any kind, and tracks with sound. Files of phones, cameras and studios have a handful.
MAX_TRACKS, MAX_SOUND_TRACKS = 100, 16
#: Seconds between two timestamps from which the gap is a pause and not jitter; it is kept as silence, so that times
#: stay right. And the longest gap that counts as a pause: a broken clock can claim years.
SHORTEST_GAP_S, LONGEST_GAP_S = 0.25, 600.0
#: Bytes between two packets from which they are lost data and not framing.
_HOLE_BYTES = 4096
#: Share of the bytes that the sound of a gap would have had, from which a hole in the file explains the gap.
_HOLE_SHARE = 0.25
#: Bytes after the sound that are ignored.
_PADDING_BYTES = 64
#: Failures to read a packet, one after the other, after which reading ends.
_READ_ON = 100


class Recording:
    """An open file in which a container was recognized, and one of its sound tracks. Use as a context manager."""

    def __init__(self, path: Path, label: str, claims: str = "", track: int | None = None) -> None:
        """`track` is the index of the stream to decode; by default, the one that a player would play.

        `label` names the file in error texts, and `claims` ends those that contradict its name or declared type.

        Raises:
            NotFound: There is no such file.
            RefusedMedia: It is no recording, or has no usable track; the text is written for the file's owner.
        """
        self.path, self.label = path, label
        self.tally = Tally()
        #: If the file has more sound than its header states: bytes that the header states, and bytes in the file.
        self.unstated: tuple[int, int] | None = None
        self._file: BinaryIO | None = None
        #: Bytes between the end of the previous packet and the current one.
        self._hole = 0
        #: The newest packet, if packets are frames.
        self._last: av.Packet[av.AudioStream] | None = None
        #: Offsets in the file: the end of the newest tag between frames, and the start of the tags after all frames.
        self._tag_end, self._sound_end = 0, 0
        self._container = self._open(claims)
        #: The container's time, in seconds, at which the recording starts; None until the first frame with a time.
        start: int | None = self._container.start_time
        self._origin = None if start is None else start / 1e6
        try:
            self.usable = self._usable()
            self.stream = self._choose(track)
            self.format = self._format()
            if self.format in RAW:
                self._sound_end = tags_start(path, 0, zeros=self.format != "avi")
            # Corrected by every frame: a header can be wrong.
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
        """Check the sample rate.

        Raises:
            RefusedMedia: No recorder has this rate, or decoding it would cost too much.
        """
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
            # By default ffmpeg searches PCM for other codecs (5 ms a file), and makes packets of only 4 KB.
            options |= {"probesize": "4096", "max_size": "16384"}
        try:
            # "file:", because ffmpeg takes the beginning of some file names for a protocol. Errors in the encoding of
            # tags are ignored.
            source = self._corrected(head) or f"file:{self.path.resolve()}"
            return av.open(source, options=options, metadata_errors="ignore")
        except (FFmpegError, ValueError) as exc:
            if self._file is not None:
                self._file.close()
            raise RefusedMedia(f"{self.label} {unreadable(head, claims)}") from exc

    def _corrected(self, head: bytes) -> Any:
        """A view of the file with corrections, or None if it needs none.

        The corrections: the right length in the header; and in AMR, where ffmpeg decodes any bytes as sound, no tags at
        the end.
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
        return _PatchedFile(self._file, sound_end or size, field, content)

    def _usable(self) -> list[av.AudioStream]:
        """The sound tracks that can be decoded."""
        tracks = self._container.streams.audio
        if not tracks:
            content = "pictures but no sound track" if self._container.streams.video else "no sound track"
            raise RefusedMedia(f"{self.label} has {content}: there is nothing to transcribe in it")
        if len(tracks) > MAX_SOUND_TRACKS:
            raise RefusedMedia(f"{self.label} has {len(tracks)} sound tracks; at most {MAX_SOUND_TRACKS} are accepted")
        usable = [track for track in tracks if _codec(track) in _DECODERS]
        if not usable:
            raise RefusedMedia(f"the sound of {self.label} is encrypted or in a codec that cannot be decoded here")
        return usable

    def _choose(self, index: int | None) -> av.AudioStream:
        best = self._container.streams.best("audio") if index is None else None
        matches = (track for track in self.usable if (track is best if index is None else track.index == index))
        return next(matches, self.usable[0])

    @property
    def pictures(self) -> bool:
        """Whether the file has a video track; cover art is none."""
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
        """The content type of the recognized container, and its extension with a dot."""
        audio = TYPES.get(self.format, (f"audio/x-{self.format}", f".{self.format}"))
        return VIDEO_TYPES.get(self.format, audio) if self.pictures else audio

    def promised_s(self) -> float | None:
        """Seconds that the recording should have by its header; None if the header does not say so reliably.

        Once the track is decoded.
        """
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
        """Whether an MP3, without the tags at its end, ends with a complete and decodable frame."""
        if self.format != "mp3" or self._last is None or self.tally.tail_packets:
            return False
        return not mp3_frame_cut(bytes(self._last))

    def stated_s(self) -> float | None:
        """The track's length in seconds as ffmpeg reports it, from the header or estimated; None if it reports none."""
        length, base = self.stream.duration, self.stream.time_base
        return float(length * base) if length and base else None

    def frames(self) -> Iterator[tuple[float, av.AudioFrame]]:
        """Every decodable frame, with the seconds of pause before it (0.0 almost always).

        Raises:
            RefusedMedia: A frame's sample rate is impossible or too high.
        """
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
        """Seconds of pause before a frame with that timestamp."""
        if time is None:
            return 0.0
        if self._origin is None:
            self._origin = time
        gap = time - self._origin - self.tally.end_s
        if gap > LONGEST_GAP_S:  # a jump of the clock, not a pause
            self._origin, gap = time - self.tally.end_s, 0.0
        return gap if gap >= SHORTEST_GAP_S else 0.0

    def _interrupted(self, gap_s: float) -> None:
        """Count a decodable frame after undecodable data, after a pause, or after both."""
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
        """The track's packets, as far as the container can be read. Missing data are counted in the tally."""
        raw = self.format in RAW
        if len(self._container.streams) != 1 or not (raw or self.format in TIMED):
            yield from self._readable()
            return
        end: int | None = None  # of the previous packet
        last: int | None = None  # the start of the previous packet, or of the block that holds several packets
        for packet in self._readable():
            offset, size = packet.pos, packet.size
            self._hole = 0
            if size and offset is not None and offset != last:
                self._hole = offset - (offset if end is None else end)
                if raw and self._hole > _HOLE_BYTES:
                    self.tally.bad(self._hole, end, packets=0)
                end = last = offset
            if end is not None:
                end += size
            if not raw or not self._is_tag(offset):
                yield packet
                if size:
                    self._last = packet
        if end is not None:
            self._rest(end)

    def _is_tag(self, offset: int | None) -> bool:
        """Whether this offset is within a tag, whose bytes may look like frames.

        (Between two recordings in one file, tags are in its middle.)
        """
        return offset is not None and (offset < self._tag_end or offset >= self._sound_end > 0)

    def _rest(self, offset: int) -> None:
        """Count the bytes from this offset, the end of the last packet, to the end of the sound."""
        size = (self._sound_end or self.path.stat().st_size) - offset
        if size <= 0:
            return
        if self.format == "aac" and self.tally.losses and not self.tally.tail:
            # ffmpeg's demuxer skips undecodable bytes silently, and reports offsets as if it had not.
            self.tally.losses[-1].size += size
        else:
            self.tally.bad(size, offset, packets=0)

    def _readable(self) -> Iterator[av.Packet[av.AudioStream]]:
        """The packets that ffmpeg can read; after an error it continues, until `_READ_ON` errors in a row."""
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


class _PatchedFile:
    """A file for reading that ends at `end`, and has `content` in place of its bytes at `offset`."""

    def __init__(self, file: BinaryIO, end: int, offset: int, content: bytes) -> None:
        self._file, self._end, self._offset, self._content = file, end, offset, content
        self.tell = file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        if whence == os.SEEK_END:
            offset, whence = self._end + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def read(self, size: int) -> bytes:
        """See `io.RawIOBase.read`."""
        start = self._file.tell()
        original = self._file.read(max(0, min(size, self._end - start)))
        offset = self._offset - start
        if offset >= len(original) or offset + len(self._content) <= 0:
            return original
        patched = bytearray(original)
        for index, byte in enumerate(self._content, offset):
            if 0 <= index < len(patched):
                patched[index] = byte
        return bytes(patched)


def _head(path: Path, label: str, claims: str) -> bytes:
    """The first bytes of a file that may be a recording. Raises as `Recording` does."""
    if not path.is_file():
        raise NotFound(f"{label} is not there, or is no file")
    if path.stat().st_size == 0:
        raise RefusedMedia(f"{label} is empty (0 bytes): upload it again")
    head = head_of(path)
    if description := likeness(head):
        raise RefusedMedia(f"{label} is not a recording: it looks like {description}{claims}")
    return head


_DECODERS = frozenset(CODECS.split(","))


def _codec(track: Any) -> str | None:
    """The codec's name; None if ffmpeg has none for the track. (PyAV's types do not declare this case.)"""
    return None if track.codec_context is None else str(track.codec_context.name)
