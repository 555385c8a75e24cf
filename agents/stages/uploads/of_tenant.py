"""What a tenant has set for its recordings."""

from __future__ import annotations

from schemas.accounts.settings import AccountSettings
from schemas.events.audio import AudioUploaded
from sinks.ports.accounts.settings import EffectiveSettings


def choices(
    settings: AccountSettings, recognizers: tuple[str, ...], deadline_s: float
) -> tuple[tuple[str, ...], float]:
    """The recognizers and the deadline of a tenant's runs, from those of the installation. Recognizers that the
    installation has no more are left out; where none is left, all of the installation's hear the recording.
    """
    own = tuple(name for name in recognizers if name in (settings.recognizers or recognizers))
    return own or recognizers, settings.deadline_s or deadline_s


async def with_defaults(upload: AudioUploaded, accounts: EffectiveSettings | None) -> AudioUploaded:
    """The upload with its tenant's choice where it makes none."""
    if accounts is None or upload.options.enrich is not None:
        return upload
    if (await accounts.settings_of(upload.tenant_id)).enrich is not False:
        return upload
    return upload.model_copy(update={"options": upload.options.model_copy(update={"enrich": False})})
