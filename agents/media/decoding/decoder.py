"""Everything about media: what a file really is, whether it can be transcribed, and its sound as numbers.

Uploads come from strangers, so their bytes meet ffmpeg (through PyAV) only in worker processes. The functions here are
plain and synchronous, for those processes; `agents.media.probe_pool` is what an event loop uses.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.media.decoding import tracks
from agents.media.decoding.formats import EXACT, PACKED, page_cut
from agents.media.decoding.mixing import SILENT_PEAK, Mixer, opposed
from agents.media.decoding.padding import sound_bytes, zeros_at_end
from agents.media.decoding.recording import Recording
from schemas.errors import RefusedMedia

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_DURATION_MS", "SILENT_PEAK", "Limits", "Piece", "Probe", "cut", "decode", "pieces", "probe"]

#: Milliseconds: ten hours. Longer recordings are refused unless the caller says otherwise.
MAX_DURATION_MS = 36_000_000
#: Milliseconds: nobody says a word in less.
MIN_DURATION_MS = 20
#: Share of a recording that may be lost in the middle: what is left is worth reading, with a note.
TOLERATED_DAMAGE = 0.2
#: Share of what a header promises that may be missing, and never less than this many seconds: encoders round and pad.
TOLERATED_LOSS, TOLERATED_LOSS_S = 0.01, 0.25
#: Seconds of a processor that decoding may take, and how many seconds of sound another one must yield. (Opus in stereo,
#: the slowest of what calls come in, yields 500 to 600; the slowest lossless archives yield 30.)
CPU_S, SLOWEST = 30.0, 25.0
#: Samples between two looks at the limits: some milliseconds of work, three seconds of sound.
LIMITS_EACH = 1 << 18
#: Seconds between two looks at how the channels go together, and the share of them from which it is worth a note.
LOOK_S, OPPOSED_SHARE = 2.0, 0.05
#: Seconds of several channels that are converted together, for speed.
HELD_S = 4
#: Zeros at the end of a file that are more than padding.
EMPTY_BYTES = 4096


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
    #: What a reader of the transcript should know: what was lost, how it was mixed; in sentences.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording, mono."""

    #: Where it begins, from the start of the recording.
    start_ms: int
    samples: NDArray[np.float32]


@dataclass(slots=True)
class Limits:
    """How much work one recording may make, all its tracks together."""

    duration_ms: int = MAX_DURATION_MS
    beat: Callable[[], None] = lambda: None
    #: Seconds of a processor before any sound came.
    cpu_s: float = CPU_S
    _samples: int = 0
    _heard_s: float = 0.0
    _next: int = 0
    _began: float = field(default_factory=time.process_time)

    @property
    def samples(self) -> int:
        """Samples of all channels: as many as the longest recording has in two channels of 48 kHz."""
        return self.duration_ms * 96

    def promise(self, recording: Recording) -> None:
        """Refuse what an exact header says to be too much, before any of it is decoded."""
        if recording.format in EXACT and (stated_s := recording.stated_s()):
            self._bound(recording.label, stated_s, round(stated_s * recording.rate * recording.channels))

    def check(self, recording: Recording, frame: av.AudioFrame) -> None:
        """Refuse what turns out to be too much; called for each frame, it looks now and then."""
        self._samples += frame.samples * recording.channels
        self._heard_s += frame.samples / recording.rate
        if self._samples < self._next:
            return
        self._next = self._samples + LIMITS_EACH
        self.look(recording)

    def look(self, recording: Recording) -> None:
        """Refuse what turned out to be too much."""
        self._bound(recording.label, recording.tally.end_s, self._samples)
        allowed_s = self.cpu_s + self._heard_s / SLOWEST
        if time.process_time() - self._began > allowed_s:
            raise RefusedMedia(
                f"{recording.label} takes a processor more than the {allowed_s:.0f} s allowed to decode "
                f"{_clock(self._heard_s)} of it: convert it to a usual format"
            )
        self.beat()

    def _bound(self, label: str, seconds: float, samples: int) -> None:
        longest = _clock(self.duration_ms / 1000)
        if seconds * 1000 > self.duration_ms:
            raise RefusedMedia(
                f"{label} is longer than the {longest} allowed: split it, or ask your administrator to raise the limit"
            )
        if samples > self.samples:
            raise RefusedMedia(
                f"{label} has more than the {self.samples} samples allowed (two channels of 48 kHz for {longest}): "
                "convert it to a lower rate, or to fewer channels"
            )


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
    limits = Limits(max_duration_ms, beat)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Recording(path, label, _claims(label, declared_type)))
        limits.promise(first)
        chosen = tracks.choose(first, limits.check)
        heard = [first]
        if chosen.heard != (first.stream.index,):
            heard = [stack.enter_context(Recording(path, label, track=index)) for index in chosen.heard]
        listeners = [_listen(recording, limits) for recording in heard]
        notes = [chosen.note] if chosen.note else []
        for recording, listener in zip(heard, listeners, strict=True):
            notes += _judge(recording) + listener.notes()
        return _probed(heard, all(listener.silent for listener in listeners), tuple(dict.fromkeys(notes)))


