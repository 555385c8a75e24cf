"""`/tenants/{tenant}/events`: the statuses of all of a tenant's jobs as server-sent events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from web.live.tenant_feed import id_of, moment_of
from web.parameters import OfTenant
from web.resources.jobs.events import RETRY, encode_event
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from schemas.events.job import JobStatus
    from sinks.ports.reading.changes import Changes
    from web.connections.caller_limit import CallerLimit
    from web.live.tenant_feed import TenantFeeds


Request = ApiRequest[OfTenant, None]


class TenantEvents:
    """The event stream of a tenant."""

    def __init__(self, changes: Changes, feeds: TenantFeeds, streams: CallerLimit) -> None:
        self._changes, self._feeds, self._streams = changes, feeds, streams

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/tenants/{tenant}/events",
                operation_id="tenants_tenant_events",
                summary="The statuses of all of a tenant's jobs as they change, from now or from `Last-Event-ID` on",
                handler=self.events,
                parameters=OfTenant,
                responses={
                    200: ResponseSpec(
                        "events named `status`, each with a job; a status may come twice after a reconnection, and "
                        "`reset` tells that there were too many: list the jobs anew",
                        media_type="text/event-stream",
                    ),
                },
                is_streamed=True,
                allow_head=False,
            )
        ]

    async def events(self, request: Request) -> web.StreamResponse:
        """What was missed since `Last-Event-ID`, and then every newer status."""
        tenant = request.parameters.tenant
        with self._streams.acquire(request.caller):
            now = await self._changes.now()
            async with self._feeds.subscribe(tenant, now) as newer:
                last = moment_of(request.http.headers.get("Last-Event-ID", "")) or now
                missed = await self._feeds.missed(tenant, last) if last < now else []
                stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
                await stream.prepare(request.http)
                try:
                    newest = await self._begin(request, stream, missed, now if missed is None else last)
                    async for status in newer:
                        newest = max(newest, status.updated_at) if status else newest
                        await stream.write(_event(status, newest, request))
                except ConnectionError:
                    pass  # the client has disconnected
                return stream

    async def _begin(
        self, request: Request, stream: web.StreamResponse, missed: Iterable[JobStatus] | None, newest: datetime
    ) -> datetime:
        """Send what was missed; returns the time of the newest that the client has."""
        if missed is None:
            await stream.write(RETRY + b"id: %d\nevent: reset\ndata: {}\n\n" % id_of(newest))
            return newest
        await stream.write(RETRY + b"id: %d\n: connected\n\n" % id_of(newest))
        for status in missed:
            newest = max(newest, status.updated_at)
            await stream.write(_event(status, newest, request))
        return newest


def _event(status: JobStatus | None, newest: datetime, request: Request) -> bytes:
    return encode_event(status, id=id_of(newest), operator=request.caller.is_operator)
