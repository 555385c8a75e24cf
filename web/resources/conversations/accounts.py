"""`/api/v1/accounts/{tenant}/conversations`: an account's conversations, its failures, and its last days in numbers."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

from aiohttp import web
from pydantic import BeforeValidator, Field, PlainValidator, TypeAdapter, ValidationError, WithJsonSchema

from schemas.conversations.processing import DONE, Status
from schemas.events.base import Data
from sinks.ports.reads import Cursor
from web.paging import next_link
from web.parameters import OfTenant, WholeNumber
from web.resources.conversations.views import ROW, ProcessingView, processing_view
from web.resources.jobs.listing import decode_cursor, encode_cursor
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.conversations.rows import ConversationDay, ConversationDays, ConversationRow
    from sinks.ports.clock import Clock
    from sinks.ports.conversations.history import ConversationHistory

PATH: Final = "/api/v1/accounts/{tenant}/conversations"

#: Conversations on a page, unless asked otherwise, and at most.
PAGE, MAX_PAGE = 50, 200

#: Hours of failures and days of statistics, unless asked otherwise, and at most.
HOURS, MAX_HOURS = 24, 720
DAYS, MAX_DAYS = 7, 90

_STATUSES: TypeAdapter[frozenset[Status]] = TypeAdapter(frozenset[Status])


def _statuses(text: str) -> frozenset[Status]:
    try:
        return _STATUSES.validate_python(text.split(","))
    except ValidationError:
        raise ValueError(f"use some of {', '.join(map(repr, get_args(Status)))}, with commas between them") from None


Place = Annotated[Cursor, PlainValidator(decode_cursor), WithJsonSchema({"type": "string"})]


class PageParameters(OfTenant):
    """A page of a list."""

    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Place | None = Field(None, description="`next` of the page before")


class ListParameters(PageParameters):
    """Which conversations are listed."""

    status: (
        Annotated[
            frozenset[Status],
            BeforeValidator(_statuses),
            WithJsonSchema({"type": "string", "examples": ["failed,cancelled"]}),
        ]
        | None
    ) = Field(None, description="any of these, with commas between them")


class FailureParameters(PageParameters):
    """Since when."""

    hours: Annotated[int, WholeNumber(MAX_HOURS)] = Field(HOURS, description="failures of so many hours")


class StatisticsParameters(OfTenant):
    """Since when."""

    days: Annotated[int, WholeNumber(MAX_DAYS)] = Field(DAYS, description="days in UTC, today included")


class ConversationPage(Data):
    """Some of an account's conversations. A page may be short, or empty, and not be the last: `next` tells."""

    conversations: list[ProcessingView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class ListAnswer(Data):
    """The answer with a page."""

    success: bool
    message: str
    data: ConversationPage


class DayOfConversations(Data):
    """Conversations that were asked for on a day."""

    day: date = Field(description="in UTC")
    conversations: int
    by_status: dict[str, int] = Field(description="by the status that they have now")
    median_seconds: float | None = Field(description="from the request to the mail, of half of the completed ones")


class Statistics(Data):
    """Some days in numbers."""

    conversations: int
    by_status: dict[str, int]
    success_rate: float | None = Field(description="completed ones of those that have ended; null if none has")
    median_seconds: float | None = Field(description="as that of a day, over all conversations of these days")
    days: list[DayOfConversations] = Field(description="the oldest first; days without any are left out")


class StatisticsAnswer(Data):
    """The answer with statistics."""

    success: bool
    message: str
    data: Statistics


_PAGE: Final[dict[str, Any]] = {
    "success": True,
    "message": "1 conversation",
    "data": {"conversations": [ROW], "next": None},
}
_STATISTICS: Final[dict[str, Any]] = {
    "success": True,
    "message": "7 days",
    "data": {
        "conversations": 41,
        "by_status": {"completed": 40, "failed": 1},
        "success_rate": 0.976,
        "median_seconds": 38.5,
        "days": [
            {
                "day": "2026-05-01",
                "conversations": 41,
                "by_status": {"completed": 40, "failed": 1},
                "median_seconds": 38.5,
            }
        ],
    },
}


class AccountConversations:
    """An account's conversations."""

    def __init__(self, history: ConversationHistory, clock: Clock) -> None:
        self._history, self._clock = history, clock

    def routes(self) -> list[AnyRoute]:
        """List, failures, statistics."""
        return [
            Route(
                method="GET",
                path=PATH,
                operation_id="account_conversations",
                summary="The history of an account: its conversations, the newest request first",
                handler=self.list,
                parameters=ListParameters,
                responses={200: ResponseSpec("one page of them", ListAnswer, _PAGE)},
                says_success=True,
            ),
            Route(
                method="GET",
                path=f"{PATH}/failed",
                operation_id="account_conversations_failed",
                summary="Conversations that have failed in the last 24 hours, the newest failure first",
                handler=self.failed,
                parameters=FailureParameters,
                responses={200: ResponseSpec("one page of them", ListAnswer, _PAGE)},
                says_success=True,
            ),
            Route(
                method="GET",
                path=f"{PATH}/statistics",
                operation_id="account_conversations_statistics",
                summary="An account's conversations of the last seven days, in numbers",
                handler=self.statistics,
                parameters=StatisticsParameters,
                responses={200: ResponseSpec("by day", StatisticsAnswer, _STATISTICS)},
                says_success=True,
            ),
        ]

    async def list(self, request: ApiRequest[ListParameters, None]) -> web.StreamResponse:
        """A page of all, or of those in some statuses."""
        asked = request.parameters
        found = await self._history.conversations(
            asked.tenant, asked.status or frozenset(), limit=asked.limit, before=asked.cursor
        )
        return _page(request.http, *found)

    async def failed(self, request: ApiRequest[FailureParameters, None]) -> web.StreamResponse:
        """A page of the failures of some hours."""
        asked = request.parameters
        since = await self._clock.now() - timedelta(hours=asked.hours)
        found = await self._history.failed_conversations(asked.tenant, since, limit=asked.limit, before=asked.cursor)
        return _page(request.http, *found)

    async def statistics(self, request: ApiRequest[StatisticsParameters, None]) -> StatisticsAnswer:
        """Some days in numbers."""
        asked, now = request.parameters, (await self._clock.now()).astimezone(UTC)
        since = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=asked.days - 1)
        numbers = await self._history.conversation_days(asked.tenant, since, now + timedelta(hours=1))
        return StatisticsAnswer(success=True, message=f"{asked.days} days", data=statistics(numbers))


