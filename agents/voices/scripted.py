"""A `VoiceListener` that knows who speaks when, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agents.text.speakers.attribution import Voices
from schemas.errors import Transient

#: Milliseconds between two intervals.
STEP_MS = 250


@dataclass
class ScriptedListener:
    """Hears voice 0 until the first of these times (ms), then voice 1, and so on in turn."""

    changes_ms: tuple[int, ...] = ()
    #: Errors of the next calls, in order; None lets one succeed.
    trouble: list[Exception | None] = field(default_factory=list)
    #: The numbers of speakers that were asked for.
    asked: list[int | None] = field(default_factory=list)
    _closed: bool = False

    async def listen(
        self,
        audio: Path,
        speech: Sequence[tuple[int, int]],
        speakers: int | None,
        progress: Callable[[float], None],
    ) -> Voices:
        """See `VoiceListener`."""
        await asyncio.to_thread(audio.stat)
        if self._closed:
            raise Transient("telling voices apart is shut down")
        self.asked.append(speakers)
        if (trouble := self.trouble.pop(0) if self.trouble else None) is not None:
            raise trouble
        count = speakers or (2 if self.changes_ms else 1)
        times = np.arange(0, max((end for _, end in speech), default=0) + STEP_MS, STEP_MS)
        times = times[[any(start <= time < end for start, end in speech) for time in times.tolist()]]
        voice = np.searchsorted(np.array(self.changes_ms), times, side="right") % count
        progress(1.0)
        return Voices(times, (voice[:, None] == np.arange(count)).astype(np.float64))

    async def close(self) -> None:
        """See `VoiceListener`."""
        self._closed = True
