"""Which sound tracks of a file are heard: nearly every recording has one; some have the call in the second, or a
speaker in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agents.media.decoding.mixing import SILENT_PEAK
from agents.media.decoding.recording import Recording

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

#: Seconds over which loudness is taken, for telling whether two tracks hold the same.
_STEP_S = 0.1
#: Correlation of two tracks' loudness from which they hold the same sound, in two qualities.
_SAME = 0.98


@dataclass(frozen=True, slots=True)
class Tracks:
    """The tracks to be heard, as indexes of streams, and what to say about the choice."""

    heard: tuple[int, ...]
    note: str | None = None


@dataclass(slots=True)
class _Track:
    """A candidate, and its loudness from step to step."""

    number: int
    index: int
    language: str
    #: A commentary, a description for the blind, music without its singer.
    aside: bool
    loudness: NDArray[np.float32]
    silent: bool
    #: Why it is not heard; empty if it is.
    reason: str = ""


#: Called for each frame of each track that is listened to.
Check = Callable[[Recording, "av.AudioFrame"], None]


def choose(first: Recording, check: Check) -> Tracks:
    """The track of an open recording if it is the only one; else all are listened to, from beginning to end."""
    preferred = first.stream.index
    if len(first.usable) == 1:
        return Tracks((preferred,))
    tracks = []
    for number, index in enumerate([track.index for track in first.usable], 1):
        with Recording(first.path, first.label, track=index) as recording:
            tracks.append(_listened(recording, number, check))
    tracks.sort(key=lambda track: track.index != preferred)
    _leave_out(tracks)
    heard = sorted(track.index for track in tracks if not track.reason)
    return Tracks(tuple(heard), _note(sorted(tracks, key=lambda track: track.number)))


def _listened(recording: Recording, number: int, check: Check) -> _Track:
    import numpy as np

    power: list[float] = []
    silent = True
    for gap_s, frame in recording.frames():
        samples = amplitudes(frame)
        silent = silent and peak(samples) <= SILENT_PEAK
        steps = round(recording.tally.end_s / _STEP_S) - len(power)
        power += [0.0] * round(gap_s / _STEP_S) + [float(np.mean(np.square(samples)))] * (
            steps - round(gap_s / _STEP_S)
        )
        check(recording, frame)
    track = recording.stream
    return _Track(number, track.index, track.language or "und", _aside(track), np.sqrt(np.array(power)), silent)


def _aside(track: av.AudioStream) -> bool:
    from av.stream import Disposition as Kind

    asides = Kind.comment | Kind.karaoke | Kind.hearing_impaired | Kind.visual_impaired | Kind.clean_effects
    return bool(track.disposition & asides)


def amplitudes(frame: av.AudioFrame) -> NDArray[np.float32]:
    """The samples of a frame as channels by samples, full scale being 1."""
    import numpy as np

    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(-np.iinfo(samples.dtype).min)
    return np.nan_to_num(samples.astype(np.float32, copy=False))


def peak(samples: NDArray[np.float32]) -> float:
    """The largest amplitude."""
    return float(abs(samples).max(initial=0.0))


def _leave_out(tracks: list[_Track]) -> None:
    """Say of each track why it is not heard, the preferred one being first."""
    for track in tracks:
        track.reason = "silent" if track.silent else ""
    if not list(_heard(tracks)):
        tracks[0].reason = ""
    if not all(track.aside for track in _heard(tracks)):
        for track in _heard(tracks):
            track.reason = "a commentary or the like" if track.aside else ""
    for track in _heard(tracks):
        before = next((b for b in _heard(tracks[: tracks.index(track)]) if _same(track, b)), None)
        track.reason = f"the same as track {before.number}" if before else ""
    rest = list(_heard(tracks))
    languages = {track.language for track in rest} - {"und"}
    if len(languages) == len(rest):
        for track in rest[1:]:
            track.reason = f"in another language, {track.language}"


def _heard(tracks: list[_Track]) -> Iterator[_Track]:
    return (track for track in tracks if not track.reason)


def _same(one: _Track, other: _Track) -> bool:
    import numpy as np

    length = min(len(one.loudness), len(other.loudness))
    first, second = one.loudness[:length], other.loudness[:length]
    if length < 2 or not first.std() or not second.std():
        return False
    return bool(np.corrcoef(first, second)[0, 1] > _SAME)


def _note(tracks: list[_Track]) -> str | None:
    if all(track.silent for track in tracks):
        return None
    heard = [str(track.number) for track in _heard(tracks)]
    what = f"track {heard[0]} was heard" if len(heard) == 1 else f"tracks {', '.join(heard)} were mixed"
    others = [f"track {track.number} was left out ({track.reason})" for track in tracks if track.reason]
    return f"The recording has {len(tracks)} sound tracks: {'; '.join([what, *others])}."
