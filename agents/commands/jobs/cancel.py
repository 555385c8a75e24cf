"""`concord cancel`: ends one job, or all open jobs of a tenant."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from agents.commands import reach
from agents.commands.arguments import confirmed
from agents.upkeep import cancelling
from schemas.errors import InvalidInput, NotFound
from schemas.jobs.rows import OPEN
from schemas.printable import printable

if TYPE_CHECKING:
    from agents.fleet.settings import Settings

DESCRIPTION = """Ends jobs that have not ended: each fails once, with the code `cancelled`, and can be run again like
any failed job. Recordings that wait to be fetched or transcribed are then skipped. Requests already sent to a provider
go on there, and may be billed. Uploads that no worker has read yet become jobs later: repeat the command until it
cancels none.

  concord cancel JOB                                       one, by its id or its reference
  concord cancel JOB --tenant T                            where several tenants have one of this name
  concord cancel --all --tenant T                          every job of a tenant that has not ended
  concord cancel --all --tenant T --status uploaded        only jobs that are not fetched yet (comma list)"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "cancel",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("job", metavar="JOB", nargs="?", help="its id or its reference")
    command.add_argument("--tenant", metavar="T", help="the tenant of the job or jobs")
    command.add_argument("--all", action="store_true", help="all open jobs of the tenant")
    command.add_argument("--status", metavar="S", help="with --all: only jobs in these statuses, a comma list")
    command.add_argument(
        "--reason", metavar="TEXT", default="cancelled by an operator", help="the reason in `job.failed`"
    )
    command.add_argument("--yes", action="store_true", help="with --all: do not ask for confirmation")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Cancel one job, or all of a tenant."""
    if bool(arguments.job) == arguments.all:
        raise InvalidInput("say which job, or --all with --tenant")
    if not arguments.all:
        if arguments.status:
            raise InvalidInput("--status goes with --all")
        return await _one(arguments, settings)
    if not arguments.tenant:
        raise InvalidInput("--all needs --tenant: the jobs of all tenants cannot be cancelled at once")
    statuses = _statuses(arguments.status)
    if not arguments.yes and not confirmed(
        f"End every job of {printable(arguments.tenant)} that is {', '.join(statuses)}?"
    ):
        raise InvalidInput("nothing was cancelled; --yes does it without asking")
    ended = 0
    async with reach.database(reach.addressed(settings)) as database:
        async for count in cancelling.cancel_all(database, arguments.tenant, statuses, arguments.reason):
            ended += count
            print(f"\r{ended} cancelled", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{ended} jobs were cancelled")
    return 0


async def _one(arguments: argparse.Namespace, settings: Settings) -> int:
    async with reach.both(reach.addressed(settings)) as (database, reader):
        job = await reach.job_named(arguments.job, arguments.tenant, reader)
        if job is None:
            raise NotFound(f"there is no job {arguments.job}")
        if not await cancelling.cancel(database, [job], arguments.reason):
            raise InvalidInput(f"{arguments.job} has ended already: see `concord status`")
    print("1 job was cancelled")
    return 0


def _statuses(text: str | None) -> tuple[str, ...]:
    """The statuses in a comma list; by default, those of all jobs that have not ended. Raises InvalidInput."""
    if text is None:
        return OPEN
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or set(names) - set(OPEN):
        raise InvalidInput(f"--status: name some of {', '.join(OPEN)}, with commas between them")
    return names
