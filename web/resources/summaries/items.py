"""`/tenants/{tenant}/action-items`, `/participants` and `/entities`: what summaries say of many calls."""

from __future__ import annotations

from datetime import MAXYEAR, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiohttp import web
from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema

from schemas.events.base import Data
from schemas.summaries import EntityKind, folded
from sinks.ports.reading.summaries import ItemFilter, ItemPlace
from web.paging import NO_PLACE, decode_place, encode_place, page_response
from web.parameters import OfTenant, WholeNumber
from web.resources.jobs.links import link_to
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.reading.summaries import FoundItem, SummaryItems

#: Items on a page, unless asked otherwise, and at most.
PAGE, MAX_PAGE = 50, 500


class ItemView(Data):
    """An item of a call's summary."""

    job_id: str
    run: int
    transcript_version: int
    is_current: bool = Field(description="false if the transcript was edited or made anew since")
    text: str
    quote: str = Field(description="what was said")
    words: list[str] = Field(description="ids of the quoted words")
    speaker: str | None = Field(None, description="who said it")
    start_ms: int | None = None
    end_ms: int | None = None
    disputed: bool = Field(description="whether recognizers did not agree on a quoted word")
    created_at: datetime
    links: dict[str, str]


class ActionItemView(ItemView):
    """What somebody is to do."""

    who: str | None = None
    due: str | None = Field(None, description="until when, as the call says")


class ParticipantView(ItemView):
    """Who took part; `text` is the name."""

    label: str | None = Field(None, description="the speaker's label in the transcript")


class EntityView(ItemView):
    """What was named."""

    label: EntityKind = Field(description="what it is")


class ActionItems(Data):
    """Some of a tenant's action items, newest call first."""

    items: list[ActionItemView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class Participants(Data):
    """Some of the participants of a tenant's calls, newest call first."""

    items: list[ParticipantView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class Entities(Data):
    """Some of what was named in a tenant's calls, newest call first."""

    items: list[EntityView]
    next: str | None = Field(description="cursor of the next page; null on the last")


def _decoded(text: str) -> ItemPlace:
    match decode_place(text):
        case [str(at), str(job_id), int(number)] if "\x00" not in job_id and 0 <= number < 2**31:
            moment = datetime.fromisoformat(at)
            if moment.tzinfo is not None and 1 < moment.year < MAXYEAR:  # of which any zone's is in PostgreSQL's reach
                return ItemPlace(moment, job_id, number)
    raise ValueError(NO_PLACE)


Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class ItemParameters(OfTenant):
    """A page of items."""

    job: Text | None = Field(None, description="only those of the job with this id")
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[ItemPlace, PlainValidator(_decoded), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before"
    )


class ActionItemParameters(ItemParameters):
    """A page of action items."""

    who: Text | None = Field(None, description="only those of whoever is named so, in upper or lower case")


class ParticipantParameters(ItemParameters):
    """A page of participants."""

    name: Text | None = Field(None, description="only this one, in upper or lower case")


class EntityParameters(ItemParameters):
    """A page of entities."""

    text: Text | None = Field(None, description="only this one, in upper or lower case")
    kind: EntityKind | None = None


_EXAMPLE: Final = {
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "run": 1,
    "transcript_version": 1,
    "is_current": True,
    "quote": "send the form by Friday",
    "words": ["w22", "w23", "w24", "w25", "w26"],
    "speaker": "A",
    "start_ms": 8800,
    "end_ms": 10750,
    "disputed": False,
    "created_at": "2026-05-01T12:00:01Z",
    "links": {"summary": "/jobs/4711ca11-0000-4000-8000-00000000000a/summary"},
}
_NEXT: Final = encode_place(["2026-05-01T12:00:01+00:00", "4711ca11-0000-4000-8000-00000000000a", 0])


class SummaryItemLists:
    """The items of a tenant's summaries."""

    def __init__(self, items: SummaryItems) -> None:
        self._items = items

    def routes(self) -> list[AnyRoute]:
        """A list of each kind."""
        return [
            self._route(
                "action-items", "What somebody is to do, in all calls", self.action_items, ActionItemParameters,
                ActionItems, {"text": "Send the form", "who": "Ann", "due": "Friday"},
            ),
            self._route(
                "participants", "Who took part, in all calls", self.participants, ParticipantParameters,
                Participants, {"text": "Ann", "label": "A"},
            ),
            self._route(
                "entities", "People, organisations, products, amounts, dates and ids that were named, in all calls",
                self.entities, EntityParameters, Entities, {"text": "Acme", "label": "organisation"},
            ),
        ]  # fmt: skip

    def _route(
        self, name: str, summary: str, handler: Any, parameters: Any, page: type[Data], example: dict[str, Any]
    ) -> AnyRoute:
        return Route(
            method="GET",
            path=f"/tenants/{{tenant}}/{name}",
            operation_id=f"tenants_tenant_{name.replace('-', '_')}",
            summary=summary,
            handler=handler,
            parameters=parameters,
            responses={200: ResponseSpec("one page", page, {"items": [_EXAMPLE | example], "next": _NEXT})},
        )

    async def action_items(self, request: ApiRequest[ActionItemParameters, None]) -> web.StreamResponse:
        """A page of action items."""
        asked = request.parameters
        which = ItemFilter(kind="action_item", lookup=_folded(asked.who), job_id=asked.job)
        return await self._page(request, which, ActionItems, ActionItemView)

    async def participants(self, request: ApiRequest[ParticipantParameters, None]) -> web.StreamResponse:
        """A page of participants."""
        asked = request.parameters
        which = ItemFilter(kind="participant", lookup=_folded(asked.name), job_id=asked.job)
        return await self._page(request, which, Participants, ParticipantView)

    async def entities(self, request: ApiRequest[EntityParameters, None]) -> web.StreamResponse:
        """A page of entities."""
        asked = request.parameters
        which = ItemFilter(kind="entity", lookup=_folded(asked.text), label=asked.kind, job_id=asked.job)
        return await self._page(request, which, Entities, EntityView)

    async def _page(
        self, request: ApiRequest[Any, None], which: ItemFilter, page: Any, view: type[ItemView]
    ) -> web.StreamResponse:
        asked: ItemParameters = request.parameters
        found = await self._items.summary_items(asked.tenant, which, asked.limit + 1, asked.cursor)
        following = None
        if len(found) > asked.limit:
            last = found[asked.limit - 1].item
            following = encode_place([str(last.created_at), last.job_id, last.number])
        operator = request.caller.is_operator
        items = [_view(one, view, operator=operator) for one in found[: asked.limit]]
        return page_response(request.http, page(items=items, next=following))


def _folded(text: str | None) -> str | None:
    return None if text is None else folded(text)


def _view(found: FoundItem, view: type[ItemView], *, operator: bool) -> ItemView:
    names = view.model_fields.keys() - {"is_current", "links"}
    item = found.item
    links = {"summary": link_to(item.tenant_id, item.job_id, "summary", operator=operator, run=item.run)}
    return view(**{name: getattr(item, name) for name in names}, is_current=found.is_current, links=links)
