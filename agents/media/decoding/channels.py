"""Finds out whether a recording has one speaker on each channel, as a telephone system records calls.

Two channels that hold the same sound (dual mono, a room in stereo, music) are no two speakers. What tells them apart is
who is loud when: on a call, each channel is much louder than the other while its speaker speaks alone. Of a room, both
microphones hear everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.chunks import Chunk
from agents.media.decoding.decoder import separate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Seconds of a window, whose loudness is compared, and hertz at which that is measured.
WINDOW_S, RATE = 0.25, 8000
#: Decibels by which a channel is louder than all others while its speaker speaks alone. Echo of a speaker in the other
#: channel is 15 dB quieter at least, on two-microphone recordings of a room it is 3 to 8.
OWN_DB = 10.0
#: Decibels below the recording's loud windows from which a window counts as silent.
SILENT_DB = 35.0
#: Seconds, and share of the windows with sound, that each channel must have for itself.
OWN_S, OWN_SHARE = 1.0, 0.02
#: Decibels below another channel from which a channel holds its echo: each is measured by how loud its speaker is.
ECHO_DB = 20.0
#: Channels of a recording that are compared, at most; more are no call.
MOST = 8


@dataclass(frozen=True, slots=True)
class SpeakerChannels:
    """The channels (or selected tracks) of a recording in which each has a speaker of its own."""

    count: int
    #: (windows, channels): where a channel holds no more than the echo of another one.
    echo: NDArray[np.bool_]

    def without_echo(self, chunk: Chunk, channel: int, rate: int) -> Chunk:
        """A chunk of a channel with silence in place of the echo of others."""
        import numpy as np

        first = chunk.start_ms * rate // 1000
        window = (first + np.arange(len(chunk.samples))) // round(WINDOW_S * rate)
        muted = self.echo[np.minimum(window, len(self.echo) - 1), channel]
        return Chunk(chunk.start_ms, np.where(muted, np.float32(0), chunk.samples))


def speaker_channels(path: Path, beat: Callable[[], None] = lambda: None) -> SpeakerChannels | None:
    """The channels of a recording if each has a speaker of its own; otherwise None.

    Decodes the recording once. Raises as `decode` does.
    """
    loudness = levels(path, beat)
    count = count_speakers(loudness)
    return SpeakerChannels(count, echoes(loudness)) if count > 1 else None


def echoes(loudness: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(windows, channels): where another channel's speaker is so much louder that a channel holds an echo at most.

    A window beside one with speech is none, so that no word loses its beginning or its end.
    """
    import numpy as np

    speech = np.maximum(np.quantile(loudness, 0.95, axis=0), 1e-6)
    relative = loudness / speech
    others = np.stack(
        [np.delete(relative, channel, axis=1).max(axis=1) for channel in range(relative.shape[1])], axis=1
    )
    quiet = relative < others * 10 ** (-ECHO_DB / 20)
    echo: NDArray[np.bool_] = quiet.copy()
    echo[1:] &= quiet[:-1]
    echo[:-1] &= quiet[1:]
    return echo


def levels(path: Path, beat: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
    """(windows, channels): the loudness of each channel, or of each selected track, as root mean square."""
    import numpy as np

    rows: list[NDArray[np.float32]] = []
    size = round(WINDOW_S * RATE)
    held: NDArray[np.float32] | None = None
    for samples in separate(path, RATE, beat):
        beat()
        if held is not None and len(held) != len(samples):
            return np.zeros((0, 1), dtype=np.float32)  # the number of channels changes: no call
        held = samples if held is None else np.concatenate([held, samples], axis=1)
        whole = held.shape[1] // size
        windows = held[:, : whole * size].reshape(len(held), whole, size)
        rows.append(np.sqrt(np.square(windows).mean(axis=2)).T)
        held = held[:, whole * size :]
    return np.concatenate(rows) if rows else np.zeros((0, 1), dtype=np.float32)


def count_speakers(loudness: NDArray[np.float32]) -> int:
    """The number of channels if each is alone loud for some time, otherwise 1. `loudness` is (windows, channels)."""
    import numpy as np

    windows, channels = loudness.shape
    if not windows or not 1 < channels <= MOST:
        return 1
    loudest = loudness.max(axis=1)
    sounding = loudness[loudest > np.quantile(loudest, 0.95) * 10 ** (-SILENT_DB / 20)]
    first, second = np.sort(sounding, axis=1)[:, :-3:-1].T
    alone = first > second * 10 ** (OWN_DB / 20)
    own = np.bincount(sounding.argmax(axis=1)[alone], minlength=channels)
    needed = max(OWN_S / WINDOW_S, OWN_SHARE * len(sounding))
    return channels if (own >= needed).all() else 1
