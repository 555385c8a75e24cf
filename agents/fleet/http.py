"""The HTTP server of a worker: its socket, health, metrics, and the API."""

from __future__ import annotations

import contextlib
import logging
import socket
from functools import partial

from aiohttp import web
from prometheus_client import generate_latest

from agents.corrections.editor import AT_ONCE, OF_TENANT, Editor
from agents.fleet.api.uploads import upload_resources
from agents.fleet.conversations import conversation_resources
from agents.fleet.fleet import Fleet
from agents.fleet.process.file_limit import raise_file_limit
from agents.fleet.recognizers import callback_tokens
from agents.fleet.search.serving import search_resources
from agents.fleet.sections.http import address_of
from agents.fleet.settings import Settings, account_defaults
from agents.fleet.webhooks import webhook_resources
from agents.reports.templates import check as check_template
from agents.upkeep.mail_requests import MailRequests
from schemas.errors import SettingsError
from sinks.accounts import Accounts
from sinks.fair_slots import FairSlots
from sinks.postgres.accounts.notices import listen_for_changes
from sinks.postgres.database import Postgres
from sinks.postgres.reading.changes import PostgresChanges
from sinks.postgres.reading.reports import PostgresReports
from sinks.postgres.reading.summaries import PostgresSummaryItems
from web.app import make_app
from web.auth.access import PUBLIC
from web.auth.api_keys import ApiKeys
from web.connections.bounded_site import BoundedSite
from web.connections.bounds import Bounds
from web.connections.caller_limit import CallerLimit
from web.endpoint import Gate
from web.limits.rate_limits import RateLimits
from web.limits.usage import UsageCounter
from web.live.tenant_feed import TenantFeeds
from web.middleware.access_log import open_access_log
from web.resources.accounts.audit import AccountAudit
from web.resources.accounts.keys import KeyManagement
from web.resources.accounts.settings import TenantSettings
from web.resources.callbacks import Callbacks
from web.resources.corrections.edits import Edits
from web.resources.corrections.review import ReviewQueue
from web.resources.corrections.voices import Voices
from web.resources.deletions import Deletions
from web.resources.exports.mail import JobMail
from web.resources.metrics import Metrics
from web.resources.reports.audit import AuditTrail
from web.resources.reports.metrics import JobMetrics
from web.resources.reports.stats import TenantStats
from web.resources.reports.tenant_events import TenantEvents
from web.resources.reports.usage import TenantUsage
from web.resources.schedules import TenantSchedules
from web.resources.summaries.items import SummaryItemLists
from web.resources.summaries.summary import JobSummary
from web.route import Resource
from web.server import ServerOptions, build_application

log = logging.getLogger(__name__)

#: Event streams of whole tenants that a worker has open at once; each may have 5,000 statuses waiting.
TENANT_STREAMS = 256


def listen(settings: Settings, *, must: bool) -> socket.socket:
    """The HTTP socket, bound before anything else is started. If the address is taken, a worker that need not serve the
    API (`must` is false) binds any free port. Where it is shared, all workers that share it bind it.

    Raises:
        SettingsError: The address of a worker that must serve the API cannot be bound.
    """
    address = (settings.http_host, settings.http_port)
    try:
        return socket.create_server(address, reuse_port=settings.http_shared)
    except OSError as exc:
        if must:
            hint = "set CONCORD_HTTP=host:port (port 0: any that is free)"
            raise SettingsError(f"CONCORD_HTTP: cannot listen on {settings.http} ({exc.strerror}); {hint}") from exc
        return socket.create_server((settings.http_host, 0))


def url_of(settings: Settings, listening: socket.socket) -> str:
    """The URL of this worker's HTTP server, without a path."""
    host = settings.http_host if settings.http_host != "0.0.0.0" else socket.gethostname()  # noqa: S104 - a comparison
    return f"http://{host}:{listening.getsockname()[1]}"


def open_accounts(fleet: Fleet, reading: Postgres, dsn: str) -> None:
    """Keys, settings and places in queues for requests and stages, and the counting of requests. Look-ups go over the
    connections for HTTP, so that no stage waits for them, nor they for a stage.
    """
    settings = fleet.settings
    defaults = account_defaults(settings)
    fleet.accounts, fleet.queue = Accounts(reading, defaults), reading
    fleet.usage = UsageCounter(fleet.database)
    fleet.background["changes of keys and settings"] = partial(listen_for_changes, dsn, fleet.accounts.changed)
    fleet.background["counting requests"] = fleet.usage.run


