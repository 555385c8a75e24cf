"""`/tenants/{tenant}/jobs`: a tenant's jobs in pages, newest first."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import orjson
from aiohttp import web
from pydantic import BeforeValidator, Field, PlainValidator, TypeAdapter, ValidationError, WithJsonSchema

from schemas.events.base import Data, Moment
from schemas.ids import Name
from schemas.jobs.rows import Status
from sinks.ports.reads import Cursor, JobFilter
from web.paging import NO_PLACE, decode_place, encode_place, next_link
from web.parameters import OfTenant, WholeNumber
from web.resources.jobs.job_view import EXAMPLE, JobView, job_view
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.reads import Page, Reads

#: Jobs on a page, unless asked otherwise, and at most; and bytes. A job has 2 kB, one whose every step failed 30.
PAGE, MAX_PAGE = 50, 500
PAGE_BYTES = 2 << 20

#: Jobs of a page after which other tasks have a turn of the event loop: some milliseconds.
TURN: Final = 50

#: Pairs of metadata that one list looks for.
MAX_PAIRS: Final = 8

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_STATUSES: TypeAdapter[frozenset[Status]] = TypeAdapter(frozenset[Status])
_COMMA: Final = re.compile(r"(?<!\\),")


def encode_cursor(cursor: Cursor) -> str:
    """A cursor as one word for a URL. Row-level security decides what lies behind it."""
    return encode_place([cursor.created_at, cursor.job_id])


def decode_cursor(text: str) -> Cursor:
    """The inverse.

    Raises:
        ValueError: it is not the `next` of an earlier answer.
    """
    try:
        at, job_id = decode_place(text)
        created_at = datetime.fromisoformat(at)
        if created_at.tzinfo is None:
            raise ValueError("a time without a zone")
        return Cursor(created_at.astimezone(UTC), _NAME.validate_python(job_id, strict=True))
    except (ValueError, TypeError, OverflowError, ValidationError):
        raise ValueError(NO_PLACE) from None


class JobPage(Data):
    """Some of a tenant's jobs. A page may be short, or empty, and not be the last: `next` tells."""

    jobs: list[JobView]
    next: str | None = Field(description="cursor of the next page; null on the last")


def _statuses(text: str) -> frozenset[Status]:
    try:
        return _STATUSES.validate_python(text.split(","))
    except ValidationError:
        raise ValueError(f"use some of {', '.join(map(repr, get_args(Status)))}, with commas between them") from None


def _pairs(text: str) -> frozenset[tuple[str, str]]:
    pairs = [part.replace("\\,", ",").partition(":") for part in _COMMA.split(text)]
    if len(pairs) > MAX_PAIRS or not all(key and colon for key, colon, _ in pairs):
        raise ValueError(f"use key:value, at most {MAX_PAIRS} with commas between them; a value's own comma is \\,")
    return frozenset((key, value) for key, _, value in pairs)


def _word(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string"} | schema)


#: Several statuses, with commas between them.
Statuses = Annotated[frozenset[Status], BeforeValidator(_statuses), _word(examples=["failed,completed"])]
Pairs = Annotated[frozenset[tuple[str, str]], PlainValidator(_pairs), _word(examples=["agent:Zoë,team:7"])]
Part = Annotated[str, Field(max_length=255)]


class JobListParameters(OfTenant):
    """A page of those of a tenant's jobs for which everything holds that is given."""

    status: Statuses | None = Field(None, description="any of these, with commas between them")
    created_from: Moment | None = Field(None, description="uploaded at this moment or later (RFC 3339)")
    created_to: Moment | None = Field(None, description="uploaded before this moment")
    completed_from: Moment | None = Field(None, description="completed or failed at this moment or later")
    completed_to: Moment | None = Field(None, description="completed or failed before this moment")
    filename: Part | None = Field(None, description="a part of the filename, in upper or lower case")
    reference: Part | None = Field(None, description="the whole reference")
    reference_prefix: Part | None = Field(None, description="what the reference begins with")
    metadata: Pairs | None = Field(
        None,
        description="key:value, a text, number or truth value on the top level of the upload's metadata; several, with "
        "commas between them, must all be there",
    )
    language: Annotated[str, Field(max_length=35, pattern="^[A-Za-z0-9-]+$")] | None = Field(
        None, description="of the transcript, or as requested: `en` means `en-US`, too"
    )
    order: Literal["newest", "oldest"] = "newest"
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[Cursor, PlainValidator(decode_cursor), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before, with the same filters and order"
    )

    @property
    def wanted(self) -> JobFilter:
        """Which jobs are listed."""
        return JobFilter(
            statuses=self.status or frozenset(),
            created_from=self.created_from,
            created_to=self.created_to,
            completed_from=self.completed_from,
            completed_to=self.completed_to,
            filename=self.filename,
            reference=self.reference,
            reference_prefix=self.reference_prefix,
            metadata=self.metadata or frozenset(),
            language=self.language.lower() if self.language else None,
            oldest_first=self.order == "oldest",
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
                summary="A tenant's jobs, newest first, by status, time, filename, reference, metadata and language",
                handler=self.jobs,
                parameters=JobListParameters,
                responses={200: ResponseSpec("one page of them", JobPage, example)},
            )
        ]

    async def jobs(self, request: ApiRequest[JobListParameters, None]) -> web.StreamResponse:
        """A page of a tenant's jobs."""
        query = request.parameters
        page = await self._reads.jobs(query.tenant, query.wanted, limit=query.limit, before=query.cursor)
        body, following = await page_body(page, operator=request.caller.is_operator)
        headers = next_link(request.http, following)
        return web.Response(body=body, content_type="application/json", headers=headers)


async def page_body(page: Page, *, operator: bool = False) -> tuple[bytes, str | None]:
    """A page as a `JobPage` in JSON, cut where it would be larger than `PAGE_BYTES`, and its `next`. Other tasks have
    turns of the event loop between its parts.
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
    cursor = encode_cursor(following) if following else None
    return b'{"jobs":[' + b",".join(jobs) + b'],"next":' + orjson.dumps(cursor) + b"}", cursor
