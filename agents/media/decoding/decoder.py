"""Decodes a recording to mono samples: its tracks and channels mixed, its pauses filled with silence.

Uploads are hostile input, so ffmpeg (through PyAV) reads them only in worker processes. The functions here are
synchronous and run in those processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agents.media.decoding import tracks
from agents.media.decoding.mixing import Mixer
from agents.media.decoding.recording import Recording
from schemas.errors import RefusedMedia

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

#: Seconds of several channels that are converted together, for speed.
HELD_S = 4


def decode(
    path: Path, rate: int = 16_000, beat: Callable[[], None] = lambda: None, channel: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """The sound of a recording, mono at `rate` hertz, -1 to 1, in portions of some milliseconds each.

    Undecodable parts are left out and pauses are filled with silence, so that a sample's index is its time. Channels
    and tracks are mixed so that every speaker remains audible; with `channel`, only that one of those of `separate` is
    decoded. Every caller gets the same samples. `beat` is called often, also while no samples come yet.

    Raises:
        NotFound: There is no such file.
        RefusedMedia: The file holds no sound, or cannot be opened as a recording.
    """
    with Recording(path, path.name) as first:
        selected = tracks.choose(first, lambda *_: beat()).selected
        if selected == (first.stream.index,):
            yield from _mono(first, rate, channel)
            return
    if channel is not None:
        several = len(selected) > 1
        yield from _track(path, selected[channel if several else 0], rate, None if several else channel)
        return
    yield from _mixed([_blocks(_track(path, index, rate), rate) for index in selected], rate)


def separate(path: Path, rate: int, beat: Callable[[], None] = lambda: None) -> Iterator[NDArray[np.float32]]:
    """The channels of the selected track, or the selected tracks if there are several, as (channels, samples) in
    portions. The number of channels may change within a recording. Otherwise as `decode`.
    """
    import numpy as np

    with Recording(path, path.name) as first:
        selected = tracks.choose(first, lambda *_: beat()).selected
    if len(selected) == 1:
        with Recording(path, path.name, track=selected[0]) as recording:
            yield from _converted(recording, rate, _Apart)
        return
    sounds = [_blocks(_track(path, index, rate), rate) for index in selected]
    for blocks in zip_longest(*sounds, fillvalue=np.zeros(0, dtype=np.float32)):
        length = max(map(len, blocks))
        yield np.stack([np.pad(block, (0, length - len(block))) for block in blocks])


def _track(path: Path, index: int, rate: int, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
    with Recording(path, path.name, track=index) as recording:
        yield from _mono(recording, rate, channel)


def _mono(recording: Recording, rate: int, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
    """One track, its channels mixed, or one of them."""
    return _converted(recording, rate, Mixer if channel is None else lambda *_: _Single(channel))


def _converted(recording: Recording, rate: int, combine: _Combine) -> Iterator[NDArray[np.float32]]:
    """One track, its channels combined."""
    import numpy as np

    converter, shape = _Converter(rate, combine), None
    for gap_s, frame in recording.frames():
        this = (frame.format.name, frame.layout.name, frame.sample_rate)
        if gap_s or this != shape:  # a resampler takes frames of one shape only
            yield from converter.flush()
            shape = this
        if gap_s:
            silence = np.zeros((frame.layout.nb_channels, round(gap_s * rate)), dtype=np.float32)
            yield silence if combine is _Apart else silence[0]
        yield from converter.convert(frame)
    yield from converter.flush()
    if shape is None:
        raise RefusedMedia(f"{recording.label} holds no sound")


def _mixed(sounds: list[Iterator[NDArray[np.float32]]], rate: int) -> Iterator[NDArray[np.float32]]:
    """Several tracks, each in blocks of the same length except for its last one, as one."""
    import numpy as np

    mixer = Mixer(len(sounds), rate)
    for blocks in zip_longest(*sounds, fillvalue=np.zeros(0, dtype=np.float32)):
        length = max(map(len, blocks))
        yield from mixer.mix(np.stack([np.pad(block, (0, length - len(block))) for block in blocks]))
    yield from mixer.flush()


def _blocks(sound: Iterable[NDArray[np.float32]], length: int) -> Iterator[NDArray[np.float32]]:
    """The sound in blocks of `length` samples; the last one is shorter, and may be empty."""
    import numpy as np

    held = np.zeros(0, dtype=np.float32)
    for samples in sound:
        held = np.concatenate([held, samples])
        while len(held) >= length:
            yield held[:length]
            held = held[length:]
    yield held


class _Combiner(Protocol):
    """What becomes of the channels of a track."""

    def mix(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Add samples (channels by samples); what is complete."""

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """What is held back."""


#: Makes a combiner of so many channels, at a rate in hertz.
_Combine = Callable[[int, int], _Combiner]


class _Apart:
    """Leaves the channels as they are."""

    def __init__(self, channels: int, rate: int) -> None: ...

    def mix(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        yield samples

    def flush(self) -> Iterator[NDArray[np.float32]]:
        yield from ()


class _Single:
    """One channel; the last one where there are fewer."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def mix(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        yield samples[min(self._channel, len(samples) - 1)]

    def flush(self) -> Iterator[NDArray[np.float32]]:
        yield from ()


class _Converter:
    """Resamples a track's frames to one rate and combines their channels. Between two shapes of frames, `flush`."""

    def __init__(self, rate: int, combine: _Combine) -> None:
        self._rate, self._combine = rate, combine
        self._resampler: av.AudioResampler | None = None
        self._mixer = combine(1, rate)
        self._channels = 1
        self._held: list[NDArray[Any]] = []
        self._length = 0

    def convert(self, frame: av.AudioFrame) -> Iterator[NDArray[np.float32]]:
        """The samples that are complete after this frame; the resampler and the mixer hold some back."""
        from av import AudioResampler

        if self._resampler is None:
            channels = frame.layout.nb_channels
            if channels != self._channels:
                self._mixer, self._channels = self._combine(channels, self._rate), channels
            self._resampler = AudioResampler(format="s16", layout=frame.layout, rate=self._rate)
        frame.pts = None
        self._resample(frame)
        if self._channels == 1 or self._length > HELD_S * self._rate * self._channels:
            yield from self._combined()

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """The samples that are held back. The next frame may have another shape."""
        if self._resampler is not None:
            self._resample(None)
            yield from self._combined()
            yield from self._mixer.flush()
        self._resampler = None

    def _resample(self, frame: av.AudioFrame | None) -> None:
        if self._resampler is not None:
            for converted in self._resampler.resample(frame):
                samples: NDArray[Any] = converted.to_ndarray().reshape(-1)
                self._held.append(samples)
                self._length += len(samples)

    def _combined(self) -> Iterator[NDArray[np.float32]]:
        import numpy as np

        if self._held:
            joined = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
            samples = joined.astype(np.float32) / np.float32(32768)
            self._held, self._length = [], 0
            yield from self._mixer.mix(samples.reshape(-1, self._channels).T)
