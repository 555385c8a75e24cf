"""Determines what a file really is, and whether it can be transcribed, by decoding all of it.

Synchronous, and run in worker processes only: see `agents.media.probe_pool`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.media.decoding import tracks
from agents.media.decoding.damage import duration_text
from agents.media.decoding.formats import PACKED, page_cut
from agents.media.decoding.limits import MAX_DURATION_MS, Limits
from agents.media.decoding.mixing import SILENT_PEAK, opposed
from agents.media.decoding.padding import sound_bytes, zeros_at_end
from agents.media.decoding.recording import Recording
from schemas.errors import RefusedMedia

if TYPE_CHECKING:
    import av

#: Milliseconds: no word is spoken in less.
MIN_DURATION_MS = 20
#: Share of a recording that may be lost in the middle: what is left is worth reading, with a note.
TOLERATED_DAMAGE = 0.2
#: Share of the length in a header that may be missing, and never less than this many seconds: encoders round and pad.
TOLERATED_LOSS, TOLERATED_LOSS_S = 0.01, 0.25
#: Seconds between two comparisons of the channels, and the share of these from which opposed channels get a note.
COMPARE_S, OPPOSED_SHARE = 2.0, 0.05
#: Zeros at the end of a file from which they are taken for missing content and not for padding.
EMPTY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Probe:
    """The true format of a recording, whatever its name says, after all of it was decoded."""

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
    #: What a reader of the transcript should know, in sentences: what was lost, how it was mixed.
    notes: tuple[str, ...] = ()


def probe(
    path: Path,
    *,
    name: str | None = None,
    declared_type: str | None = None,
    max_duration_ms: int = MAX_DURATION_MS,
    beat: Callable[[], None] = lambda: None,
) -> Probe:
    """Decode all of a file and describe it. Memory stays bounded however long the recording is.

    A recording in another container than `name` (otherwise the path's name) or `declared_type` says is accepted under
    its true type. `beat` is called often.

    Raises:
        NotFound: There is no such file.
        RefusedMedia: The file cannot be transcribed; the text is written for its owner.
    """
    label = name or path.name
    limits = Limits(max_duration_ms, beat)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Recording(path, label, _claims(label, declared_type)))
        limits.check_header(first)
        choice = tracks.choose(first, limits.check)
        recordings = [first]
        if choice.selected != (first.stream.index,):
            recordings = [stack.enter_context(Recording(path, label, track=index)) for index in choice.selected]
        levels = [_levels(recording, limits) for recording in recordings]
        notes = [choice.note] if choice.note else []
        for recording, level in zip(recordings, levels, strict=True):
            notes += _checked(recording) + level.notes()
        return _probed(recordings, all(level.silent for level in levels), tuple(dict.fromkeys(notes)))


def _probed(recordings: list[Recording], silent: bool, notes: tuple[str, ...]) -> Probe:
    first = recordings[0]
    content_type, extension = first.content_type()
    return Probe(
        format=first.format,
        codec=first.stream.codec_context.name.removesuffix("float"),
        sample_rate=first.rate,
        channels=first.channels,
        duration_ms=round(max(recording.tally.end_s for recording in recordings) * 1000),
        content_type=content_type,
        extension=extension,
        silent=silent,
        notes=notes,
    )


@dataclass(slots=True)
class _Levels:
    """Whether a track is silent, and how often its channels cancel each other out."""

    silent: bool = True
    #: Seconds into the recording at which the channels are compared next.
    next_s: float = 0.0
    _compared: int = 0
    _opposed: int = 0

    def add(self, recording: Recording, frame: av.AudioFrame) -> None:
        """Examine a frame."""
        samples = tracks.amplitudes(frame)
        if tracks.peak(samples) <= SILENT_PEAK:
            return
        self.silent = False
        if recording.tally.end_s >= self.next_s:
            self.next_s = recording.tally.end_s + COMPARE_S if len(samples) > 1 else math.inf
            self._compared += 1
            self._opposed += bool(opposed(samples).any())

    def notes(self) -> list[str]:
        """A note about opposed channels, if there are many."""
        share = self._opposed / self._compared if self._compared else 0.0
        if share < OPPOSED_SHARE:
            return []
        return [
            f"Its channels oppose each other in {share:.0%} of the recording; they were turned before they were mixed."
        ]


def _levels(recording: Recording, limits: Limits) -> _Levels:
    """Decode a track to its end."""
    levels = _Levels()
    for _, frame in recording.frames():
        if levels.silent or recording.tally.end_s >= levels.next_s:
            levels.add(recording, frame)
        limits.check(recording, frame)
    limits.check_now(recording)
    return levels


def _claims(label: str, declared_type: str | None) -> str:
    """The name's extension and the declared type, as the end of a sentence that contradicts them."""
    claims = [f"is named {suffix}"] if (suffix := Path(label).suffix) else []
    if declared_type and declared_type != "application/octet-stream":
        claims.append(f"was declared as {declared_type}")
    return f", though it {' and '.join(claims)}" if claims else ""


def _checked(recording: Recording) -> list[str]:
    """Notes about tolerable damage of a decoded track.

    Raises:
        RefusedMedia: The track is too damaged, too short, or shorter than its header states.
    """
    tally, label = recording.tally, recording.label
    if not tally.decoded_s:
        raise RefusedMedia(f"{label} holds no sound: it is a header without a recording, or none of it can be decoded")
    promised_s, tail_bytes = recording.promised_s() or 0.0, _tail_bytes(recording)
    missing_s = _missing_s(tally.end_s, promised_s)
    _check_end(recording, promised_s, missing_s, tail_bytes)
    _check_damage(recording, promised_s, missing_s, tail_bytes)
    if tally.end_s * 1000 < MIN_DURATION_MS:
        raise RefusedMedia(f"{label} is only {tally.end_s * 1000:.1f} ms long: too short for a word")
    return [*tally.notes(missing_s), *_file_notes(recording, complete=bool(promised_s))]


def _missing_s(end_s: float, promised_s: float) -> float | None:
    """Seconds that the header promises (0 for no promise) and the track lacks; None if that is tolerated."""
    missing_s = promised_s - end_s if promised_s else 0.0
    return None if missing_s <= max(TOLERATED_LOSS_S, promised_s * TOLERATED_LOSS) else missing_s


def _check_end(recording: Recording, promised_s: float, missing_s: float | None, tail_bytes: int) -> None:
    """Raises RefusedMedia if the file is cut off."""
    tally, label = recording.tally, recording.label
    # The frames of an MP3 carry no times: if its end is intact, all that is missing was lost where it is damaged.
    explained = bool(tally.losses) and not tail_bytes and recording.ends_whole()
    if missing_s is not None and not explained:
        raise RefusedMedia(
            f"{label} is cut off: its header promises {duration_text(promised_s)}, "
            f"but only {duration_text(tally.end_s)} are there"
        )
    if recording.format == "ogg" and page_cut(recording.path):
        raise RefusedMedia(f"{label} is cut off: it ends in the middle of a page, after {duration_text(tally.end_s)}")


def _check_damage(recording: Recording, promised_s: float, missing_s: float | None, tail_bytes: int) -> None:
    """Raises RefusedMedia if too much of the track cannot be decoded."""
    tally, label = recording.tally, recording.label
    damage = tally.damage() if missing_s is None else max(tally.damage(), missing_s / (tally.end_s + missing_s))
    if damage > TOLERATED_DAMAGE:
        raise RefusedMedia(f"{label} is damaged: {damage:.0%} of it cannot be decoded")
    if not promised_s and tail_bytes > tally.good_bytes + sum(loss.size for loss in tally.losses):
        raise RefusedMedia(f"{label} is damaged: after {duration_text(tally.end_s)} nothing can be decoded any more")


def _tail_bytes(recording: Recording) -> int:
    """Bytes after the last decodable packet that may have been sound."""
    tally = recording.tally
    if tally.tail is None or tally.tail_bytes == 0:
        return tally.tail_bytes
    return sound_bytes(recording.path, *tally.tail, zeros=True)


def _file_notes(recording: Recording, *, complete: bool) -> list[str]:
    """Notes about a header that states too little, and about empty bytes at the file's end."""
    notes, end_s = [], recording.tally.end_s
    if recording.unstated:
        stated, length = recording.unstated
        notes.append(
            f"The file's header states {duration_text(end_s * stated / length)} of sound, but the file holds "
            f"{duration_text(end_s)}, and all of it was heard."
        )
    if not complete and recording.format in PACKED and (zeros := zeros_at_end(recording.path)) > EMPTY_BYTES:
        notes.append(
            f"The file ends with {zeros} empty bytes after {duration_text(end_s)} of sound: if the recording is "
            "longer, it was not copied completely."
        )
    return notes
