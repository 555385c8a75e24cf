"""`/tenants/{tenant}/schedules`: what a tenant has done with its jobs again and again, at times that it chooses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Protocol
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from schemas.accounts.schedules import MAX_SCHEDULES, OVERVIEW, Schedule, WantedJobs, check_cron, next_tick, zone
from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.ids import Name
from schemas.mail.addresses import Recipients
from sinks.ports.api.schedules import Schedules
from sinks.ports.clock import Clock
from sinks.ports.tenants import PerTenant
from web.auth.access import ADMIN
from web.parameters import OfTenant
from web.problems import FieldProblem, InvalidRequest
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

PATH: Final = "/tenants/{tenant}/schedules"

NO_SCHEDULE: Final = "there is no such schedule"


class ScheduleDatabase(Clock, PerTenant[Schedules], Protocol):
    """The database."""


class OfSchedule(OfTenant):
    """A schedule."""

    id: UUID


class NewSchedule(BaseModel):
    """A schedule to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    cron: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        description="minute, hour, day of the month, month, day of the week, as in cron; at most once an hour. Null: "
        "once, now"
    )
    timezone: Annotated[str, Field(max_length=64, description="IANA's name of the time zone of these times")] = "UTC"
    enrichment: Annotated[
        Name,
        Field(
            description="which kind is made again: one that is made here; or `overview`, one report on all these jobs, "
            "which is mailed"
        ),
    ]
    mail_to: Recipients = Field((), description="whom an `overview` is mailed to")
    jobs: WantedJobs = Field(
        default_factory=WantedJobs,
        description="of which completed jobs; each that was uploaded with `enrich: false` is left out",
    )


class ScheduleView(Data):
    """A schedule."""

    id: UUID
    name: str
    cron: str | None = Field(description="null: it is carried out once")
    timezone: str
    enrichment: str
    jobs: WantedJobs
    mail_to: list[str]
    next_at: datetime | None = Field(
        description="when it is carried out next, or the time that is being carried out; null if it is over"
    )
    asked: int = Field(description="of how many jobs it was asked for until now, while it is being carried out")
    last_at: datetime | None = Field(description="the last time that was carried out")
    last_asked: int | None = Field(description="of how many jobs it was then asked for")
    last_error: str | None
    created_by: str
    created_at: datetime


class ScheduleList(Data):
    """A tenant's schedules."""

    schedules: list[ScheduleView]


_NEW: Final = {
    "name": "index every night",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "enrichment": "document",
    "jobs": {"last_days": 30, "metadata": {"team": "7"}},
    "mail_to": [],
}
_EXAMPLE: Final[dict[str, Any]] = _NEW | {
    "id": "0b0f1f6e-0000-4000-8000-00000000000c",
    "next_at": "2026-05-02T01:00:00Z",
    "asked": 0,
    "last_at": "2026-05-01T01:00:00Z",
    "last_asked": 417,
    "last_error": None,
    "created_by": "ck_00000000000000000000",
    "created_at": "2026-04-01T12:00:00Z",
}


