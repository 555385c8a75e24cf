"""Recognizers outside of Concord, `webhook-<name>`: nothing is sent to them, their answers come by webhook.

Such a service learns of recordings by itself: it reads `audio.uploaded` or `job.status`, or is told by whoever uploads.
Its answer (`web.resources.webhooks.received`) ends the request; without one, the run's deadline does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agents.asr.protocols import Audio, Listed, Pending, Request

#: Seconds between two looks, which only keep the request alive: an answer ends it without one.
LOOK_S: Final = 3600.0

#: Names of these recognizers begin with this.
PREFIX: Final = "webhook-"


class Outside:
    """A `RemoteRecognizer` that waits."""

    settles_s, remembers_s = 0.0, float("inf")

    def __init__(self, name: str) -> None:
        self.name = name

    async def submit(self, request: Request, audio: Audio) -> str:
        """See `RemoteRecognizer`; the marker stands for the request."""
        del audio
        return request.marker

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """See `RemoteRecognizer`: every request is there."""
        del within_s, proof
        return request.marker

    async def listed(self, since: datetime) -> list[Listed]:
        """See `RemoteRecognizer`."""
        del since
        return []

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """See `RemoteRecognizer`."""
        return listed.marker == request.marker

    async def poll(self, provider_id: str) -> Pending:
        """See `RemoteRecognizer`."""
        del provider_id
        return Pending(LOOK_S)

    async def close(self) -> None:
        """See `RemoteRecognizer`."""
