"""Schedules: work on a tenant's jobs that is done again and again, at the times of a cron expression."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from schemas.events.base import Language

#: Schedules of one tenant, at most.
MAX_SCHEDULES: Final = 50

#: What a schedule does that mails one report on all its jobs, in place of having something made of each.
OVERVIEW: Final = "overview"

#: Least seconds between two ticks, and ticks that are compared.
LEAST_S: Final = 3600
_COMPARED: Final = 50

#: A Monday long ago, from which expressions are tried.
_SOME_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)

Part = Annotated[str, Field(max_length=255)]


class WantedJobs(BaseModel):
    """Which completed jobs a schedule is about. What is not set excludes none; all that is set holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    last_days: float | None = Field(
        None, gt=0, le=36_500, description="uploaded in so many days before each time of the schedule"
    )
    filename: Part | None = Field(None, description="a part of the filename, in upper or lower case")
    reference_prefix: Part | None = Field(None, description="what the reference begins with")
    metadata: dict[Part, Part] = Field(
        default_factory=dict, max_length=8, description="pairs on the top level of the upload's metadata, as texts"
    )
    language: Language | None = Field(None, description="of the transcript: `en` means `en-US`, too")
    lacking: bool = Field(False, description="only those of which it was not made yet, or could not be")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it is stored."""

    tenant_id: str
    schedule_id: UUID
    name: str
    #: None: it is carried out once.
    cron: str | None
    #: IANA's name.
    timezone: str
    #: The kind of enrichment that is made again; or `OVERVIEW`.
    enrichment: str
    #: `WantedJobs` as JSON.
    jobs: dict[str, Any]
    #: Whom an overview is mailed to.
    mail_to: list[str] = field(default_factory=list, repr=False)
    created_by: str
    created_at: datetime | None = None
    #: The next tick, or the one in progress; and then, behind which job it goes on, and how many it has asked for.
    due_at: datetime
    after_created_at: datetime | None = None
    after_job: str | None = None
    asked: int = 0
    #: The newest claim.
    token: int = 0
    #: The last tick that ended, how many jobs it has asked for, and why it asked for none.
    last_tick_at: datetime | None = None
    last_asked: int | None = None
    last_error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was to be carried out once, and has been."""
        return self.cron is None and self.last_tick_at is not None


def zone(name: str) -> ZoneInfo:
    """A time zone by IANA's name. Raises ValueError if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name, the name of a folder
        raise ValueError("is no time zone of IANA, such as Europe/Berlin or UTC") from None


def next_tick(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time of a schedule after this moment, in UTC. Over changes of the clock it is as in Debian's cron: a
    time that does not exist is the first one that does, and one that comes twice counts once.

    Raises:
        ValueError: It is no cron expression, or there is no such time, or no such zone.
    """
    from cronsim import CronSim, CronSimError

    if len(cron.split()) != 5:
        raise ValueError("has five fields: minute, hour, day of the month, month, day of the week")
    try:
        tick: datetime = next(CronSim(cron, after.astimezone(zone(timezone))))
    except (CronSimError, AssertionError, StopIteration, RecursionError) as exc:
        raise ValueError(f"is no time that comes: {str(exc) or 'never'}") from None
    return tick.astimezone(UTC)


def check_cron(cron: str, timezone: str) -> None:
    """Raises ValueError for an expression that is none, or whose times are less than an hour apart."""
    ticks = [next_tick(cron, timezone, _SOME_DAY)]
    for _ in range(_COMPARED):
        ticks.append(next_tick(cron, timezone, ticks[-1]))
        if (ticks[-1] - ticks[-2]).total_seconds() < LEAST_S:
            raise ValueError("comes more than once an hour")
