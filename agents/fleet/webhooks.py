"""The worker's part of webhooks: the sender of the role `webhooks`."""

from __future__ import annotations

from agents.fleet.fleet import Fleet
from agents.webhooks.poster import Poster
from agents.webhooks.sender import Sender


async def send_webhooks(fleet: Fleet) -> None:
    """Send what is due, until cancelled."""
    poster = Poster(fleet.settings.allow_hosts)
    try:
        await Sender(fleet.database, poster, lambda result: fleet.metrics.webhook_attempts.labels(result).inc()).run()
    finally:
        await poster.close()
