"""`/jobs/{id}/events`: the statuses of a job as server-sent events, until its run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from schemas.errors import NotFound
from schemas.jobs.rows import TERMINAL
from web.resources.jobs.job_view import job_json
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.events.job import JobStatus
    from web.connections.caller_limit import CallerLimit
    from web.live.status_feed import StatusFeed, StatusFeeds
    from web.live.statuses import CurrentStatus, Statuses

Request = ApiRequest[JobSelector, None]

#: Milliseconds after which a client connects again. The first line of a stream's first event.
RETRY: Final = b"retry: 2000\n"


class JobEvents:
    """The event stream of a job."""

    def __init__(self, statuses: Statuses, feeds: StatusFeeds, streams: CallerLimit) -> None:
        self._statuses, self._feeds, self._streams = statuses, feeds, streams

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/events",
                operation_id="jobs_id_events",
                summary="The statuses of a job as they come, until its run ends",
                handler=self.events,
                parameters=JobSelector,
                responses={
                    200: ResponseSpec("events named `status`, each with a job", media_type="text/event-stream"),
                    204: ResponseSpec("the run has ended, and `Last-Event-ID` is its last status: do not reconnect"),
                    409: ResponseSpec(AMBIGUOUS),
                },
                is_streamed=True,
                allow_head=False,
            )
        ]

    async def events(self, request: Request) -> web.StreamResponse:
        """The current status, and a status whenever there is a newer one."""
        after = _last_event_id(request.http.headers)
        with self._streams.acquire(request.caller):
            first = await self._statuses.newest(*request.parameters.scope(request.caller))
            if first.status.version == after and first.status.status in TERMINAL:
                return web.Response(status=204)  # an EventSource does not reconnect after 204
            with self._feeds.subscribe(first, self._statuses.newer) as feed:
                return await self._stream(request, feed, first, after)

    async def _stream(
        self, request: Request, feed: StatusFeed, first: CurrentStatus, after: int | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request.http)
        try:
            begin = RETRY
            async for status in feed.statuses(first, after):
                await response.write(begin + encode_event(status, operator=request.caller.is_operator))
                begin = b""
        except NotFound:
            await response.write(b"event: gone\ndata: {}\n\n")
        except ConnectionError:
            pass  # the client has disconnected
        return response


def _last_event_id(headers: Mapping[str, str]) -> int | None:
    """The version of the last status that the client has received; None if it sends none, or no number."""
    text = headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def encode_event(status: JobStatus | None, *, id: int | None = None, operator: bool = False) -> bytes:
    """A status as a server-sent event, whose id is its version unless another is given; None as a comment that keeps
    the connection open.
    """
    if status is None:
        return b": still here\n\n"
    body = job_json(status, operator=operator)
    return b"id: %d\nevent: status\ndata: %b\n\n" % (status.version if id is None else id, body)
