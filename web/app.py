"""The HTTP service of a worker: its resources, with what each of them answers from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from web.connections.bounds import Bounds
from web.connections.caller_limit import CallerLimit
from web.endpoint import Gate
from web.limits.rate_limits import RateLimits
from web.live.status_feed import StatusFeeds
from web.live.statuses import Statuses
from web.resources.exports.report import JobReport
from web.resources.health import HealthProbes
from web.resources.jobs.audio import JobAudio
from web.resources.jobs.events import JobEvents
from web.resources.jobs.listing import TenantJobs
from web.resources.jobs.status import JobStatuses
from web.resources.jobs.transcripts import Transcripts
from web.resources.metrics import Metrics
from web.resources.problems.pages import ProblemPages
from web.resources.tenants import TenantList
from web.server import ServerOptions, build_application

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp import web

    from sinks.ports.api.idempotency import IdempotencyKeys
    from sinks.ports.blobs import Store
    from sinks.ports.providers.slots import Slots
    from sinks.ports.reads import Reads
    from sinks.ports.tenants import PerTenant
    from web.auth.api_keys import ApiKeys
    from web.limits.usage import UsageCounter
    from web.ports import Health, LiveJobs
    from web.resources.exports.export import WordsOf
    from web.resources.jobs.transcripts import Earlier
    from web.route import Resource


def make_app(
    *,
    live: LiveJobs,
    reader: Reads,
    store: Store,
    metrics: Callable[[], bytes | Awaitable[bytes]],
    health: Callable[[], Awaitable[Health]],
    keys: ApiKeys,
    earlier: Earlier,
    words: WordsOf,
    feeds: StatusFeeds | None = None,
    resources: Iterable[Resource] = (),
    bounds: Bounds | None = None,
    limits: RateLimits | None = None,
    usage: UsageCounter | None = None,
    options: ServerOptions | None = None,
    idempotency: PerTenant[IdempotencyKeys] | None = None,
    queue: Slots | None = None,
) -> web.Application:
    """The service, to be run by an aiohttp runner.

    `feeds` is where the owner of `live` publishes every newer status, in the service's event loop; without it, event
    streams query the database often. `health` is public: nothing secret may be in it. `resources` are served besides
    the standard ones. `bounds` are those of the connections over which the service is called. `limits` limits requests,
    `usage` counts them; without them, neither is done. `earlier` shows earlier versions of transcripts, `words` reads
    the words of one. `queue` tells the places of requests that wait for a recognizer.

    Raises:
        ValueError: two routes have the same method and path, or the same operation id; or a route takes an
            `Idempotency-Key`, and `idempotency` is None.
    """
    bounds, feeds = bounds or Bounds(), feeds or StatusFeeds(is_published=False)
    statuses = Statuses(live, reader)
    event_streams = CallerLimit("event streams", bounds.event_streams)
    blob_streams = CallerLimit("recordings and raw transcripts", bounds.blob_streams)
    standard: list[Resource] = [
        JobStatuses(statuses, queue),
        JobEvents(statuses, feeds, event_streams),
        Transcripts(reader, store, blob_streams, earlier, words),
        JobAudio(reader, store, blob_streams),
        JobReport(reader, store, blob_streams),
        TenantList(reader),
        TenantJobs(reader),
        HealthProbes(health),
        Metrics(metrics),
        ProblemPages(),
    ]
    gate = Gate(keys, limits or RateLimits(None), idempotency)
    app = build_application([*standard, *resources], gate, options or ServerOptions(), usage)
    app.on_shutdown.append(_close(feeds))
    return app


def _close(feeds: StatusFeeds) -> Callable[[web.Application], Awaitable[None]]:
    async def close(_: web.Application) -> None:
        feeds.close()

    return close