def _probed(heard: list[Recording], silent: bool, notes: tuple[str, ...]) -> Probe:
    first = heard[0]
    content_type, extension = first.content_type()
    return Probe(
        format=first.format,
        codec=first.stream.codec_context.name.removesuffix("float"),
        sample_rate=first.rate,
        channels=first.channels,
        duration_ms=round(max(recording.tally.end_s for recording in heard) * 1000),
        content_type=content_type,
        extension=extension,
        silent=silent,
        notes=notes,
    )


def decode(path: Path, rate: int = 16_000, beat: Callable[[], None] = lambda: None) -> Iterator[NDArray[np.float32]]:
    """The sound of a recording, mono at `rate` hertz, -1 to 1, in pieces of some milliseconds each.

    What cannot be decoded is left out and pauses are filled with silence, so a sample's place is its time. Channels and
    tracks are mixed so that nobody in them is lost: everybody who wants the sound of a recording gets the same.
    `RefusedMedia` if there is no sound at all. `beat` is called often, also while nothing comes yet.
    """
    with Recording(path, path.name) as first:
        heard = tracks.choose(first, lambda *_: beat()).heard
        if heard == (first.stream.index,):
            yield from _mono(first, rate)
            return
    yield from _mixed([_blocks(_track(path, index, rate), rate) for index in heard], rate)


def _track(path: Path, index: int, rate: int) -> Iterator[NDArray[np.float32]]:
    with Recording(path, path.name, track=index) as recording:
        yield from _mono(recording, rate)


def _mono(recording: Recording, rate: int) -> Iterator[NDArray[np.float32]]:
    """One track, its channels mixed."""
    import numpy as np

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


def _mixed(sounds: list[Iterator[NDArray[np.float32]]], rate: int) -> Iterator[NDArray[np.float32]]:
    """Several tracks, in blocks of the same length but for their ends."""
    import numpy as np

    mixer = Mixer(len(sounds), rate)
    for blocks in zip_longest(*sounds, fillvalue=np.zeros(0, dtype=np.float32)):
        length = max(map(len, blocks))
        yield from mixer.mix(np.stack([np.pad(block, (0, length - len(block))) for block in blocks]))
    yield from mixer.flush()


def _blocks(sound: Iterable[NDArray[np.float32]], length: int) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    held = np.zeros(0, dtype=np.float32)
    for samples in sound:
        held = np.concatenate([held, samples])
        while len(held) >= length:
            yield held[:length]
            held = held[length:]
    yield held


