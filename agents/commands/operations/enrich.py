"""`concord enrich`: has an enrichment made of all jobs that lack it, and lists how far that is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from agents.commands import reach
from agents.stages import registry
from schemas.accounts.schedules import Schedule, WantedJobs
from schemas.errors import SettingsError
from schemas.printable import printable
from sinks.ports.api.schedules import TooManySchedules

if TYPE_CHECKING:
    from datetime import datetime

    from agents.fleet.settings import Settings

DESCRIPTION = """Has an enrichment made of completed jobs that lack it, such as those of before it was enabled, or
of which it could not be made. The fleet's workers do it in the background, a page of jobs at a time, tenants in turn.
(Transcripts that were never indexed are indexed without being told.)

  concord enrich summary                    of all tenants' jobs
  concord enrich report --tenant acme --last-days 90
  concord enrich document --again           also of those that have it
  concord enrich --list                     what was asked for, and how far it is"""

#: Who has asked for it, in the list of schedules.
AUTHOR = "concord enrich"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("enrich", description=DESCRIPTION, formatter_class=raw)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("kind", metavar="KIND", nargs="?", choices=registry.enrichments(), help="what is to be made")
    what.add_argument("--list", action="store_true", help="list what was asked for")
    command.add_argument("--tenant", metavar="T", help="only of this tenant's jobs")
    command.add_argument("--last-days", metavar="N", type=float, help="only of jobs uploaded in so many days")
    command.add_argument("--again", action="store_true", help="also of jobs that have it")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Ask for it, or list what was asked for."""
    if arguments.list:
        return await _list(arguments, settings)
    if arguments.kind not in settings.enrichments:
        raise SettingsError(f"{arguments.kind} is not made here: CONCORD_ENRICHMENTS does not name it")
    wanted = WantedJobs(lacking=not arguments.again, last_days=arguments.last_days)
    async with reach.database(reach.addressed(settings)) as database:
        now = await database.now()
        tenants = [arguments.tenant] if arguments.tenant else await database.tenants()
        refused = 0
        for tenant in tenants:
            try:
                await database.add_schedule(once(tenant, arguments.kind, wanted, now))
            except TooManySchedules as exc:
                refused += 1
                print(f"{printable(tenant)}: {exc}")
    print(f"asked for {arguments.kind} of {len(tenants) - refused} tenants' jobs; `concord enrich --list` shows it")
    return 1 if refused else 0


def once(tenant: str, kind: str, wanted: WantedJobs, now: datetime) -> Schedule:
    """What has it made once, of jobs that there are now."""
    return Schedule(
        tenant_id=tenant,
        schedule_id=uuid4(),
        name=f"{AUTHOR} {kind}",
        cron=None,
        timezone="UTC",
        enrichment=kind,
        jobs=wanted.model_dump(mode="json", exclude_defaults=True),
        created_by=AUTHOR,
        due_at=now,
    )


async def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    async with reach.database(reach.addressed(settings)) as database:
        tenants = [arguments.tenant] if arguments.tenant else await database.tenants()
        found = [one for tenant in tenants for one in await database.schedules(tenant) if one.cron is None]
    print("\n".join(map(line, found)) or "nothing was asked for")
    return 0


def line(one: Schedule) -> str:
    """One that was asked for: its id and when, whose jobs, what of which of them, by whom, and how far it is."""
    asked = one.last_asked if one.is_over else one.asked
    state = "asked for" if one.is_over else "asking for"
    place = f"back to {one.after_created_at:%Y-%m-%d %H:%M}" if one.after_created_at and not one.is_over else ""
    more = "  ".join(part for part in (place, printable(one.last_error or "")) if part)
    began = f"{one.created_at:%Y-%m-%d %H:%M:%S}" if one.created_at else ""
    about = f"{one.enrichment} of {_which(WantedJobs.model_validate(one.jobs))}"
    by = "" if one.created_by == AUTHOR else f" by {printable(one.created_by)}"
    text = f"{one.schedule_id}  {began}  {printable(one.tenant_id):<20} {about}{by}: {state} {asked or 0} jobs  {more}"
    return text.rstrip()


def _which(jobs: WantedJobs) -> str:
    """The jobs that it is about, in words."""
    parts = ["jobs that lack it" if jobs.lacking else "all jobs"]
    if jobs.last_days is not None:
        parts.append(f"of the last {jobs.last_days:g} days")
    others = jobs.model_dump(exclude={"lacking", "last_days"}, exclude_defaults=True)
    return " ".join([*parts, *(f"{name}={printable(str(value))}" for name, value in others.items())])
