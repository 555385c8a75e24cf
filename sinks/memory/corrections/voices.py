"""The double of voice prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from schemas.accounts.changes import NO_JOB, voices_deleted
from schemas.corrections.rows import TranscriptEdit
from schemas.corrections.voices import STEP, NamedVoice, SpeakerVoice, VoiceEvent, VoiceSuggestion
from schemas.jobs.rows import AuditEntry, run_fields
from sinks.memory.accounts.settings import MemorySettings
from sinks.ports.corrections.voices import MAX_COMPARED, MAX_HISTORY, MAX_VOICES, VoicePrints

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class MemoryVoicePrints(MemorySettings, VoicePrints):
    """`VoicePrints` in this process, and what steps do with them."""

    #: By (tenant, job, run, speaker).
    speaker_voices: dict[tuple[str, str, int, str], SpeakerVoice] = field(default_factory=dict)

    async def named_voices(self, tenant: str, model: str, limit: int = MAX_COMPARED) -> list[SpeakerVoice]:
        """The rows that have a name."""
        rows = [row for _, row in sorted(self._named(tenant).items()) if row.model == model]
        return sorted(rows, key=_named_at, reverse=True)[:limit]

    async def voices(self, tenant: str, limit: int = MAX_VOICES) -> list[NamedVoice]:
        """The names that have a print."""
        by_name: dict[str, list[SpeakerVoice]] = {}
        for row in self._named(tenant).values():
            by_name.setdefault(row.label, []).append(row)
        return [self._listed(tenant, name, rows) for name, rows in sorted(by_name.items())][:limit]

    def _listed(self, tenant: str, name: str, rows: list[SpeakerVoice]) -> NamedVoice:
        named = sorted(map(_named_at, rows))
        recognised = [
            row.created_at
            for row in self.speaker_voices.values()
            if row.tenant_id == tenant and row.suggested == name and row.created_at and row.created_at > named[0]
        ]
        jobs = {row.job_id for row in rows}
        seconds = sum(row.seconds for row in rows)
        return NamedVoice(name, len(jobs), seconds, named[0], named[-1], max(recognised, default=None))

    async def voice_history(self, tenant: str, limit: int = MAX_HISTORY) -> list[VoiceEvent]:
        """What was done with them."""
        entries = [
            VoiceEvent(at, entry.what, entry.author)
            for entry, at in self.audit.values()
            if (entry.tenant_id, entry.job_id, entry.step) == (tenant, NO_JOB, STEP)
        ]
        return entries[::-1][:limit]

    async def delete_voices(self, tenant: str, name: str | None, by: str) -> int:
        """Delete one print, or all that is kept."""
        rows = {key: row for key, row in self.speaker_voices.items() if row.tenant_id == tenant}
        if name is not None:
            rows = {key: row for key, row in rows.items() if name == (row.label if row.named_at else row.suggested)}
        named = sum(self.speaker_voices.pop(key).named_at is not None for key in rows)
        if named or name is None:
            self._note(voices_deleted(tenant, name, by))
        return named

    def suggestions_of(self, tenant: str, job_id: str, run: int) -> list[VoiceSuggestion]:
        """Names for speakers of a run."""
        found = [
            VoiceSuggestion(row.label, row.suggested, row.similarity)
            for key, row in self.speaker_voices.items()
            if key[:3] == (tenant, job_id, run) and row.suggested and row.similarity is not None
            if row.named_at is None and row.suggested != row.label and self._was_known(row)
        ]
        return sorted(found, key=lambda one: (one.speaker, -one.similarity))

    def _was_known(self, row: SpeakerVoice) -> bool:
        """Whether there is a print of the suggested name that was there before."""
        named = [one for one in self._named(row.tenant_id).values() if one.label == row.suggested]
        return any(row.created_at is not None and _named_at(one) <= row.created_at for one in named)

    def _named(self, tenant: str) -> dict[tuple[str, str, int, str], SpeakerVoice]:
        rows = self.speaker_voices.items()
        return {key: row for key, row in rows if row.tenant_id == tenant and row.named_at is not None}

    def _keep_voices(self, voices: Iterable[SpeakerVoice]) -> None:
        for voice in voices:
            settings = self._settings.get(voice.tenant_id)
            if settings is None or not settings.settings.voice_prints:
                continue
            for key, row in list(self.speaker_voices.items()):
                if key[:2] == (voice.tenant_id, voice.job_id) and row.run < voice.run and row.named_at is None:
                    del self.speaker_voices[key]
            key = (voice.tenant_id, voice.job_id, voice.run, voice.speaker)
            self.speaker_voices.setdefault(key, replace(voice, created_at=self.clock()))

    def _rename_voices(self, edit: TranscriptEdit) -> None:
        version, named = edit.version, False
        run = (version.tenant_id, version.job_id, version.run)
        for one in edit.renamed:
            for key, row in self.speaker_voices.items():
                if key[:3] == run and row.label == one.speaker != one.to:
                    at, by = (self.clock(), version.author) if one.is_name else (None, None)
                    self.speaker_voices[key] = replace(row, label=one.to, named_at=at, named_by=by)
                    named = named or one.is_name
        if named:
            self._note(AuditEntry(**run_fields(version), step=STEP, what="named", author=version.author))

    def _follow_consent(self, tenant: str, *, before: bool, after: bool, by: str) -> None:
        if not after:
            for key in [key for key in self.speaker_voices if key[0] == tenant]:
                del self.speaker_voices[key]
        super()._follow_consent(tenant, before=before, after=after, by=by)


def _named_at(row: SpeakerVoice) -> datetime:
    return row.named_at or _NEVER