class TenantSchedules:
    """A tenant's schedules. `enrichments` are the kinds that are made here; `mails`: whether reports are mailed."""

    def __init__(self, database: ScheduleDatabase, enrichments: tuple[str, ...], *, mails: bool = False) -> None:
        self._database = database
        self._kinds = (*enrichments, OVERVIEW) if mails else enrichments

    def routes(self) -> list[AnyRoute]:
        """Make, list, read, delete."""
        one: dict[str, Any] = {"path": f"{PATH}/{{id}}", "parameters": OfSchedule, "access": ADMIN}
        many: dict[str, Any] = {"path": PATH, "parameters": OfTenant, "access": ADMIN}
        return [
            Route(
                method="POST",
                operation_id="create_schedule",
                summary="Have an enrichment made again, of some jobs, at some times or once",
                handler=self.create,
                body=RequestBody(NewSchedule, _NEW, max_bytes=16_384),
                responses={
                    201: ResponseSpec("the schedule", ScheduleView, _EXAMPLE),
                    409: ResponseSpec(f"the tenant has {MAX_SCHEDULES} schedules already"),
                },
                accepts_idempotency_key=True,
                **many,
            ),
            Route(
                method="GET",
                operation_id="schedules",
                summary="A tenant's schedules, the oldest first",
                handler=self.list,
                responses={200: ResponseSpec("all of them", ScheduleList, {"schedules": [_EXAMPLE]})},
                **many,
            ),
            Route(
                method="GET",
                operation_id="schedule",
                summary="A schedule",
                handler=self.read,
                responses={200: ResponseSpec("the schedule", ScheduleView, _EXAMPLE)},
                **one,
            ),
            Route(
                method="DELETE",
                operation_id="delete_schedule",
                summary="Delete a schedule; what it has asked for already is made",
                handler=self.delete,
                responses={204: ResponseSpec("it is deleted")},
                **one,
            ),
        ]

    async def create(self, request: ApiRequest[OfTenant, NewSchedule]) -> web.StreamResponse:
        """Make a schedule."""
        tenant, body = request.parameters.tenant, request.body
        self._check(body)
        now = await self._database.now()
        schedule = Schedule(
            tenant_id=tenant,
            schedule_id=request.once.new_id(),
            name=body.name,
            cron=body.cron,
            timezone=body.timezone,
            enrichment=body.enrichment,
            jobs=body.jobs.model_dump(mode="json", exclude_defaults=True),
            mail_to=list(body.mail_to),
            created_by=request.caller.id,
            due_at=next_tick(body.cron, body.timezone, now) if body.cron else now,
        )
        view = _view(await self._database.acting_as(tenant).add_schedule(schedule))
        location = f"/tenants/{tenant}/schedules/{view.id}"
        return web.json_response(text=view.model_dump_json(), status=201, headers={"Location": location})

    async def list(self, request: ApiRequest[OfTenant, None]) -> ScheduleList:
        """All schedules."""
        tenant = request.parameters.tenant
        return ScheduleList(schedules=list(map(_view, await self._database.acting_as(tenant).schedules(tenant))))

    async def read(self, request: ApiRequest[OfSchedule, None]) -> ScheduleView:
        """One schedule."""
        names = request.parameters
        schedule = await self._database.acting_as(names.tenant).schedule(names.tenant, names.id)
        if schedule is None:
            raise NotFound(NO_SCHEDULE)
        return _view(schedule)

    async def delete(self, request: ApiRequest[OfSchedule, None]) -> None:
        """Delete a schedule."""
        names = request.parameters
        if not await self._database.acting_as(names.tenant).delete_schedule(names.tenant, names.id):
            raise NotFound(NO_SCHEDULE)

    def _check(self, new: NewSchedule) -> None:
        """Raises InvalidRequest for a schedule that could not be carried out."""
        if new.enrichment not in self._kinds:
            detail = f"is not made here; there are: {', '.join(self._kinds) or 'none'}"
            raise InvalidRequest([FieldProblem(pointer="#/enrichment", detail=detail)])
        if bool(new.mail_to) != (new.enrichment == OVERVIEW):
            detail = "an overview needs recipients, and nothing else has any"
            raise InvalidRequest([FieldProblem(pointer="#/mail_to", detail=detail)])
        with _refusing("timezone"):
            zone(new.timezone)
        if new.cron is not None:
            with _refusing("cron"):
                check_cron(new.cron, new.timezone)


@contextlib.contextmanager
def _refusing(field: str) -> Iterator[None]:
    """Raises InvalidRequest about this field for a ValueError."""
    try:
        yield
    except ValueError as exc:
        raise InvalidRequest([FieldProblem(pointer=f"#/{field}", detail=str(exc))]) from None


def _view(schedule: Schedule) -> ScheduleView:
    return ScheduleView(
        id=schedule.schedule_id,
        name=schedule.name,
        cron=schedule.cron,
        timezone=schedule.timezone,
        enrichment=schedule.enrichment,
        jobs=WantedJobs.model_validate(schedule.jobs),
        mail_to=schedule.mail_to,
        next_at=None if schedule.is_over else schedule.due_at,
        asked=schedule.asked,
        last_at=schedule.last_tick_at,
        last_asked=schedule.last_asked,
        last_error=schedule.last_error,
        created_by=schedule.created_by,
        created_at=schedule.created_at or schedule.due_at,
    )