def statistics(numbers: ConversationDays) -> Statistics:
    """The conversations by day, and all together."""
    total = Counter[Status]()
    for of_day in numbers.days:
        total.update(of_day.by_status)
    done = sum(total[status] for status in DONE)
    ended = done + total["failed"]
    return Statistics(
        conversations=total.total(),
        by_status=dict(sorted(total.items())),
        success_rate=round(done / ended, 3) if ended else None,
        median_seconds=numbers.median_s,
        days=[_day(of_day) for of_day in numbers.days],
    )


def _day(of_day: ConversationDay) -> DayOfConversations:
    return DayOfConversations(
        day=date.fromisoformat(of_day.day),
        conversations=sum(of_day.by_status.values()),
        by_status=dict(sorted(of_day.by_status.items())),
        median_seconds=of_day.median_s,
    )


def _page(request: web.Request, rows: Sequence[ConversationRow], following: Cursor | None) -> web.StreamResponse:
    cursor = encode_cursor(following) if following else None
    page = ConversationPage(conversations=[processing_view(row) for row in rows], next=cursor)
    message = f"{len(rows)} conversation{'' if len(rows) == 1 else 's'}"
    answer = ListAnswer(success=True, message=message, data=page)
    return web.json_response(text=answer.model_dump_json(), headers=next_link(request, cursor))