def pieces(
    path: Path,
    *,
    seconds: float = 300.0,
    search_s: float = 30.0,
    rate: int = 16_000,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[Piece]:
    """A recording in pieces of at most `seconds`, each cut at the quietest place of its last `search_s`.

    An hours-long recording needs no more memory than one piece. `beat` is called often while it works.
    """
    return cut(decode(path, rate, beat), seconds=seconds, search_s=search_s, rate=rate)


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
    """RateLimit frames of any kind into mono samples at one rate."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: av.AudioResampler | None = None
        self._mixer = Mixer(1, rate)
        self._channels = 1
        self._held: list[NDArray[Any]] = []
        self._length = 0

    def convert(self, frame: av.AudioFrame) -> Iterator[NDArray[np.float32]]:
        """What comes out so far; the filter and the mixer hold some back."""
        from av import AudioResampler

        if self._resampler is None:
            channels = frame.layout.nb_channels
            if channels != self._channels:
                self._mixer, self._channels = Mixer(channels, self._rate), channels
            self._resampler = AudioResampler(format="s16", layout=frame.layout, rate=self._rate)
        frame.pts = None
        self._hold(frame)
        if self._channels == 1 or self._length > HELD_S * self._rate * self._channels:
            yield from self._mixed()

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """What is held back; the next frame may be of another kind."""
        if self._resampler is not None:
            self._hold(None)
            yield from self._mixed()
            yield from self._mixer.flush()
        self._resampler = None

    def _hold(self, frame: av.AudioFrame | None) -> None:
        if self._resampler is not None:
            for converted in self._resampler.resample(frame):
                samples: NDArray[Any] = converted.to_ndarray().reshape(-1)
                self._held.append(samples)
                self._length += len(samples)

    def _mixed(self) -> Iterator[NDArray[np.float32]]:
        import numpy as np

        if self._held:
            whole = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
            samples = whole.astype(np.float32) / np.float32(32768)
            self._held, self._length = [], 0
            yield from self._mixer.mix(samples.reshape(-1, self._channels).T)


@dataclass(slots=True)
class _Listener:
    """Hears whether there is anything to hear, and looks now and then how the channels go together."""

    silent: bool = True
    #: When to look again how the channels go together.
    next_s: float = 0.0
    _looks: int = 0
    _opposed: int = 0

    def hear(self, recording: Recording, frame: av.AudioFrame) -> None:
        samples = tracks.amplitudes(frame)
        if tracks.peak(samples) <= SILENT_PEAK:
            return
        self.silent = False
        if recording.tally.end_s >= self.next_s:
            self.next_s = recording.tally.end_s + LOOK_S if len(samples) > 1 else math.inf
            self._looks += 1
            self._opposed += bool(opposed(samples).any())

    def notes(self) -> list[str]:
        share = self._opposed / self._looks if self._looks else 0.0
        if share < OPPOSED_SHARE:
            return []
        return [
            f"Its channels oppose each other in {share:.0%} of the recording; they were turned before they were mixed."
        ]


def _listen(recording: Recording, limits: Limits) -> _Listener:
    """Decode to the end."""
    listener = _Listener()
    for _, frame in recording.frames():
        if listener.silent or recording.tally.end_s >= listener.next_s:
            listener.hear(recording, frame)
        limits.check(recording, frame)
    limits.look(recording)
    return listener


def _claims(label: str, declared_type: str | None) -> str:
    """What the uploader said it was, as the end of a sentence that says it is not."""
    said = [f"is named {suffix}"] if (suffix := Path(label).suffix) else []
    if declared_type and declared_type != "application/octet-stream":
        said.append(f"was declared as {declared_type}")
    return f", though it {' and '.join(said)}" if said else ""


def _judge(recording: Recording) -> list[str]:
    """Refuse what is too damaged, too short, or less than its header promises; notes about what is not so bad."""
    tally, label = recording.tally, recording.label
    if not tally.decoded_s:
        raise RefusedMedia(f"{label} holds no sound: it is a header without a recording, or none of it can be decoded")
    promised, tail_bytes = recording.promised_s(), _tail_bytes(recording)
    missing_s = promised - tally.end_s if promised else 0.0
    whole = missing_s <= max(TOLERATED_LOSS_S, (promised or 0.0) * TOLERATED_LOSS)
    # The frames of an MP3 have no clock: what is missing in all was lost where it is damaged, if its end is whole.
    explained = bool(tally.losses) and not tail_bytes and recording.ends_whole()
    if not whole and not explained:
        raise RefusedMedia(
            f"{label} is cut off: its header promises {_clock(promised or 0.0)}, "
            f"but only {_clock(tally.end_s)} are there"
        )
    if recording.format == "ogg" and page_cut(recording.path):
        raise RefusedMedia(f"{label} is cut off: it ends in the middle of a page, after {_clock(tally.end_s)}")
    damage = tally.damage() if whole else max(tally.damage(), missing_s / (tally.end_s + missing_s))
    if damage > TOLERATED_DAMAGE:
        raise RefusedMedia(f"{label} is damaged: {damage:.0%} of it cannot be decoded")
    if not promised and tail_bytes > tally.good_bytes + sum(loss.size for loss in tally.losses):
        raise RefusedMedia(f"{label} is damaged: after {_clock(tally.end_s)} nothing can be decoded any more")
    if tally.end_s * 1000 < MIN_DURATION_MS:
        raise RefusedMedia(f"{label} is only {tally.end_s * 1000:.1f} ms long: too short for a word")
    return [*tally.notes(_clock, None if whole else missing_s), *_file_notes(recording, whole=bool(promised))]


def _tail_bytes(recording: Recording) -> int:
    """Bytes behind the last good packet that may have been sound."""
    tally = recording.tally
    if tally.tail is None or tally.tail_bytes == 0:
        return tally.tail_bytes
    return sound_bytes(recording.path, *tally.tail, zeros=True)


def _file_notes(recording: Recording, *, whole: bool) -> list[str]:
    """What is odd about the file."""
    notes, end_s = [], recording.tally.end_s
    if recording.unstated:
        stated, length = recording.unstated
        notes.append(
            f"The file's header states {_clock(end_s * stated / length)} of sound, but the file holds {_clock(end_s)}, "
            "and all of it was heard."
        )
    if not whole and recording.format in PACKED and (zeros := zeros_at_end(recording.path)) > EMPTY_BYTES:
        notes.append(
            f"The file ends with {zeros} empty bytes after {_clock(end_s)} of sound: if the recording is longer, it "
            "was not copied completely."
        )
    return notes


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h" if minutes >= 60 else f"{minutes}:{rest:02} min"
