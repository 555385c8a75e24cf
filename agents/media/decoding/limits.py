"""Bounds what decoding one recording may cost: length, samples, and processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.media.decoding.damage import duration_text
from agents.media.decoding.formats import EXACT
from agents.media.decoding.recording import Recording
from schemas.errors import RefusedMedia

if TYPE_CHECKING:
    import av

#: Milliseconds: ten hours. Longer recordings are refused unless the caller passes another limit.
MAX_DURATION_MS = 36_000_000
#: Seconds of processor time that decoding may take, and seconds of sound for which it may take another one. (Opus in
#: stereo, the slowest format in which calls arrive, yields 500 to 600; the slowest lossless archives yield 30.)
CPU_S, SLOWEST = 30.0, 25.0
#: Samples between two checks of the limits: some milliseconds of work, three seconds of sound.
LIMITS_EACH = 1 << 18


@dataclass(slots=True)
class Limits:
    """The work that one recording may cause, and what its tracks have caused together so far."""

    duration_ms: int = MAX_DURATION_MS
    #: Called at each check.
    beat: Callable[[], None] = lambda: None
    #: Seconds of processor time that are allowed before any sound is decoded.
    cpu_s: float = CPU_S
    _samples: int = 0
    _decoded_s: float = 0.0
    _next: int = 0
    _began: float = field(default_factory=time.process_time)

    @property
    def samples(self) -> int:
        """Samples of all channels that are allowed: those of the longest recording in two channels of 48 kHz."""
        return self.duration_ms * 96

    def check_header(self, recording: Recording) -> None:
        """Check the length that an exact header states, before anything is decoded.

        Raises:
            RefusedMedia: The header states more than is allowed.
        """
        if recording.format in EXACT and (stated_s := recording.stated_s()):
            self._check_size(recording.label, stated_s, round(stated_s * recording.rate * recording.channels))

    def check(self, recording: Recording, frame: av.AudioFrame) -> None:
        """Count a decoded frame. Compares with the limits once in `LIMITS_EACH` samples.

        Raises:
            RefusedMedia: A limit is exceeded.
        """
        self._samples += frame.samples * recording.channels
        self._decoded_s += frame.samples / recording.rate
        if self._samples < self._next:
            return
        self._next = self._samples + LIMITS_EACH
        self.check_now(recording)

    def check_now(self, recording: Recording) -> None:
        """Compare what was counted with the limits.

        Raises:
            RefusedMedia: A limit is exceeded.
        """
        self._check_size(recording.label, recording.tally.end_s, self._samples)
        allowed_s = self.cpu_s + self._decoded_s / SLOWEST
        if time.process_time() - self._began > allowed_s:
            raise RefusedMedia(
                f"{recording.label} takes a processor more than the {allowed_s:.0f} s allowed to decode "
                f"{duration_text(self._decoded_s)} of it: convert it to a usual format"
            )
        self.beat()

    def _check_size(self, label: str, seconds: float, samples: int) -> None:
        longest = duration_text(self.duration_ms / 1000)
        if seconds * 1000 > self.duration_ms:
            raise RefusedMedia(
                f"{label} is longer than the {longest} allowed: split it, or ask your administrator to raise the limit"
            )
        if samples > self.samples:
            raise RefusedMedia(
                f"{label} has more than the {self.samples} samples allowed (two channels of 48 kHz for {longest}): "
                "convert it to a lower rate, or to fewer channels"
            )
