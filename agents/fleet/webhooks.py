"""The worker's part of webhooks: the sender of the role `webhooks`, and what is served over HTTP."""

from __future__ import annotations

from functools import partial

from agents.asr.outside.over_http import PREFIX
from agents.fleet.fleet import Fleet
from agents.media.source.audio_url import AllowedHosts
from agents.webhooks.poster import Poster, check_endpoint
from agents.webhooks.sender import Sender
from web.resources.webhooks.deliveries import WebhookDeliveries
from web.resources.webhooks.endpoints import Webhooks
from web.resources.webhooks.received import ReceivedTranscripts
from web.route import Resource


async def send_webhooks(fleet: Fleet) -> None:
    """Send what is due, until cancelled."""
    poster = Poster(AllowedHosts.of(fleet.settings.allow_hosts))

    def count(result: str) -> None:
        fleet.metrics.webhook_attempts.labels(result).inc()

    try:
        await Sender(fleet.database, poster, count, seals=fleet.settings.seals).run()
    finally:
        await poster.close()


def webhook_resources(fleet: Fleet) -> list[Resource]:
    """Endpoints and their history, and what outside transcription services send."""
    check_url = partial(check_endpoint, allowed=AllowedHosts.of(fleet.settings.allow_hosts))
    resources: list[Resource] = [
        Webhooks(fleet.database, fleet.database, check_url, fleet.settings.seals),
        WebhookDeliveries(fleet.database),
    ]
    outside = [(name.removeprefix(PREFIX), name) for name in fleet.settings.recognizers if name.startswith(PREFIX)]
    if outside and (secret := fleet.settings.webhook_secret) is not None:
        of = fleet.database, fleet.reader, fleet.store
        resources.append(ReceivedTranscripts(*of, secret.get_secret_value(), outside))
    return resources
