"""A `VoiceListener` that knows who speaks when, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agents.text.speakers.attribution import Voices
from agents.text.speakers.prints import VoicePrint
from agents.voices.windows import LEAST_S
from schemas.errors import Transient

#: Milliseconds between two intervals.
STEP_MS = 250
#: The encoder's name in its prints.
MODEL = "scripted"


@dataclass
class ScriptedListener:
    """Hears voice 0 until the first of these times (ms), then voice 1, and so on in turn."""

    changes_ms: tuple[int, ...] = ()
    #: Errors of the next calls, in order; None lets one succeed.
    trouble: list[Exception | None] = field(default_factory=list)
    #: By speaker, the voice of which there is a print: equal numbers are the same person's.
    #: Voices of others follow from their names.
    people: dict[str, int] = field(default_factory=dict)
    #: Seconds of speech that a print needs.
    least_s: float = LEAST_S
    #: The numbers of speakers that were asked for, and the speakers whose prints were.
    asked: list[int | None] = field(default_factory=list)
    printed: list[tuple[str, ...]] = field(default_factory=list)
    _closed: bool = False

    async def listen(
        self,
        audio: Path,
        speech: Sequence[tuple[int, int]],
        speakers: int | None,
        progress: Callable[[float], None],
    ) -> Voices:
        """See `VoiceListener`."""
        await self._begin(audio)
        self.asked.append(speakers)
        self._fail_if_told()
        count = speakers or (2 if self.changes_ms else 1)
        times = np.arange(0, max((end for _, end in speech), default=0) + STEP_MS, STEP_MS)
        times = times[[any(start <= time < end for start, end in speech) for time in times.tolist()]]
        voice = np.searchsorted(np.array(self.changes_ms), times, side="right") % count
        progress(1.0)
        return Voices(times, (voice[:, None] == np.arange(count)).astype(np.float64))

    async def prints(
        self, audio: Path, speech: Mapping[str, Sequence[tuple[int, int]]], progress: Callable[[float], None]
    ) -> dict[str, VoicePrint]:
        """See `VoiceListener`."""
        await self._begin(audio)
        self.printed.append(tuple(sorted(speech)))
        self._fail_if_told()
        seconds = {name: sum(end - start for start, end in intervals) / 1000 for name, intervals in speech.items()}
        progress(1.0)
        return {
            name: VoicePrint(MODEL, self._vector(name), seconds[name])
            for name in sorted(speech)
            if seconds[name] >= self.least_s
        }

    def _vector(self, name: str) -> bytes:
        vector = np.zeros(64, dtype="<f4")
        vector[self.people.get(name, 32 + sum(name.encode()) % 32)] = 1
        return vector.tobytes()

    async def _begin(self, audio: Path) -> None:
        await asyncio.to_thread(audio.stat)
        if self._closed:
            raise Transient("telling voices apart is shut down")

    def _fail_if_told(self) -> None:
        if (trouble := self.trouble.pop(0) if self.trouble else None) is not None:
            raise trouble

    async def close(self) -> None:
        """See `VoiceListener`."""
        self._closed = True
