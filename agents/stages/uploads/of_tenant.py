"""What a tenant has set for its recordings."""

from __future__ import annotations

from typing import Any

from schemas.events.audio import AudioUploaded
from sinks.ports.accounts.settings import EffectiveSettings


async def with_defaults(
    upload: AudioUploaded, accounts: EffectiveSettings | None, enrichments: tuple[str, ...] = ()
) -> AudioUploaded:
    """The upload with its tenant's choice where it makes none, as far as the installation makes such enrichments."""
    if accounts is None:
        return upload
    settings, options = await accounts.settings_of(upload.tenant_id), upload.options
    changes: dict[str, Any] = {}
    if options.enrich is None and settings.enrich is False and not options.mail_to:
        changes["enrich"] = False
    is_enriched = changes.get("enrich", options.enrich) is not False
    if options.mail_to is None and settings.mail_to and "mail" in enrichments and is_enriched:
        changes["mail_to"] = settings.mail_to
    if options.redact_pii is None and settings.redact_pii is not None:
        changes["redact_pii"] = settings.redact_pii
    if options.redact is None and changes.get("redact_pii", options.redact_pii):
        changes["redact"] = settings.redact or "keep"
    return upload.model_copy(update={"options": options.model_copy(update=changes)}) if changes else upload
