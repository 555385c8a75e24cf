"""The interface of what tells voices apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agents.text.speakers.attribution import Voices
from agents.text.speakers.prints import VoicePrint


class VoiceListener(Protocol):
    """Tells the voices of a recording apart, in processes of this machine. Doing it again gives the same result."""

    async def listen(
        self,
        audio: Path,
        speech: Sequence[tuple[int, int]],
        speakers: int | None,
        progress: Callable[[float], None],
    ) -> Voices:
        """The voices in a recording whose `speech` (start and end in ms, in order) is known.

        `speakers` is the number of voices, None if it is to be guessed. Calls `progress` with shares from 0 to 1. The
        event loop is not blocked meanwhile. Several recordings may be given at the same time; they wait for each other.

        Raises:
            RefusedMedia: The recording cannot be decoded.
            ProviderError: The voice model is not there.
            Transient: The process died, made no progress, or is closed.
        """

    async def prints(
        self, audio: Path, speech: Mapping[str, Sequence[tuple[int, int]]], progress: Callable[[float], None]
    ) -> dict[str, VoicePrint]:
        """What each speaker sounds like, by name, of those who say enough alone, and not in noise.

        `speech` has when each speaks (start and end in ms, in order). Otherwise as `listen`, and raises the same.
        """

    async def close(self) -> None:
        """End the process. Safe to call twice."""
