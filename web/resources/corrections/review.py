"""`/tenants/{tenant}/review`: the queue of disputed spans, and what reviewers decide."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiohttp import web
from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema

from schemas.corrections.changes import Assignment, Choice, OutOfDate
from schemas.corrections.rows import ReviewItem, ReviewState
from schemas.errors import NotFound, Unavailable
from sinks.ports.corrections.review import ReviewCursor, ReviewFilter
from web.auth.access import REVIEW
from web.paging import NO_PLACE, decode_place, encode_place, page_response
from web.parameters import JobName, OfTenant, WholeNumber
from web.problems import FieldProblem, InvalidRequest
from web.resources.corrections.views import (
    ITEM_EXAMPLE,
    PROGRESS_EXAMPLE,
    ReviewItemView,
    ReviewPage,
    ReviewProgressView,
    item_view,
    reviewer_view,
)
from web.resources.jobs.blob_response import hide_storage
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.jobs.rows import Transcript
    from sinks.ports.corrections.review import ReviewWrites
    from sinks.ports.tenants import PerTenant
    from web.resources.corrections.ports import CorrectionReads, Editor

#: Items on a page, unless asked otherwise, and at most.
PAGE, MAX_PAGE = 50, 200

#: How often a choice is made again if others edit the transcript at the same moment.
TRIES: Final = 5

NO_ITEM: Final = "there is no such review item"


def encode_cursor(cursor: ReviewCursor) -> str:
    """A cursor as one word for a URL."""
    return encode_place([cursor.doubt, cursor.id])


def decode_cursor(text: str) -> ReviewCursor:
    """The inverse.

    Raises:
        ValueError: it is not the `next` of an earlier answer.
    """
    try:
        doubt, id = decode_place(text)
        if not (isinstance(id, str) and id.isascii() and id.isprintable() and isinstance(doubt, float)):
            raise TypeError
        if not isfinite(doubt):
            raise ValueError
        return ReviewCursor(doubt, id)
    except (ValueError, TypeError):
        raise ValueError(NO_PLACE) from None


class QueueParameters(OfTenant):
    """A page of a tenant's queue."""

    state: ReviewState = "open"
    assignee: Annotated[str, StringConstraints(max_length=255)] | None = None
    job: JobName | None = Field(None, description="a job's id")
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[ReviewCursor, PlainValidator(decode_cursor), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before"
    )


class ItemParameters(OfTenant):
    """An item of a tenant's queue."""

    item: Annotated[str, StringConstraints(max_length=100)]


Request = ApiRequest[ItemParameters, None]
_OF_ITEM: Final = "/tenants/{tenant}/review/{item}"


