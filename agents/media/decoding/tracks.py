"""Selects the sound tracks of a file that are transcribed.

Nearly every recording has one track. Some have the call in the second one, or one speaker in each.
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

#: Seconds over which loudness is measured, to find out whether two tracks hold the same sound.
_STEP_S = 0.1
#: Correlation of two tracks' loudness from which they hold the same sound, perhaps in two qualities.
_SAME = 0.98


@dataclass(frozen=True, slots=True)
class TrackChoice:
    """The selected tracks."""

    #: Indexes of their streams.
    selected: tuple[int, ...]
    #: For the reader of the transcript: which tracks were selected, and why. None if there was no choice.
    note: str | None = None


@dataclass(slots=True)
class _Track:
    """A track and what is known about it."""

    number: int
    index: int
    language: str
    #: A commentary, a description for the blind, music without its singer.
    aside: bool
    #: Root mean square of each step.
    loudness: NDArray[np.float32]
    silent: bool
    #: Why it is not selected; empty if it is.
    reason: str = ""


#: Called for each frame of each track that is decoded.
Check = Callable[[Recording, "av.AudioFrame"], None]


def choose(first: Recording, check: Check) -> TrackChoice:
    """Select tracks of an open recording. With more than one, all are decoded completely; raises as `check` does."""
    preferred = first.stream.index
    if len(first.usable) == 1:
        return TrackChoice((preferred,))
    tracks = []
    for number, index in enumerate([track.index for track in first.usable], 1):
        with Recording(first.path, first.label, track=index) as recording:
            tracks.append(_measured(recording, number, check))
    tracks.sort(key=lambda track: track.index != preferred)
    _leave_out(tracks)
    selected = sorted(track.index for track in _selected(tracks))
    return TrackChoice(tuple(selected), _note(sorted(tracks, key=lambda track: track.number)))


def _measured(recording: Recording, number: int, check: Check) -> _Track:
    """The open track, decoded to its end."""
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
    """The samples of a frame (channels by samples); full scale is 1."""
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
    """The largest absolute amplitude."""
    return float(abs(samples).max(initial=0.0))


def _leave_out(tracks: list[_Track]) -> None:
    """Set `reason` of each track that is not selected. The preferred track comes first."""
    _leave_out_silent(tracks)
    _leave_out_asides(tracks)
    _leave_out_copies(tracks)
    _leave_out_languages(tracks)


def _leave_out_silent(tracks: list[_Track]) -> None:
    """Select the tracks with sound; the preferred one if there are none."""
    for track in tracks:
        track.reason = "silent" if track.silent else ""
    if not list(_selected(tracks)):
        tracks[0].reason = ""


def _leave_out_asides(tracks: list[_Track]) -> None:
    """Leave out commentaries and the like, unless there is nothing else."""
    if not all(track.aside for track in _selected(tracks)):
        for track in _selected(tracks):
            track.reason = "a commentary or the like" if track.aside else ""


def _leave_out_copies(tracks: list[_Track]) -> None:
    """Leave out tracks with the same sound as an earlier one."""
    for track in _selected(tracks):
        before = next((b for b in _selected(tracks[: tracks.index(track)]) if _same(track, b)), None)
        track.reason = f"the same as track {before.number}" if before else ""


def _leave_out_languages(tracks: list[_Track]) -> None:
    """If every track is in a language of its own, leave out all but the preferred one."""
    rest = list(_selected(tracks))
    languages = {track.language for track in rest} - {"und"}
    if len(languages) == len(rest):
        for track in rest[1:]:
            track.reason = f"in another language, {track.language}"


def _selected(tracks: list[_Track]) -> Iterator[_Track]:
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
    numbers = [str(track.number) for track in _selected(tracks)]
    selected = f"track {numbers[0]} was heard" if len(numbers) == 1 else f"tracks {', '.join(numbers)} were mixed"
    others = [f"track {track.number} was left out ({track.reason})" for track in tracks if track.reason]
    return f"The recording has {len(tracks)} sound tracks: {'; '.join([selected, *others])}."
