"""Deletes what recognizers keep of requests, with the keys of this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.asr.protocols import ErasingRecognizer, Recognizer
from agents.fleet.recognizers import open_recognizer
from agents.fleet.settings import Settings


@dataclass
class ProviderCopies:
    """`agents.upkeep.deleting.Copies` for the configured recognizers, each opened when it is first needed."""

    settings: Settings
    _opened: dict[str, Recognizer] = field(default_factory=dict)

    async def erase(self, provider: str, copy: Mapping[str, Any]) -> str | None:
        """Delete what this recognizer keeps of a request; the reason if something stays, else None.

        Raises:
            SettingsError: This process does not know the recognizer any more, or has no key for it.
            Transient, ProviderError: It could not be deleted now.
        """
        if provider not in self._opened:
            self._opened[provider] = open_recognizer(provider, self.settings)
        recognizer = self._opened[provider]
        if not isinstance(recognizer, ErasingRecognizer):
            return "it has no way to delete a request, and keeps it as its terms say"
        if "id" not in copy and "url" not in copy:
            return "it may have a request whose answer was lost, and of which only the recognizer knows"
        return await recognizer.erase(copy.get("id"), copy.get("url"))

    async def close(self) -> None:
        """Close what was opened."""
        for recognizer in self._opened.values():
            await recognizer.close()
