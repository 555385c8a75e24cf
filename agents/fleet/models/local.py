"""What models on this machine need, checked before anything is started with them."""

from __future__ import annotations

from collections.abc import Iterable

from agents.asr.whisper_models import Devices, check_devices, checked_folder
from agents.fleet.settings import Settings
from schemas.errors import ProviderError, SettingsError


def devices(settings: Settings) -> Devices:
    """Where `whisper-*` computes."""
    return Devices(
        settings.whisper_device, settings.whisper_compute_type, settings.whisper_devices, settings.whisper_processes
    )


def check_local(settings: Settings, roles: Iterable[str]) -> None:
    """Check what an operator has named for the recognizers of these roles: folders of models, devices, their types.

    May take seconds. Raises `SettingsError` with what to do.
    """
    names = [role.removeprefix("transcribe.") for role in roles]
    if settings.tiebreaker and "reconcile" in names:
        names.append(settings.tiebreaker)
    try:
        for name, folder in settings.whisper_models.items():
            if name in names:
                checked_folder(folder)
    except ProviderError as exc:
        raise SettingsError(f"WHISPER_MODELS: {exc}") from exc
    if any(name.startswith("whisper-") for name in names):
        try:
            check_devices(devices(settings))
        except ProviderError as exc:
            raise SettingsError(str(exc)) from exc
