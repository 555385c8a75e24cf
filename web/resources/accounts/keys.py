"""`/tenants/{tenant}/keys` and `/operator/keys`: API keys are made, listed, rotated and revoked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from aiohttp import web
from pydantic import Field, PlainValidator, WithJsonSchema

from schemas.accounts.keys import MOST_KEYS, ApiKey, new_key
from schemas.errors import NotFound
from sinks.ports.accounts.keys import Keys
from sinks.ports.reads import Cursor
from sinks.ports.tenants import PerTenant
from web.auth.access import ADMIN, OPERATOR
from web.paging import page_response
from web.parameters import OfTenant, Parameters, WholeNumber
from web.problems import ApiProblem
from web.resources.accounts import key_views as views
from web.resources.jobs.listing import decode_cursor, encode_cursor
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from web.auth.access import Access

#: Keys on a page, unless asked otherwise, and at most.
PAGE, MAX_PAGE = 50, 200

NO_KEY: Final = "there is no such key"


class KeyDatabase(Keys, PerTenant[Keys], Protocol):
    """All keys, and those of one tenant."""


class _List(Parameters):
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[Cursor, PlainValidator(decode_cursor), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before"
    )


class _One(Parameters):
    id: str = Field(max_length=128, description="the key's id, not its text")


class _ListOfTenant(_List, OfTenant):
    pass


class _OneOfTenant(_One, OfTenant):
    pass


@dataclass(frozen=True)
class _Owner:
    """What differs between a tenant's keys and operators'."""

    path: str
    operation: str
    whose: str
    plural: str
    access: Access
    body: RequestBody[Any]
    parameters: type[Parameters]
    listing: type[_List]
    one: type[_One]


_TENANT: Final = _Owner(
    "/tenants/{tenant}/keys",
    "tenants_tenant_keys",
    "a tenant's API key",
    "a tenant's API keys, revoked ones among them",
    ADMIN,
    RequestBody(views.NewTenantKey, views.NEW_EXAMPLE),
    OfTenant,
    _ListOfTenant,
    _OneOfTenant,
)
_OPERATOR: Final = _Owner(
    "/operator/keys",
    "operator_keys",
    "an operator's API key",
    "operators' API keys, revoked ones among them",
    OPERATOR,
    RequestBody(views.NewOperatorKey, views.NEW_OPERATOR_EXAMPLE),
    Parameters,
    _List,
    _One,
)


class KeyManagement:
    """The keys of tenants and operators. `changed` is called at once with what other workers are told by PostgreSQL."""

    def __init__(self, database: KeyDatabase, changed: Callable[[str], None] = lambda _: None) -> None:
        self._database, self._changed = database, changed

    def routes(self) -> list[AnyRoute]:
        """The same five routes for tenants and operators."""
        return [route for owner in (_TENANT, _OPERATOR) for route in self._routes(owner)]

    def _routes(self, owner: _Owner) -> list[AnyRoute]:
        page = {"keys": [views.KEY_EXAMPLE], "next": None}
        made = ResponseSpec("its text is shown only now", views.MadeKey, views.MADE_EXAMPLE)
        missing = {404: ResponseSpec(NO_KEY)}
        rotation = RequestBody(views.Rotation, {"grace_s": 3600})

        def route(method: Any, suffix: str, name: str, handler: Any, parameters: Any, **more: Any) -> AnyRoute:
            operation = f"{owner.operation}_{name}"
            path = owner.path + suffix
            return Route(
                method=method, path=path, operation_id=operation, handler=handler, parameters=parameters,
                access=owner.access, **more,
            )  # fmt: skip

        return [
            route("GET", "", "list", self.list, owner.listing, summary=f"List {owner.plural}",
                  responses={200: ResponseSpec("one page of them, newest first", views.KeyPage, page)}),
            route("POST", "", "create", self.create, owner.parameters, body=owner.body, summary=f"Make {owner.whose}",
                  responses={201: made, 409: ResponseSpec(f"there are {MOST_KEYS} valid keys already")}),
            route("GET", "/{id}", "get", self.get, owner.one, summary=f"Show {owner.whose}",
                  responses={200: ResponseSpec("without its secret", views.KeyView, views.KEY_EXAMPLE), **missing}),
            route("DELETE", "/{id}", "revoke", self.revoke, owner.one, summary=f"Revoke {owner.whose} at once",
                  responses={204: ResponseSpec("no worker accepts it any more"), **missing}),
            route("POST", "/{id}/rotate", "rotate", self.rotate, owner.one, body=rotation,
                  summary=f"Replace {owner.whose} by a new one of the same name, scopes and lifetime",
                  responses={201: made, 409: ResponseSpec("the key is not valid any more, or there are too many"),
                             **missing}),
        ]  # fmt: skip

    async def list(self, request: ApiRequest[_List, None]) -> web.StreamResponse:
        """A page of the keys, revoked ones among them."""
        keys, tenant = self._keys(request.parameters)
        limit, before = request.parameters.limit, request.parameters.cursor
        found = await keys.keys(tenant, limit + 1, (before.created_at, before.job_id) if before else None)
        following = _cursor(found[limit - 1]) if len(found) > limit else None
        page = views.KeyPage(
            keys=[views.KeyView.model_validate(views.shown(key)) for key in found[:limit]], next=following
        )
        return page_response(request.http, page)

    async def create(self, request: ApiRequest[Parameters, views.NewOperatorKey]) -> web.StreamResponse:
        """Make a key."""
        keys, tenant = self._keys(request.parameters)
        new, body = new_key(), request.body
        stored = await keys.add_key(
            ApiKey(
                id=new.id,
                tenant_id=tenant,
                name=body.name,
                prefix=new.prefix,
                hash=new.hash,
                scopes=body.granted,
                created_by=request.caller.id,
                expires_at=body.expires_at,
            )
        )
        if stored is None:
            raise ApiProblem("too_many_keys", f"there are {MOST_KEYS} valid keys already; revoke one first")
        return self._made(request.http.rel_url.path, stored, new.text)

    async def get(self, request: ApiRequest[_One, None]) -> views.KeyView:
        """One key."""
        keys, tenant = self._keys(request.parameters)
        key = await keys.key(tenant, request.parameters.id)
        if key is None:
            raise NotFound(NO_KEY)
        return views.KeyView.model_validate(views.shown(key))

    async def revoke(self, request: ApiRequest[_One, None]) -> None:
        """Revoke a key. Revoking it again changes nothing."""
        keys, tenant = self._keys(request.parameters)
        if not await keys.revoke_key(tenant, request.parameters.id, request.caller.id):
            raise NotFound(NO_KEY)
        self._changed("keys")

    async def rotate(self, request: ApiRequest[_One, views.Rotation]) -> web.StreamResponse:
        """Replace a key."""
        keys, tenant = self._keys(request.parameters)
        key_id, new = request.parameters.id, new_key()
        stored = await keys.rotate_key(tenant, key_id, new, request.body.grace_s, request.caller.id)
        if stored is None:
            old = await keys.key(tenant, key_id)
            if old is None:
                raise NotFound(NO_KEY)
            if old.is_valid(datetime.now(UTC)):
                detail = f"there are {MOST_KEYS} valid keys already; revoke one first, or rotate with `grace_s` 0"
                raise ApiProblem("too_many_keys", detail)
            raise ApiProblem("key_not_valid", "this key has expired or is revoked; make a new one")
        return self._made(request.http.rel_url.path.removesuffix(f"/{key_id}/rotate"), stored, new.text)

    def _keys(self, parameters: Parameters) -> tuple[Keys, str | None]:
        tenant = parameters.tenant if isinstance(parameters, OfTenant) else None
        return (self._database if tenant is None else self._database.acting_as(tenant)), tenant

    def _made(self, path: str, key: ApiKey, text: str) -> web.StreamResponse:
        self._changed("keys")
        made = views.MadeKey.model_validate(views.shown(key) | {"key": text})
        return web.json_response(
            text=made.model_dump_json(), status=201, headers={"Location": f"{path.rstrip('/')}/{key.id}"}
        )


def _cursor(key: ApiKey) -> str | None:
    return encode_cursor(Cursor(key.created_at, key.id)) if key.created_at else None
