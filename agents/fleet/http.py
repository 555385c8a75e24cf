"""The HTTP server of a worker: its socket, health, metrics, and the API."""

from __future__ import annotations

import contextlib
import logging
import socket

from aiohttp import web
from prometheus_client import generate_latest

from agents.fleet.file_limit import raise_file_limit
from agents.fleet.fleet import Fleet
from agents.fleet.recognizers import callback_tokens
from agents.fleet.settings import Settings
from agents.fleet.webhooks import webhook_resources
from schemas.errors import SettingsError
from web.app import make_app
from web.auth.api_keys import ApiKeys
from web.connections.bounded_site import BoundedSite
from web.connections.bounds import Bounds
from web.resources.callbacks import Callbacks
from web.resources.deletions import Deletions
from web.route import Resource

log = logging.getLogger(__name__)


def listen(settings: Settings, *, must: bool) -> socket.socket:
    """The HTTP socket, bound before anything else is started. If the address is taken, a worker that need not serve the
    API (`must` is false) binds any free port.

    Raises:
        SettingsError: The address of a worker that must serve the API cannot be bound.
    """
    address = (settings.http_host, settings.http_port)
    try:
        return socket.create_server(address, reuse_port=False)
    except OSError as exc:
        if must:
            hint = "set CONCORD_HTTP=host:port (port 0: any that is free)"
            raise SettingsError(f"CONCORD_HTTP: cannot listen on {settings.http} ({exc.strerror}); {hint}") from exc
        return socket.create_server((settings.http_host, 0))


def url_of(settings: Settings, listening: socket.socket) -> str:
    """The URL of this worker's HTTP server, without a path."""
    host = settings.http_host if settings.http_host != "0.0.0.0" else socket.gethostname()  # noqa: S104 - a comparison
    return f"http://{host}:{listening.getsockname()[1]}"


async def serve_http(fleet: Fleet, listening: socket.socket, stack: contextlib.AsyncExitStack) -> None:
    """Serve health, metrics and the API, in which a `track` worker answers from its table, until `stack` is closed."""
    secret = fleet.settings.api_keys
    bounds = Bounds.within(fleet.settings.http_connections, raise_file_limit())
    service = make_app(
        live=fleet.table,
        reader=fleet.reader,
        store=fleet.store,
        metrics=lambda: generate_latest(fleet.metrics.registry),
        health=fleet.health,
        keys=ApiKeys.parse(secret.get_secret_value() if secret else None),
        feeds=fleet.feeds,
        resources=_resources(fleet),
        bounds=bounds,
    )
    # A handler is cancelled when its client disconnects, which ends its queries and downloads.
    runner = web.AppRunner(service, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await BoundedSite(runner, listening, bounds).start()
    log.info("HTTP on %s", fleet.url)


def _resources(fleet: Fleet) -> list[Resource]:
    """What a worker serves besides the standard resources."""
    resources: list[Resource] = [*webhook_resources(fleet), Deletions(fleet.reader, fleet.database)]
    if tokens := callback_tokens(fleet.settings):
        resources.append(Callbacks(fleet.database, tokens))
    return resources
