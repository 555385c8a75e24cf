"""Voice prints on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.accounts.changes import voices_deleted
from schemas.corrections.rows import TranscriptEdit
from schemas.corrections.voices import STEP, NamedVoice, SpeakerVoice, VoiceEvent, VoiceSuggestion
from schemas.ids import Whose
from schemas.jobs.rows import AuditEntry, run_fields
from sinks.ports.corrections.voices import MAX_COMPARED, MAX_HISTORY, MAX_VOICES, VoicePrints, VoiceSuggestions
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import AUDIT_LOG, VOICE_PRINTS


class PostgresVoicePrints(PostgresPort, VoicePrints):
    """`VoicePrints` on a pool."""

    async def named_voices(self, tenant: str, model: str, limit: int = MAX_COMPARED) -> list[SpeakerVoice]:
        """The rows that have a name."""
        return list(map(VOICE_PRINTS.read, await self._fetch("named_voices", tenant, model, limit)))

    async def voices(self, tenant: str, limit: int = MAX_VOICES) -> list[NamedVoice]:
        """The names that have a print."""
        return [NamedVoice(**row) for row in await self._fetch("list_voices", tenant, limit)]

    async def voice_history(self, tenant: str, limit: int = MAX_HISTORY) -> list[VoiceEvent]:
        """What was done with them."""
        return [VoiceEvent(**row) for row in await self._fetch("read_voice_history", tenant, limit)]

    async def delete_voices(self, tenant: str, name: str | None, by: str) -> int:
        """Delete one print, or all that is kept."""
        async with self._transaction() as db:
            # The lock that steps and changes of settings take, too: their rows are locked in one order.
            await db.fetch(SQL["lock_consents"], [tenant])
            rows = await db.fetch(SQL["delete_voices"], tenant, name)
            named = sum(map(bool, (row["was_named"] for row in rows)))
            if named or name is None:
                await db.execute(SQL["insert_audit"], *AUDIT_LOG.arguments([voices_deleted(tenant, name, by)]))
            return named


class VoiceReads(VoiceSuggestions):
    """A part of `sinks.postgres.reader.Reader`."""

    async def read(self, whose: Whose, name: str, *arguments: Any) -> list[Any]:
        """See `Reader`."""
        raise NotImplementedError

    async def voice_suggestions(self, tenant: str, job_id: str, run: int) -> list[VoiceSuggestion]:
        """Names for speakers of a run."""
        rows = await self.read(tenant, "read_voice_suggestions", tenant, job_id, run)
        return [VoiceSuggestion(**row) for row in rows]


async def write_voices(db: Any, voices: Sequence[SpeakerVoice]) -> None:
    """Write what the speakers of runs sound like, of tenants that allow it at this moment."""
    if not voices:
        return
    tenants = sorted({voice.tenant_id for voice in voices})
    allowed = {row["tenant_id"] for row in await db.fetch(SQL["lock_consents"], tenants)}
    kept = [voice for voice in voices if voice.tenant_id in allowed]
    if kept:
        runs = sorted({(voice.tenant_id, voice.job_id, voice.run) for voice in kept})
        await db.execute(SQL["drop_earlier_voices"], *by_column(runs, 3))
        await db.execute(SQL["insert_voice_prints"], *VOICE_PRINTS.arguments(kept))


async def rename_voices(db: Any, edit: TranscriptEdit) -> None:
    """Call the speakers of a run as the edit does, one after the other, so that names can be exchanged."""
    version, named = edit.version, False
    run = (version.tenant_id, version.job_id, version.run)
    for one in edit.renamed:
        rows = await db.fetch(SQL["rename_voice"], *run, one.speaker, one.to, one.is_name, version.author)
        named = named or (one.is_name and bool(rows))
    if named:
        entry = AuditEntry(**run_fields(version), step=STEP, what="named", author=version.author)
        await db.execute(SQL["insert_audit"], *AUDIT_LOG.arguments([entry]))
