"""`/tenants/{tenant}/audit` and `/operator/audit`: who changed which keys, settings, webhooks and voice prints."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiohttp import web
from pydantic import Field

from schemas.accounts.changes import About
from schemas.events.base import Data
from web.auth.access import ADMIN, OPERATOR
from web.paging import RowCursor, encode_place, page_response
from web.parameters import OfTenant, Parameters, WholeNumber
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.reading.reports import Reports

#: Changes on a page, unless asked otherwise, and at most.
PAGE, MAX_PAGE = 50, 200


class AccountChangeView(Data):
    """A change."""

    at: datetime
    about: About
    what: str = Field(
        description="created, changed, revoked, rotated, deleted, secret rotated, paused, tested, replayed, allowed, "
        "withdrawn"
    )
    subject: str | None = Field(description="the id of the key or webhook")
    details: dict[str, Any] | None = Field(description="what was changed; never a secret, nor the query of a URL")
    author: str | None = Field(description="the id of the API key that did it; null if Concord itself did")


class AccountChangePage(Data):
    """Some of the changes, newest first."""

    changes: list[AccountChangeView]
    next: str | None = Field(description="cursor of the next page; null on the last")


class _Page(Parameters):
    about: About | None = Field(None, description="only changes of these")
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: RowCursor | None = Field(None, description="`next` of the page before")


class _PageOfTenant(_Page, OfTenant):
    pass


_EXAMPLE: Final = {
    "changes": [
        {
            "at": "2026-05-01T12:00:01Z",
            "about": "webhooks",
            "what": "changed",
            "subject": "wh_0d6b2a6e7c3f4d54a1f0c7b6a9e81234",
            "details": {"active": True, "resumed": True},
            "author": "key_8f3a1c55d7e0",
        }
    ],
    "next": encode_place(4711),
}


class AccountAudit:
    """The audit log of a tenant besides its jobs', and of operators."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[AnyRoute]:
        """One route for tenants, and one for operators."""
        page = {200: ResponseSpec("one page of them, newest first", AccountChangePage, _EXAMPLE)}
        return [
            Route(
                method="GET",
                path="/tenants/{tenant}/audit",
                operation_id="tenants_tenant_audit",
                summary="Who changed which of a tenant's keys, settings, webhooks and voice prints",
                handler=self.audit,
                parameters=_PageOfTenant,
                responses=page,
                access=ADMIN,
            ),
            Route(
                method="GET",
                path="/operator/audit",
                operation_id="operator_audit",
                summary="Who changed which of operators' keys",
                handler=self.audit,
                parameters=_Page,
                responses=page,
                access=OPERATOR,
            ),
        ]

    async def audit(self, request: ApiRequest[Any, None]) -> web.StreamResponse:
        """A page of the changes."""
        asked: _Page = request.parameters
        tenant = asked.tenant if isinstance(asked, _PageOfTenant) else None
        # One more than asked for tells whether there is a next page.
        rows = await self._reports.account_changes(
            tenant, limit=asked.limit + 1, before=asked.cursor, about=asked.about
        )
        following = encode_place(rows[asked.limit - 1].id) if len(rows) > asked.limit else None
        names = AccountChangeView.model_fields
        changes = [AccountChangeView(**{name: getattr(row, name) for name in names}) for row in rows[: asked.limit]]
        return page_response(request.http, AccountChangePage(changes=changes, next=following))