class ReviewQueue:
    """A tenant's review queue."""

    def __init__(self, reads: CorrectionReads, database: PerTenant[ReviewWrites], editor: Editor) -> None:
        self._reads, self._database, self._editor = reads, database, editor

    def routes(self) -> list[AnyRoute]:
        """The queue, an item, and what a reviewer does with it."""
        item = {200: ResponseSpec("the item as it is now", ReviewItemView, ITEM_EXAMPLE)}
        done = {409: ResponseSpec("the item is done, or belongs to an earlier run")}
        page = {"items": [ITEM_EXAMPLE], "next": None}
        return [
            Route(
                method="GET",
                path="/tenants/{tenant}/review",
                operation_id="tenants_tenant_review",
                summary="Disputed spans of a tenant's transcripts, the most doubtful first",
                handler=self.items,
                parameters=QueueParameters,
                access=REVIEW,
                responses={200: ResponseSpec("one page of them", ReviewPage, page)},
            ),
            Route(
                method="GET",
                path="/tenants/{tenant}/review/progress",
                operation_id="tenants_tenant_review_progress",
                summary="How far the queue is, by reviewer, and how far reviewers agree",
                handler=self.progress,
                parameters=OfTenant,
                access=REVIEW,
                responses={200: ResponseSpec("counts", ReviewProgressView, PROGRESS_EXAMPLE)},
            ),
            Route(
                method="GET",
                path=_OF_ITEM,
                operation_id="tenants_tenant_review_item",
                summary="One disputed span",
                handler=self.item,
                parameters=ItemParameters,
                access=REVIEW,
                responses=item,
            ),
            Route(
                method="POST",
                path=f"{_OF_ITEM}/choice",
                operation_id="tenants_tenant_review_item_choice",
                summary="Decide what was said; that makes a new version of the transcript",
                handler=self.choose,
                parameters=ItemParameters,
                body=RequestBody(Choice, {"reading": 1}),
                access=REVIEW,
                responses=item | done,
            ),
            Route(
                method="POST",
                path=f"{_OF_ITEM}/skip",
                operation_id="tenants_tenant_review_item_skip",
                summary="Leave a span undecided",
                handler=self.skip,
                parameters=ItemParameters,
                access=REVIEW,
                responses=item | done,
            ),
            Route(
                method="PUT",
                path=f"{_OF_ITEM}/assignee",
                operation_id="tenants_tenant_review_item_assignee",
                summary="Say who shall decide a span",
                handler=self.assign,
                parameters=ItemParameters,
                body=RequestBody(Assignment, {"assignee": "ann@acme.example"}),
                access=REVIEW,
                responses=item,
            ),
        ]

    async def items(self, request: ApiRequest[QueueParameters, None]) -> web.StreamResponse:
        """A page of the queue."""
        query = request.parameters
        which = ReviewFilter(state=query.state, assignee=query.assignee, job_id=query.job)
        # One more than asked for tells whether there is a next page.
        items = await self._reads.review_items(query.tenant, which, query.limit + 1, query.cursor)
        page = items[: query.limit]
        following = encode_cursor(ReviewCursor(page[-1].doubt, page[-1].id)) if len(items) > len(page) else None
        return page_response(request.http, ReviewPage(items=list(map(item_view, page)), next=following))

    async def progress(self, request: ApiRequest[OfTenant, None]) -> ReviewProgressView:
        """Counts."""
        progress = await self._reads.review_progress(request.parameters.tenant)
        several = progress.decided_by_several
        return ReviewProgressView(
            open=progress.open,
            assigned=progress.assigned,
            done=progress.done,
            skipped=progress.skipped,
            reviewers=list(map(reviewer_view, progress.reviewers)),
            decided_by_several=several,
            decided_alike=progress.decided_alike,
            agreement=progress.decided_alike / several if several else None,
        )

    async def item(self, request: Request) -> ReviewItemView:
        """One item."""
        return item_view(await self._item(request))

    async def _item(self, request: ApiRequest[ItemParameters, Any]) -> ReviewItem:
        item = await self._reads.review_item(request.parameters.tenant, request.parameters.item)
        if item is None:
            raise NotFound(NO_ITEM)
        return item

    async def choose(self, request: ApiRequest[ItemParameters, Choice]) -> ReviewItemView:
        """Have the span read as the reviewer says. A second reviewer may decide otherwise; both choices are kept."""
        item, body = await self._item(request), request.body
        if body.reading is not None and body.reading >= len(item.readings):
            detail = f"use a number from 0 to {len(item.readings) - 1}: the item has so many readings"
            raise InvalidRequest([FieldProblem(pointer="#/reading", detail=detail)])
        choice = " ".join((body.text or "").split()) if body.reading is None else body.reading
        await self._choose(item, choice, request)
        return item_view(await self._item(request))

    async def _choose(self, item: ReviewItem, choice: int | str, request: ApiRequest[ItemParameters, Any]) -> None:
        for _ in range(TRIES):
            transcript = await self._transcript(item)
            try:
                with hide_storage("the transcript"):
                    await self._editor.choose(transcript, item, choice, request.caller.id)
            except OutOfDate:
                continue
            return
        raise Unavailable("others edit this transcript at the moment")

    async def _transcript(self, item: ReviewItem) -> Transcript:
        """The newest version of the transcript that the item belongs to.

        Raises:
            HTTPConflict: its run is not the job's completed one any more.
        """
        job = await self._reads.job(item.tenant_id, item.job_id)
        transcript = await self._reads.transcript(item.tenant_id, item.job_id, item.run)
        if job is None or transcript is None:
            raise NotFound(NO_ITEM)
        if job.run != item.run or job.status != "completed":
            raise web.HTTPConflict(text=f"the item belongs to run {item.run} of the job, which has begun another")
        return transcript

    async def skip(self, request: Request) -> ReviewItemView:
        """Leave it."""
        query = request.parameters
        skipped = await self._database.acting_as(query.tenant).skip_item(query.tenant, query.item, request.caller.id)
        if skipped is None:
            await self._item(request)
            raise web.HTTPConflict(text="the item is done")
        return item_view(skipped)

    async def assign(self, request: ApiRequest[ItemParameters, Assignment]) -> ReviewItemView:
        """Assign it."""
        query, caller = request.parameters, request.caller.id
        assignee = request.body.assignee if "assignee" in request.body.model_fields_set else caller
        item = await self._database.acting_as(query.tenant).assign_item(query.tenant, query.item, assignee, caller)
        if item is None:
            raise NotFound(NO_ITEM)
        return item_view(item)
