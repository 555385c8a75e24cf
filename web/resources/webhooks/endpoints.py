"""`/tenants/{tenant}/webhooks`: the URLs to which a tenant has its events sent, and the secrets that sign them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import uuid4

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.accounts.sealing import NoSecretKey, Seals
from schemas.errors import NotFound
from schemas.webhooks.events import TEST, EventType, of_endpoint
from schemas.webhooks.rows import Endpoint
from schemas.webhooks.signature import new_secret
from sinks.ports.clock import Clock
from sinks.ports.tenants import PerTenant
from sinks.ports.webhooks.endpoints import OVERLAP_S, TooManyEndpoints, WebhookEndpoints
from web.auth.access import ADMIN
from web.parameters import OfTenant
from web.problems import ApiProblem
from web.resources.webhooks.views import (
    DELIVERY_EXAMPLE,
    NO_WEBHOOK,
    SECRET_EXAMPLE,
    WEBHOOK_EXAMPLE,
    DeliveryView,
    NewWebhookView,
    OfWebhook,
    SecretView,
    WebhookList,
    WebhookView,
    delivery_view,
    found,
    webhook_view,
)
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

log = logging.getLogger(__name__)

PATH: Final = "/tenants/{tenant}/webhooks"
ONE: Final = f"{PATH}/{{webhook}}"

_NO_KEY: Final = "this installation has no key to encrypt secrets with"

Url = Annotated[str, Field(min_length=1, max_length=2048, description="https://, on a public host")]
Events = Annotated[
    list[EventType], Field(min_length=1, max_length=20), AfterValidator(lambda events: sorted(set(events)))
]
Description = Annotated[str, Field(max_length=500)]


class NewWebhook(BaseModel):
    """An endpoint to be made."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events = ["*"]
    description: Description = ""


