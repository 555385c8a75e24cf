"""`/tenants/{tenant}/webhooks/{webhook}/deliveries`: what was sent, what came back, and sending it again."""

from __future__ import annotations

from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema

from schemas.errors import NotFound
from schemas.webhooks.rows import DeliveryState
from sinks.ports.tenants import PerTenant
from sinks.ports.webhooks.endpoints import WebhookEndpoints
from web.auth.access import ADMIN
from web.paging import NO_PLACE, page_response
from web.parameters import WholeNumber
from web.resources.webhooks.endpoints import ONE
from web.resources.webhooks.views import (
    DELIVERY_EXAMPLE,
    DETAIL_EXAMPLE,
    NO_DELIVERY,
    DeliveryDetail,
    DeliveryPage,
    DeliveryView,
    OfDelivery,
    OfWebhook,
    Replayed,
    delivery_detail,
    delivery_view,
    found,
)
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

#: Deliveries on a page, unless asked otherwise, and at most.
PAGE, MAX_PAGE = 50, 200

PATH: Final = f"{ONE}/deliveries"


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(NO_PLACE)
    return int(text)


class DeliveryListParameters(OfWebhook):
    """A page of an endpoint's deliveries."""

    status: DeliveryState | None = None
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[int, BeforeValidator(_cursor), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before"
    )


class WebhookDeliveries:
    """The history of an endpoint."""

    def __init__(self, database: PerTenant[WebhookEndpoints]) -> None:
        self._database = database

    def routes(self) -> list[AnyRoute]:
        """List, read, replay one, replay all that failed."""
        one: dict[str, Any] = {"parameters": OfDelivery, "access": ADMIN}
        page = {"deliveries": [DELIVERY_EXAMPLE], "next": "4710"}
        return [
            Route(
                method="GET",
                path=PATH,
                operation_id="webhook_deliveries",
                summary="Deliveries to a webhook of the last 30 days, the newest first",
                handler=self.list,
                parameters=DeliveryListParameters,
                responses={200: ResponseSpec("one page of them", DeliveryPage, page)},
                access=ADMIN,
            ),
            Route(
                method="GET",
                path=f"{PATH}/{{delivery}}",
                operation_id="webhook_delivery",
                summary="What is sent, and every attempt with its answer",
                handler=self.read,
                responses={200: ResponseSpec("the delivery", DeliveryDetail, DETAIL_EXAMPLE)},
                **one,
            ),
            Route(
                method="POST",
                path=f"{PATH}/{{delivery}}/replay",
                operation_id="replay_webhook_delivery",
                summary="Send a delivery that has ended again, with the same `webhook-id`",
                handler=self.replay,
                responses={
                    202: ResponseSpec("it is being sent", DeliveryView, DELIVERY_EXAMPLE),
                    409: ResponseSpec("it is being delivered already"),
                },
                **one,
            ),
            Route(
                method="POST",
                path=f"{ONE}/replay",
                operation_id="replay_webhook",
                summary="Send all deliveries to a webhook again that failed",
                handler=self.replay_all,
                parameters=OfWebhook,
                responses={202: ResponseSpec("how many", Replayed, {"replayed": 3})},
                access=ADMIN,
            ),
        ]

    async def list(self, request: ApiRequest[DeliveryListParameters, None]) -> web.StreamResponse:
        """A page of deliveries."""
        query = request.parameters
        webhooks = self._database.acting_as(query.tenant)
        await found(webhooks, query)
        rows = await webhooks.deliveries(query.tenant, query.webhook, query.status, query.cursor, query.limit + 1)
        page = [delivery_view(row) for row in rows[: query.limit]]
        following = page[-1].id if len(rows) > query.limit else None
        return page_response(request.http, DeliveryPage(deliveries=page, next=following))

    async def read(self, request: ApiRequest[OfDelivery, None]) -> DeliveryDetail:
        """One delivery with its attempts."""
        names = request.parameters
        webhooks = self._database.acting_as(names.tenant)
        delivery = await webhooks.delivery(names.tenant, names.webhook, names.delivery)
        if delivery is None:
            raise NotFound(NO_DELIVERY)
        return delivery_detail(delivery, list(await webhooks.attempts(names.tenant, names.delivery)))

    async def replay(self, request: ApiRequest[OfDelivery, None]) -> DeliveryView:
        """Send one again."""
        names = request.parameters
        webhooks = self._database.acting_as(names.tenant)
        replayed = await webhooks.replay(names.tenant, names.webhook, request.caller.id, names.delivery)
        delivery = await webhooks.delivery(names.tenant, names.webhook, names.delivery)
        if delivery is None:
            raise NotFound(NO_DELIVERY)
        if not replayed:
            raise web.HTTPConflict(text="it is being delivered already; see `next_attempt_at`")
        return delivery_view(delivery)

    async def replay_all(self, request: ApiRequest[OfWebhook, None]) -> Replayed:
        """Send again what failed."""
        names = request.parameters
        webhooks = self._database.acting_as(names.tenant)
        await found(webhooks, names)
        return Replayed(replayed=await webhooks.replay(names.tenant, names.webhook, request.caller.id))
