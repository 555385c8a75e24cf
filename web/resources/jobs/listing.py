"""`/tenants/{tenant}/jobs`: a tenant's jobs in pages, newest first."""

from __future__ import annotations

import asyncio
import base64
import binascii
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import orjson
from aiohttp import web
from pydantic import Field, PlainValidator, TypeAdapter, ValidationError, WithJsonSchema

from schemas.events.base import Data
from schemas.ids import Name
from schemas.jobs.rows import Status
from sinks.ports.reads import Cursor
from web.parameters import Parameters, TenantName, WholeNumber
from web.resources.jobs.job_view import EXAMPLE, JobView, job_view
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.reads import Page, Reads

#: Jobs on a page, unless asked otherwise, and at most; and bytes. A job has 2 kB, one whose every step failed 30.
PAGE, MAX_PAGE = 50, 500
PAGE_BYTES = 2 << 20

#: Jobs of a page after which other tasks have a turn of the event loop: some milliseconds.
TURN: Final = 50

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def encode_cursor(cursor: Cursor) -> str:
    """A cursor as one word for a URL."""
    return base64.urlsafe_b64encode(orjson.dumps([cursor.created_at, cursor.job_id])).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """The inverse. No signature: nothing secret is in it, and row-level security decides what lies behind it.

    Raises:
        ValueError: it is not the `next` of an earlier answer.
    """
    try:
        at, job_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        created_at = datetime.fromisoformat(at)
        if created_at.tzinfo is None:
            raise ValueError("a time without a zone")
        return Cursor(created_at.astimezone(UTC), _NAME.validate_python(job_id, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error, ValidationError):
        raise ValueError(
            "use `next` of an earlier answer as it stands, or leave it out to begin at the newest"
        ) from None


class JobPage(Data):
    """Some of a tenant's jobs, newest first."""

    jobs: list[JobView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class JobListParameters(Parameters):
    """A page of a tenant's jobs, of one status if it is given."""

    tenant: TenantName
    status: Status | None = None
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[Cursor, PlainValidator(decode_cursor), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before"
    )


class TenantJobs:
    """The list of a tenant's jobs."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        example = {"jobs": [EXAMPLE], "next": encode_cursor(Cursor(datetime(2026, 5, 1, tzinfo=UTC), "j"))}
        return [
            Route(
                method="GET",
                path="/tenants/{tenant}/jobs",
                operation_id="tenants_tenant_jobs",
                summary="A tenant's jobs, newest first",
                handler=self.jobs,
                parameters=JobListParameters,
                responses={200: ResponseSpec("one page of them", JobPage, example)},
            )
        ]

    async def jobs(self, request: ApiRequest[JobListParameters, None]) -> web.StreamResponse:
        """A page of a tenant's jobs."""
        query = request.parameters
        page = await self._reads.jobs(query.tenant, status=query.status, limit=query.limit, before=query.cursor)
        body = await page_body(page, operator=request.caller.is_operator)
        return web.Response(body=body, content_type="application/json")


async def page_body(page: Page, *, operator: bool = False) -> bytes:
    """A page as a `JobPage` in JSON, cut where it would be larger than `PAGE_BYTES`. Other tasks have turns of the
    event loop between its parts.
    """
    jobs: list[bytes] = []
    following, size = page.following, 0
    for status in page.jobs:
        body = job_view(status, operator=operator).model_dump_json().encode()
        size += len(body)
        if jobs and size > PAGE_BYTES:
            last = page.jobs[len(jobs) - 1]
            following = Cursor(last.created_at, last.job_id)
            break
        jobs.append(body)
        if len(jobs) % TURN == 0:
            await asyncio.sleep(0)
    cursor = orjson.dumps(encode_cursor(following) if following else None)
    return b'{"jobs":[' + b",".join(jobs) + b'],"next":' + cursor + b"}"