class WebhookChange(BaseModel):
    """What is to be changed of an endpoint; fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    active: bool | None = Field(None, description="true also ends a pause")


class Webhooks:
    """A tenant's endpoints."""

    def __init__(
        self,
        database: PerTenant[WebhookEndpoints],
        clock: Clock,
        check_url: Callable[[str], object],
        seals: Seals,
    ) -> None:
        """`check_url` raises `InvalidInput` for a URL that may not be called; `seals` encrypt the secrets."""
        self._database, self._clock, self._check_url, self._seals = database, clock, check_url, seals

    def routes(self) -> list[AnyRoute]:
        """Create, list, read, change, delete; a new secret; a test event."""
        one: dict[str, Any] = {"path": ONE, "parameters": OfWebhook, "access": ADMIN}
        many: dict[str, Any] = {"path": PATH, "parameters": OfTenant, "access": ADMIN}
        view = ResponseSpec("the webhook", WebhookView, WEBHOOK_EXAMPLE)
        with_secret = WEBHOOK_EXAMPLE | {"secret": SECRET_EXAMPLE}
        new = {"url": WEBHOOK_EXAMPLE["url"], "events": WEBHOOK_EXAMPLE["events"], "description": "our CRM"}
        return [
            Route(
                method="POST",
                operation_id="create_webhook",
                summary="Have events sent to a URL; the answer alone has the secret",
                handler=self.create,
                body=RequestBody(NewWebhook, new, max_bytes=16_384),
                responses={
                    201: ResponseSpec("the webhook, with its secret", NewWebhookView, with_secret),
                    409: ResponseSpec(f"the tenant has as many webhooks as it may have, or {_NO_KEY}"),
                },
                **many,
            ),
            Route(
                method="GET",
                operation_id="webhooks",
                summary="A tenant's webhooks, the oldest first",
                handler=self.list,
                responses={200: ResponseSpec("all of them", WebhookList, {"webhooks": [WEBHOOK_EXAMPLE]})},
                **many,
            ),
            Route(
                method="GET",
                operation_id="webhook",
                summary="A webhook",
                handler=self.read,
                responses={200: view},
                **one,
            ),
            Route(
                method="PATCH",
                operation_id="change_webhook",
                summary="Change a webhook, switch it on or off, end a pause",
                handler=self.change,
                body=RequestBody(WebhookChange, {"active": True}, max_bytes=16_384),
                responses={200: view},
                **one,
            ),
            Route(
                method="DELETE",
                operation_id="delete_webhook",
                summary="Delete a webhook with its history; what waits for it is not sent",
                handler=self.delete,
                responses={204: ResponseSpec("it is deleted")},
                **one,
            ),
            Route(
                method="POST",
                operation_id="rotate_webhook_secret",
                summary="A new secret; for a day the one before it signs, too",
                handler=self.rotate,
                responses={
                    201: ResponseSpec(
                        "the secret", SecretView, {"secret": SECRET_EXAMPLE, "previous_valid_s": int(OVERLAP_S)}
                    ),
                    409: ResponseSpec(_NO_KEY),
                },
                **one | {"path": f"{ONE}/secret"},
            ),
            Route(
                method="POST",
                operation_id="test_webhook",
                summary="Send `webhook.test` to a webhook, whatever it asks for",
                handler=self.test,
                responses={
                    202: ResponseSpec(
                        "it is being sent; the delivery's history tells more", DeliveryView, DELIVERY_EXAMPLE
                    ),
                    409: ResponseSpec("the webhook is switched off or paused"),
                },
                **one | {"path": f"{ONE}/test"},
            ),
        ]

    async def create(self, request: ApiRequest[OfTenant, NewWebhook]) -> web.StreamResponse:
        """Make an endpoint."""
        tenant, body, secret = request.parameters.tenant, request.body, new_secret()
        self._check_url(body.url)
        endpoint = Endpoint(
            tenant_id=tenant,
            webhook_id=f"wh_{uuid4().hex}",
            url=body.url,
            events=list(body.events),
            description=body.description,
            created_by=request.caller.id,
        )
        sealed = self._sealed(secret, tenant, endpoint.webhook_id)
        try:
            endpoint = await self._database.acting_as(tenant).create_webhook(endpoint, sealed)
        except TooManyEndpoints as exc:
            raise web.HTTPConflict(text=str(exc)) from None
        self._log(request, endpoint.webhook_id, "made")
        view = NewWebhookView(**webhook_view(endpoint).model_dump(), secret=secret)
        location = f"/tenants/{tenant}/webhooks/{endpoint.webhook_id}"
        return web.json_response(text=view.model_dump_json(), status=201, headers={"Location": location})

    async def list(self, request: ApiRequest[OfTenant, None]) -> WebhookList:
        """All endpoints."""
        tenant = request.parameters.tenant
        endpoints = await self._database.acting_as(tenant).webhooks(tenant)
        return WebhookList(webhooks=[webhook_view(endpoint) for endpoint in endpoints])

    async def read(self, request: ApiRequest[OfWebhook, None]) -> WebhookView:
        """One endpoint."""
        return webhook_view(await found(self._database.acting_as(request.parameters.tenant), request.parameters))

    async def change(self, request: ApiRequest[OfWebhook, WebhookChange]) -> WebhookView:
        """Change an endpoint."""
        webhooks = self._database.acting_as(request.parameters.tenant)
        changes = {name: value for name, value in request.body.model_dump().items() if value is not None}
        if "url" in changes:
            self._check_url(changes["url"])
        endpoint = replace(await found(webhooks, request.parameters), **changes)
        changed = await webhooks.update_webhook(endpoint, resume=changes.get("active", False), by=request.caller.id)
        if changed is None:
            raise NotFound(NO_WEBHOOK)
        self._log(request, changed.webhook_id, f"changed ({', '.join(changes) or 'nothing'})")
        return webhook_view(changed)

    async def delete(self, request: ApiRequest[OfWebhook, None]) -> None:
        """Delete an endpoint."""
        names = request.parameters
        if not await self._database.acting_as(names.tenant).delete_webhook(
            names.tenant, names.webhook, request.caller.id
        ):
            raise NotFound(NO_WEBHOOK)
        self._log(request, names.webhook, "deleted")

    async def rotate(self, request: ApiRequest[OfWebhook, None]) -> SecretView:
        """Make a new secret."""
        names, secret = request.parameters, new_secret()
        webhooks = self._database.acting_as(names.tenant)
        await found(webhooks, names)
        sealed = self._sealed(secret, names.tenant, names.webhook)
        if not await webhooks.rotate_secret(names.tenant, names.webhook, sealed, request.caller.id):
            raise NotFound(NO_WEBHOOK)
        self._log(request, names.webhook, "given another secret")
        return SecretView(secret=secret, previous_valid_s=int(OVERLAP_S))

    async def test(self, request: ApiRequest[OfWebhook, None]) -> DeliveryView:
        """Send a test event."""
        webhooks = self._database.acting_as(request.parameters.tenant)
        endpoint = await found(webhooks, request.parameters)
        if not endpoint.active or endpoint.paused_at:
            raise web.HTTPConflict(text="the webhook is switched off or paused; send `active: true` first")
        of = {"webhook_id": endpoint.webhook_id, "message": "a test, at the request of your administrator"}
        event = of_endpoint(TEST, str(uuid4()), endpoint.tenant_id, await self._clock.now(), of)
        return delivery_view(await webhooks.add_delivery(endpoint.webhook_id, event, request.caller.id))

    def _sealed(self, secret: str, tenant: str, webhook: str) -> str:
        """The secret as it is stored. Raises ApiProblem where there is no key."""
        try:
            return self._seals.seal(secret, tenant, webhook)
        except NoSecretKey as exc:
            raise ApiProblem("no_secret_key", str(exc)) from None

    @staticmethod
    def _log(request: ApiRequest[Any, Any], webhook: str, what: str) -> None:
        log.info("webhook %s of %s: %s by %s", webhook, request.parameters.tenant, what, request.caller.id)