async def serve_http(fleet: Fleet, listening: socket.socket, stack: contextlib.AsyncExitStack) -> None:
    """Serve health, metrics and the API, in which a `track` worker answers from its table, until `stack` is closed."""
    secret = fleet.settings.api_keys
    accounts = fleet.accounts

    def collect() -> bytes:
        return generate_latest(fleet.metrics.registry)

    bounds = Bounds.within(fleet.settings.http_connections, raise_file_limit())
    editor = Editor(fleet.reader, fleet.store, fleet.database, FairSlots(AT_ONCE, OF_TENANT))
    service = make_app(
        live=fleet.table,
        reader=fleet.reader,
        store=fleet.store,
        metrics=collect,
        health=fleet.health,
        keys=ApiKeys.parse(secret.get_secret_value() if secret else None, accounts),
        feeds=fleet.feeds,
        resources=_resources(fleet, bounds, stack, editor),
        bounds=bounds,
        limits=RateLimits(accounts),
        usage=fleet.usage,
        options=_options(fleet.settings),
        idempotency=fleet.database,
        queue=fleet.queue,
        earlier=editor.earlier,
        words=editor.words,
    )
    await _serve(service, listening, bounds, stack)
    log.info("HTTP on %s", fleet.url)
    if fleet.settings.metrics:
        alone = build_application([Metrics(collect, access=PUBLIC)], Gate(ApiKeys()), console=False)
        socket_of_metrics = stack.enter_context(_listen_for_metrics(fleet.settings.metrics))
        await _serve(alone, socket_of_metrics, Bounds(connections=64, per_client=32), stack)


async def _serve(
    service: web.Application, listening: socket.socket, bounds: Bounds, stack: contextlib.AsyncExitStack
) -> None:
    # A handler is cancelled when its client disconnects, which ends its queries and downloads.
    runner = web.AppRunner(service, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await BoundedSite(runner, listening, bounds).start()


def _options(settings: Settings) -> ServerOptions:
    """Raises SettingsError."""
    try:
        return ServerOptions(settings.cors_origins, open_access_log(settings.access_log))
    except OSError as exc:
        raise SettingsError(f"CONCORD_ACCESS_LOG: cannot write {settings.access_log} ({exc.strerror})") from exc


def _listen_for_metrics(address: str) -> socket.socket:
    """Raises SettingsError."""
    try:
        return socket.create_server(address_of(address), reuse_port=False)
    except OSError as exc:
        hint = "workers on one machine need one each (port 0: any that is free)"
        raise SettingsError(f"CONCORD_METRICS: cannot listen on {address} ({exc.strerror}); {hint}") from exc


def _resources(fleet: Fleet, bounds: Bounds, stack: contextlib.AsyncExitStack, editor: Editor) -> list[Resource]:
    """What a worker serves besides the standard resources."""
    changed, reports, prices = fleet.accounts.changed, PostgresReports(fleet.reader), fleet.settings.prices
    resources: list[Resource] = [
        *upload_resources(fleet, bounds, stack),
        *webhook_resources(fleet),
        *conversation_resources(fleet, bounds),
        *search_resources(fleet, stack),
        KeyManagement(fleet.database, changed),
        TenantSettings(fleet.database, fleet.accounts, changed, check_template),
        Edits(fleet.reader, editor),
        ReviewQueue(fleet.reader, fleet.database, editor),
        Voices(fleet.database),
        Deletions(fleet.reader, fleet.database),
        TenantSchedules(fleet.database, fleet.settings.kinds, mails=fleet.settings.smtp_host is not None),
        JobMail(fleet.reader, fleet.database, _mail_requests(fleet)),
        JobMetrics(fleet.reader, reports, prices),
        AuditTrail(fleet.reader, reports),
        AccountAudit(reports),
        TenantStats(reports),
        TenantUsage(reports, prices),
        JobSummary(fleet.reader, fleet.store),
        SummaryItemLists(PostgresSummaryItems(fleet.reader)),
        _tenant_events(fleet),
    ]
    if tokens := callback_tokens(fleet.settings):
        resources.append(Callbacks(fleet.database, tokens))
    return resources


def _mail_requests(fleet: Fleet) -> MailRequests | None:
    sender = fleet.settings.smtp_from
    return MailRequests(fleet.database, sender) if sender and "mail" in fleet.settings.enrichments else None


def _tenant_events(fleet: Fleet) -> TenantEvents:
    changes = PostgresChanges(fleet.reader)
    feeds = TenantFeeds(changes)
    fleet.feeds.followers.append(feeds)
    return TenantEvents(changes, feeds, CallerLimit("event streams of tenants", TENANT_STREAMS))
