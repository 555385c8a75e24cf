"""What the stage that reconciles does for a job whose speakers are to be told apart, and recognised where its tenant
allows that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agents.stages.uploads.options import Abilities
from agents.text.speakers.attribution import attributed, told_speakers
from agents.text.speakers.prints import Likeness, VoicePrint, likenesses
from agents.voices.protocols import VoiceListener
from schemas.corrections.voices import SpeakerVoice
from schemas.errors import ConcordError, NotFound, Unavailable, UnsupportedOption
from schemas.jobs.rows import Job, run_fields
from schemas.words import Hypothesis, Reconciliation
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.corrections.voices import VoicePrints
from sinks.ports.tenants import PerTenant

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Recognition:
    """Compares the speakers of a recording with the voice prints of its tenant, which must have allowed that."""

    store: Store
    database: PerTenant[VoicePrints]
    accounts: EffectiveSettings
    #: None if no voice model is installed.
    voices: VoiceListener | None = None

    async def recognised(
        self, job: Job, decided: Reconciliation, progress: Callable[[float], None]
    ) -> tuple[Reconciliation, tuple[SpeakerVoice, ...]]:
        """What the speakers sound like, each with the known name whose voice is alike; and the transcript, with a note
        if they cannot be compared, for which no job fails. Nothing without the tenant's consent, and of a job whose
        personal data are hidden: a voice tells who speaks, and so does a name that is suggested for it.

        Raises:
            Unavailable: The database is away.
        """
        if job.is_redacted or not (await self.accounts.settings_of(job.tenant_id)).voice_prints:
            return decided, ()
        try:
            heard = await self._heard(job, decided, progress)
        except Unavailable:
            raise
        except ConcordError as exc:
            log.warning("the voices of %s are not compared: %s", job.job_id, exc)
            return replace(decided, notes=(*decided.notes, f"{NOT_COMPARED} {exc}")), ()
        if not heard:
            return decided, ()
        models = sorted({one.model for one in heard.values()})
        prints = self.database.acting_as(job.tenant_id)
        known = [row for model in models for row in await prints.named_voices(job.tenant_id, model)]
        others = [(row.label, VoicePrint(row.model, row.vector, row.seconds)) for row in known]
        found = await asyncio.to_thread(likenesses, heard, others)
        return decided, tuple(_row(job, name, one, found.get(name)) for name, one in sorted(heard.items()))

    async def _heard(
        self, job: Job, decided: Reconciliation, progress: Callable[[float], None]
    ) -> dict[str, VoicePrint]:
        speakers = sorted({word.speaker for word in decided.words if word.speaker is not None})
        if not speakers:
            return {}
        if self.voices is None:
            raise NotFound("no voice model is installed")
        if job.original_uri is None:
            raise NotFound("the recording is not kept")
        by_speaker = {name: speech(decided, name) for name in speakers}
        async with self.store.local_path(job.original_uri) as audio:
            return await self.voices.prints(audio, by_speaker, progress)


def _row(job: Job, speaker: str, heard: VoicePrint, likeness: Likeness | None) -> SpeakerVoice:
    return SpeakerVoice(
        **run_fields(job),
        speaker=speaker,
        label=speaker,
        model=heard.model,
        vector=heard.vector,
        seconds=heard.seconds,
        suggested=likeness.name if likeness else None,
        similarity=likeness.similarity if likeness else None,
    )


#: How a note begins that says why.
NOT_COMPARED: Final = "Voices are not compared with those of earlier recordings:"

#: Why a recording's speakers cannot be told apart.
NO_VOICES = (
    "options.diarize: the recording has not a speaker on each channel, no recognizer has told speakers apart, and no "
    "voice model is installed. Leave the option out, or have an operator run `make install` (the extra `local` has one)"
)


def speech(decided: Reconciliation, speaker: str | None = None) -> list[tuple[int, int]]:
    """When the words of a transcript are said, in ms; or those of one speaker."""
    return [
        (word.start_ms, word.end_ms)
        for word in decided.words
        if word.start_ms is not None and word.end_ms is not None and word.end_ms > word.start_ms
        if speaker is None or word.speaker == speaker
    ]
