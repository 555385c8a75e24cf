"""The handlers: each takes a request, and who asks, and answers from the statuses, the database or the store."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from schemas.errors import NotFound
from schemas.jobs.rows import TERMINAL
from sinks.ports.blobs import Blob
from web import views
from web.files import from_store, send
from web.ports import Health
from web.status import exact, job_named

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from schemas.jobs.rows import Transcript
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.auth import Caller
    from web.shares import Shares
    from web.status import Answer, Statuses
    from web.status_feed import Feed, StatusFeeds

#: Seconds for which a link to a recording in object storage is good.
LINK_S: Final = 900

#: Seconds after which a probe is told that the check did not finish.
PROBE_S: Final = 3.0

_JSON: Final = "application/json"


@dataclass(frozen=True)
class Site:
    """The handlers, and what they answer from."""

    statuses: Statuses
    reads: Reads
    store: Store
    metrics: Callable[[], bytes | Awaitable[bytes]]
    health: Callable[[], Awaitable[Health]]
    feeds: StatusFeeds
    watches: Shares
    streams: Shares

    async def status(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Where a job stands."""
        answer = await self._newest(request, caller)
        return _status_response(answer, operator=caller.tenant is None)

    async def events(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Server-sent events: a status whenever there is a newer one."""
        seen = request.headers.get("Last-Event-ID", "")
        after = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 19 else None
        with self.watches.taken(caller):
            first = await self._newest(request, caller)
            if first.status.version == after and first.status.status in TERMINAL:
                return web.Response(status=204)  # to an EventSource: do not come again
            with self.feeds.following(first, self.statuses.newer) as feed:
                return await self._tell(request, feed, first, after, operator=caller.tenant is None)

    async def _tell(
        self, request: web.Request, feed: Feed, first: Answer, after: int | None, *, operator: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        try:
            async for status in feed.statuses(first, after):
                await response.write(views.event(status, operator=operator))
        except NotFound:
            await response.write(b"event: gone\ndata: {}\n\n")
        except ConnectionError:
            pass  # the watcher is gone
        return response

    async def _newest(self, request: web.Request, caller: Caller) -> Answer:
        return await self.statuses.newest(*_named(request, caller))

    async def transcript(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """What was said."""
        found = await self._transcript(request, caller)
        view = views.transcript_view(found, operator=caller.tenant is None)
        return web.Response(body=view.model_dump_json().encode(), content_type=_JSON)

    async def raw(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The whole apparatus, as reconcile stored it."""
        with self.streams.taken(caller):
            return await self._raw(request, await self._transcript(request, caller))

    async def _raw(self, request: web.Request, found: Transcript) -> web.StreamResponse:
        with from_store("the raw transcript"):
            blob = await self.store.stat(found.raw_transcript_uri)
            if blob is None:
                raise NotFound(found.raw_transcript_uri)
        return await send(request, self.store, blob, f"{found.job_id}.json")

    async def _transcript(self, request: web.Request, caller: Caller) -> Transcript:
        tenant, name = _named(request, caller)
        run = views.wanted_number(request.query, "run", views.RUNS, None)
        key = exact(tenant, name)
        transcript = await self.reads.transcript(*key, run) if key else None
        if transcript is None:
            job = await job_named(self.reads, tenant, name)
            transcript = await self.reads.transcript(*job.key, run) if job.key != key else None
            if transcript is None:
                raise NotFound(views.no_transcript(job, run))
        return transcript

    async def audio(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The recording: where object storage has it, or from here."""
        with self.streams.taken(caller):
            return await self._audio(request, caller)

    async def _audio(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        job = await job_named(self.reads, *_named(request, caller))
        stored = await self.reads.files(*job.key)
        original = next((file for file in reversed(stored) if file.kind == "original"), None)
        if original is None:
            raise NotFound(f"the recording is not stored yet; the job is {job.status}")
        with from_store("the recording"):
            url = None if request.query.get("direct") == "no" else await self.store.presigned_url(original.uri, LINK_S)
        if url is not None:
            raise web.HTTPFound(url, headers={"Cache-Control": "no-store"})
        blob = Blob(original.uri, original.size_bytes, original.sha256, original.content_type)
        return await send(request, self.store, blob, job.filename)

    async def tenants(self, _: web.Request, caller: Caller) -> web.StreamResponse:
        """Whose jobs the caller may see."""
        found = await self.reads.tenants() if caller.tenant is None else [caller.tenant]
        return web.json_response(views.Tenants(tenants=found, operator=caller.tenant is None).model_dump())

    async def jobs(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """A page of a tenant's jobs."""
        tenant = views.tenant_name(request.match_info["tenant"])
        if not caller.sees(tenant):
            raise NotFound(views.NO_TENANT)
        page = await self.reads.jobs(tenant, **views.wanted_page(request.query))
        return web.Response(body=await views.page_body(page, operator=caller.tenant is None), content_type=_JSON)

    async def alive(self, _: web.Request) -> web.StreamResponse:
        """The liveness probe."""
        found = await self._checked()
        return web.json_response(views.health_view(found).model_dump(), status=200 if found.alive else 503)

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """The readiness probe."""
        found = await self._checked()
        return web.json_response(views.health_view(found).model_dump(), status=200 if found.ready else 503)

    async def _checked(self) -> Health:
        """A check that hangs says nothing against the worker itself: its loop answers, a restart would not help."""
        try:
            async with asyncio.timeout(PROBE_S):
                return await self.health()
        except TimeoutError:
            return Health(
                alive=True, ready=False, details={"health": f"the check did not finish within {PROBE_S:.0f} s"}
            )

    async def measured(self, _: web.Request) -> web.StreamResponse:
        """Prometheus' text format."""
        text = self.metrics()
        body = await text if inspect.isawaitable(text) else text
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _named(request: web.Request, caller: Caller) -> tuple[str | None, str]:
    """Whose job is asked about, and its name. An operator may say whose it is; a tenant's are its own anyway."""
    name = views.job_name(request.match_info["id"])
    said = request.query.get("tenant")
    if not said:
        return caller.tenant, name
    tenant = views.tenant_name(said)
    if not caller.sees(tenant):
        raise NotFound(views.NO_JOB)
    return tenant, name


def _status_response(answer: Answer, *, operator: bool) -> web.Response:
    body = views.job_view(answer.status, operator=operator).model_dump_json().encode()
    return web.Response(body=body, content_type=_JSON, headers={"X-Concord-Source": answer.source})
