"""What the stage that reconciles does for a job whose speakers are to be told apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agents.stages.uploads.options import Abilities
from agents.text.speakers.attribution import attributed, told_speakers
from agents.voices.protocols import VoiceListener
from schemas.errors import NotFound, UnsupportedOption
from schemas.jobs.rows import Job
from schemas.words import Hypothesis, Reconciliation
from sinks.ports.blobs import Store


@dataclass(frozen=True)
class Diarization:
    """Tells the speakers of mixed sound apart. (Those of channels are known by their channels.)"""

    store: Store
    #: Tells voices apart; None if no voice model is installed.
    voices: VoiceListener | None = None
    #: Which options the recognizers support.
    abilities: Abilities = field(default_factory=dict)

    async def told(
        self, job: Job, decided: Reconciliation, hypotheses: Sequence[Hypothesis], progress: Callable[[float], None]
    ) -> Reconciliation:
        """The transcript with speakers, by their voices and by the labels in `hypotheses`, of which it was made.

        How many there are is asked for by the job, or told by the recognizer that labels the most words, or guessed.

        Raises:
            UnsupportedOption: Nothing tells speakers apart.
            NotFound: The recording is not stored any more.
            RefusedMedia, ProviderError: It cannot be decoded, or the voice model is damaged.
            Transient, Unavailable: It can be tried again.
        """
        if not decided.words:
            return decided
        told = told_speakers(hypotheses)
        if self.voices is None:
            able = any("diarize" in self.abilities.get(name, ()) for name in decided.providers)
            if not told and not able and decided.words[0].speaker is None:  # who is alone on a channel has its label
                raise UnsupportedOption(NO_VOICES)
            return await asyncio.to_thread(attributed, decided, hypotheses, None)
        if job.original_uri is None:
            raise NotFound("the recording is not kept, so that no voices can be told apart in it")
        labels = {word.speaker for word in told[0].words} - {None} if told else set()
        speakers = job.options.get("speakers") or len(labels) or None
        async with self.store.local_path(job.original_uri) as audio:
            voices = await self.voices.listen(audio, speech(decided), speakers, progress)
        if voices.is_empty and not told:
            raise UnsupportedOption("options.diarize: no recognizer says when its words are said")
        found = await asyncio.to_thread(attributed, decided, hypotheses, None if voices.is_empty else voices)
        names = "".join(f" and by {one.provider}" for one in told)
        return replace(found, notes=(*found.notes, f"Speakers are told apart by their voices{names}."))


#: Why a recording's speakers cannot be told apart.
NO_VOICES = (
    "options.diarize: the recording has not a speaker on each channel, no recognizer has told speakers apart, and no "
    "voice model is installed. Leave the option out, or have an operator run `make install` (the extra `local` has one)"
)


def speech(decided: Reconciliation) -> list[tuple[int, int]]:
    """When the words of a transcript are said, in ms."""
    return [
        (word.start_ms, word.end_ms)
        for word in decided.words
        if word.start_ms is not None and word.end_ms is not None and word.end_ms > word.start_ms
    ]
