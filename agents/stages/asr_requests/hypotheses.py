"""Stores the hypotheses of recognizers, one blob a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from agents.runtime.failpoints import passing
from agents.stages.asr_requests.request_event import RequestEvent
from schemas import blob_names
from schemas.words import Hypothesis, adapter
from sinks.ports.blobs import Store


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """The hypotheses in a blob store. Every method raises `Unavailable` when the store is away."""

    store: Store

    def uri(self, event: RequestEvent) -> str:
        """Where the request's hypothesis is stored, or will be."""
        return self.store.uri(_name(event))

    async def stored(self, event: RequestEvent) -> Hypothesis | None:
        """The request's hypothesis, or None if it is not stored yet."""
        if await self.store.stat(self.uri(event)) is None:
            return None
        return cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(self.uri(event))))

    async def save(self, event: RequestEvent, hypothesis: Hypothesis) -> str:
        """Store the request's hypothesis, durably; its URI."""
        blob = await self.store.put(_name(event), adapter(Hypothesis).dump_json(hypothesis), "application/json")
        passing("transcribe.stored")
        return blob.uri


def _name(event: RequestEvent) -> str:
    restricted = bool(event.data.options.redact_pii)
    return blob_names.hypothesis(*event.run, event.data.provider, restricted=restricted)
