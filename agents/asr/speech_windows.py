"""The speech of a recording in windows of bounded length, for local recognizers that take half a minute at once.

What was measured, with Whisper on read speech, clean, with noise, and limited to a telephone's band:

* Silence is removed before recognition (with Silero's voice activity detector), because Whisper invents words in long
  silence and loses words after it. At the detector's usual threshold of 0.5, half of all telephone speech is taken for
  silence: word error rates of 56 % instead of 4 %. At 0.05 nothing is lost.
* The rest is cut at pauses into windows of less than 30 seconds. If Whisper itself cuts every 30 seconds, it loses
  sentences at the cuts of fluent speech: 4.6 % of the words are wrong instead of 3.0 % (tiny.en), 3.1 % instead of
  1.7 % (base), for a quarter more time. Moonshine loses 30 % of the words of telephone speech in windows of 16 seconds.
* A window in which the detector's probability is never high contains no speech and is skipped: recognizers take most
  time for noise.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding.channels import speaker_channels
from agents.media.decoding.chunks import Chunk, chunks
from agents.media.subprocess_worker import Message
from schemas.errors import ProviderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Options of the voice activity detector; see above.
DETECTION = {"threshold": 0.05, "neg_threshold": 0.03, "min_silence_duration_ms": 500, "speech_pad_ms": 400}
#: Seconds of a recording that are held and searched for speech at once: the detector needs 1 MB for each.
CHUNK_S = 120.0
#: Seconds of the longest window. Whisper's own has 30, and the last word must end within it.
WINDOW_S = 26.0
#: Probability of speech, averaged over a sixth of a second, that a window must reach somewhere. Hiss and music stay
#: below 0.15 unless they are very loud; a short sentence through a telephone reaches 0.55, other speech 0.9.
SPEECH = 0.25
#: Hertz of the samples.
RATE = 16_000


def require_detector() -> None:
    """Raises `ProviderError` if faster-whisper, which has the voice activity detector and the runtime, is missing."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise ProviderError("faster-whisper is not installed: run `make install` (it is in the extra `local`)")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a recording that can be held in memory."""

    chunk: Chunk
    #: The channel whose sound it is; None if the channels are mixed.
    channel: int | None
    #: The number of channels that are heard one after the other.
    channels: int

    @property
    def labels(self) -> dict[str, int]:
        """What a message about this part says of its channel; see `SubprocessRecognizer`."""
        return {} if self.channel is None else {"channel": self.channel, "channels": self.channels}


def recording_in_parts(request: Message, beat: Callable[[], None]) -> Iterator[Part]:
    """The recording of a request at `RATE` hertz; with `diarize`, each channel after the other, if each has a speaker
    of its own and no other number of `speakers` is asked for. Raises as `chunks` does.
    """
    path = Path(request["path"])
    found = speaker_channels(path, beat) if request.get("diarize") else None
    if found is None or request.get("speakers") not in {None, found.count}:
        for chunk in chunks(path, seconds=CHUNK_S, search_s=20.0, rate=RATE, beat=beat):
            yield Part(chunk, None, 1)
        return
    for channel in range(found.count):
        for chunk in chunks(path, seconds=CHUNK_S, search_s=20.0, rate=RATE, beat=beat, channel=channel):
            yield Part(found.without_echo(chunk, channel, RATE), channel, found.count)


def end_ms(chunk: Chunk) -> int:
    """Where the chunk ends, in ms from the start of the recording."""
    return chunk.start_ms + len(chunk.samples) * 1000 // RATE


@dataclass(frozen=True)
class Window:
    """Intervals of speech, joined without the pauses between them."""

    samples: NDArray[np.float32]
    #: Of each interval: its start in the window and in the recording, in ms.
    starts: tuple[tuple[int, int], ...]
    #: The end of the last interval in the recording.
    end_ms: int
    #: The detector's highest probability of speech in it.
    speech: float = 1.0

    def times(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Start and end of a word in the recording, in ms, from those in the window, in seconds.

        A word across a cut belongs to the interval that contains its middle.
        """
        middle = (start_s + end_s) * 500
        shift = next(original - here for here, original in reversed(self.starts) if here <= middle or here == 0)
        start, end = (min(self.end_ms, max(0, round(time_s * 1000) + shift)) for time_s in (start_s, end_s))
        return start, max(start, end)


def windows(chunk: Chunk) -> Iterator[Window]:
    """The windows of a chunk that contain speech."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    group: list[tuple[int, int]] = []
    for speech in get_speech_timestamps(chunk.samples, VadOptions(max_speech_duration_s=WINDOW_S, **DETECTION)):
        interval = (speech["start"], speech["end"])
        if sum(end - start for start, end in (*group, interval)) > WINDOW_S * RATE:
            yield from _window(chunk, group)
            group = []
        group.append(interval)
    yield from _window(chunk, group)


def _window(chunk: Chunk, intervals: list[tuple[int, int]]) -> Iterator[Window]:
    """The window of these intervals (in samples), unless it is empty or certainly contains no speech."""
    import numpy as np

    if not intervals:
        return
    samples = np.concatenate([chunk.samples[start:end] for start, end in intervals])
    speech = _speech(samples)
    if speech < SPEECH:
        return
    starts, length = [], 0
    for start, end in intervals:
        starts.append((length * 1000 // RATE, chunk.start_ms + start * 1000 // RATE))
        length += end - start
    yield Window(samples, tuple(starts), chunk.start_ms + intervals[-1][1] * 1000 // RATE, speech)


def _speech(samples: NDArray[np.float32]) -> float:
    """The detector's highest probability of speech, averaged over a sixth of a second."""
    import numpy as np
    from faster_whisper.vad import get_vad_model

    step = 512  # samples of one probability of the detector: 32 ms
    probabilities = get_vad_model()(np.pad(samples, (0, -len(samples) % step))).reshape(-1)
    return float(np.convolve(probabilities, np.full(5, 0.2), "same").max())
