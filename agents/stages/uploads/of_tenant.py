"""What a tenant has set for its recordings."""

from __future__ import annotations

from schemas.events.audio import AudioUploaded
from sinks.ports.accounts.settings import EffectiveSettings


async def with_defaults(upload: AudioUploaded, accounts: EffectiveSettings | None) -> AudioUploaded:
    """The upload with its tenant's choice where it makes none."""
    if accounts is None or upload.options.enrich is not None:
        return upload
    if (await accounts.settings_of(upload.tenant_id)).enrich is not False:
        return upload
    return upload.model_copy(update={"options": upload.options.model_copy(update={"enrich": False})})
