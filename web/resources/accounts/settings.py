"""`/tenants/{tenant}/settings`: what holds for one tenant instead of the installation's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from aiohttp import web
from pydantic import Field

from schemas.accounts.settings import LIMITS, OPERATORS, AccountSettings, SettingsVersion
from schemas.errors import InvalidInput
from sinks.ports.accounts.settings import EffectiveSettings, StoredSettings
from sinks.ports.tenants import PerTenant
from web.auth.access import ADMIN
from web.conditions.preconditions import changed, check_if_match, etag
from web.parameters import Header, OfTenant
from web.problems import ApiProblem, FieldProblem, InvalidRequest
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from web.auth.caller import Caller


class Effective(EffectiveSettings, Protocol):
    """What holds for tenants."""

    @property
    def defaults(self) -> AccountSettings:
        """The installation's settings."""


#: Checks a template of mails: which part of them it makes, and its text. Raises `InvalidInput`.
CheckTemplate = Callable[[str, str], None]


class ChangeParameters(OfTenant):
    """Whose settings are changed, and from which version."""

    if_match: Annotated[str | None, Header("If-Match")] = Field(None, description="the `ETag` of what you have read")


_EXAMPLE: Final = AccountSettings(requests_per_minute=600, audio_days=14).model_dump(mode="json")


class TenantSettings:
    """The settings of tenants. `changed` is called at once with what other workers are told by PostgreSQL."""

    def __init__(
        self,
        database: PerTenant[StoredSettings],
        effective: Effective,
        changed: Callable[[str], None] = lambda _: None,
        check_template: CheckTemplate = lambda _part, _source: None,
    ) -> None:
        self._database, self._effective, self._changed = database, effective, changed
        self._check_template = check_template

    def routes(self) -> list[AnyRoute]:
        """Settings are read, replaced and changed; and read as they hold."""
        path = "/tenants/{tenant}/settings"
        shown = {200: ResponseSpec("null: the installation's value; `ETag` is the version", AccountSettings, _EXAMPLE)}
        changes: Any = {
            "parameters": ChangeParameters,
            "access": ADMIN,
            "responses": shown
            | {
                403: ResponseSpec(f"only an operator may raise {', '.join(LIMITS)}, or change {', '.join(OPERATORS)}"),
                412: ResponseSpec("somebody else has changed them since"),
                428: ResponseSpec("`If-Match` is missing"),
            },
        }
        body = RequestBody(AccountSettings, {"requests_per_minute": 600, "audio_days": 14})
        patch = RequestBody(
            AccountSettings, {"audio_days": None}, media_types=("application/merge-patch+json", "application/json")
        )
        return [
            Route(
                method="GET",
                path=path,
                operation_id="tenants_tenant_settings",
                summary="What is set for a tenant",
                handler=self.get,
                parameters=OfTenant,
                responses=shown,
                access=ADMIN,
            ),
            Route(
                method="GET",
                path=f"{path}/effective",
                operation_id="tenants_tenant_settings_effective",
                summary="What holds for a tenant: its settings over the installation's",
                handler=self.effective,
                parameters=OfTenant,
                responses={200: ResponseSpec("null: there is no limit", AccountSettings, _EXAMPLE)},
            ),
            Route(
                method="PUT",
                path=path,
                operation_id="tenants_tenant_settings_replace",
                summary="Replace what is set for a tenant",
                handler=self.replace,
                body=body,
                **changes,
            ),
            Route(
                method="PATCH",
                path=path,
                operation_id="tenants_tenant_settings_change",
                summary="Change some of what is set for a tenant; null takes a setting away",
                handler=self.change,
                body=patch,
                **changes,
            ),
        ]

    async def get(self, request: ApiRequest[OfTenant, None]) -> web.StreamResponse:
        """What is set."""
        return _shown(await self._stored(request.parameters.tenant).account_settings(request.parameters.tenant))

    async def effective(self, request: ApiRequest[OfTenant, None]) -> AccountSettings:
        """What holds."""
        return await self._effective.settings_of(request.parameters.tenant)

    async def replace(self, request: ApiRequest[ChangeParameters, AccountSettings]) -> web.StreamResponse:
        """Set these, and nothing else."""
        return await self._save(request, lambda _: request.body)

    async def change(self, request: ApiRequest[ChangeParameters, AccountSettings]) -> web.StreamResponse:
        """Set those that are sent (RFC 7396)."""
        sent = {name: getattr(request.body, name) for name in request.body.model_fields_set}
        return await self._save(request, lambda current: current.model_copy(update=sent))

    async def _save(
        self,
        request: ApiRequest[ChangeParameters, AccountSettings],
        made_from: Callable[[AccountSettings], AccountSettings],
    ) -> web.StreamResponse:
        tenant, database = request.parameters.tenant, self._stored(request.parameters.tenant)
        current = await database.account_settings(tenant)
        check_if_match(request.parameters.if_match, etag(current.version))
        new = made_from(current.settings)
        self._check(request.caller, current.settings, new)
        saved = await database.save_account_settings(tenant, new, current.version, request.caller.id)
        if saved is None:
            raise changed(etag((await database.account_settings(tenant)).version))
        self._changed(f"settings {tenant}")
        return _shown(saved)

    def _stored(self, tenant: str) -> StoredSettings:
        return self._database.acting_as(tenant)

    def _check(self, caller: Caller, current: AccountSettings, new: AccountSettings) -> None:
        """Raises InvalidRequest or ApiProblem for settings that this installation, or this caller, cannot have."""
        defaults = self._effective.defaults
        if unknown := [name for name in new.recognizers or () if name not in (defaults.recognizers or ())]:
            there_are = ", ".join(defaults.recognizers or ())
            detail = f"there is no {', '.join(unknown)} here; there are: {there_are}"
            raise InvalidRequest([FieldProblem(pointer="#/recognizers", detail=detail)])
        if new.enrich and not defaults.enrich:
            raise InvalidRequest([FieldProblem(pointer="#/enrich", detail="nothing is made of transcripts here")])
        if new.mail_to and defaults.mail_to is None:
            raise InvalidRequest([FieldProblem(pointer="#/mail_to", detail="nothing is mailed here")])
        self._check_templates(new)
        before, after = current.over(defaults), new.over(defaults)
        raised = [name for name in LIMITS if _is_higher(getattr(after, name), getattr(before, name))]
        if raised and not caller.is_operator:
            held = ", ".join(f"{name} ({getattr(before, name)})" for name in raised)
            raise ApiProblem("forbidden", f"you may lower {held}, and only an operator may raise it")
        set_by_operators = [name for name in OPERATORS if getattr(new, name) != getattr(current, name)]
        if set_by_operators and not caller.is_operator:
            raise ApiProblem("forbidden", f"only an operator may change {', '.join(set_by_operators)}")

    def _check_templates(self, new: AccountSettings) -> None:
        """Raises InvalidRequest for templates that could not be rendered."""
        for part in ("subject", "text", "html"):
            source = getattr(new, f"mail_{part}")
            try:
                if source is not None:
                    self._check_template(part, source)
            except InvalidInput as exc:
                raise InvalidRequest([FieldProblem(pointer=f"#/mail_{part}", detail=str(exc))]) from exc


def _is_higher(after: float | None, before: float | None) -> bool:
    """Of two limits, where None is no limit."""
    return before is not None and (after is None or after > before)


def _shown(stored: SettingsVersion) -> web.StreamResponse:
    return web.json_response(text=stored.settings.model_dump_json(), headers={"ETag": etag(stored.version)})
