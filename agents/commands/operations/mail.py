"""`concord mail`: lists what became of mails, and sends one again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

from agents.commands import reach
from agents.upkeep.scheduler import beginning
from schemas.errors import NotFound
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Job
from schemas.mail.rows import Mail, MailState
from schemas.printable import printable

if TYPE_CHECKING:
    from agents.fleet.settings import Settings

DESCRIPTION = """Shows mails with reports that were not taken, or of which that is unknown: those `in_doubt`, whose
content the mail server got and did not answer, are never sent again by themselves.

  concord mail list                  what waits, was refused, or is in doubt
  concord mail list --state sent
  concord mail resend JOB            send it again, with the newest report: to those who have not got it, else to all"""

#: Most rows that are listed.
LISTED = 1000

#: States that somebody may have to do something about.
_OPEN: tuple[MailState, ...] = ("in_doubt", "refused", "waiting", "sending")


def add(commands: Any) -> None:
    """Add the command and its verbs to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("mail", description=DESCRIPTION, formatter_class=raw)
    verbs = command.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("list", description=DESCRIPTION, formatter_class=raw)
    verb.add_argument("--state", choices=get_args(MailState), help="only these")
    verb.set_defaults(run=run_list)
    verb = verbs.add_parser("resend", description=DESCRIPTION, formatter_class=raw)
    verb.add_argument("job", metavar="JOB", help="its id or its reference")
    verb.add_argument("--tenant", metavar="T", help="the job's tenant")
    verb.set_defaults(run=run_resend)


async def run_list(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print mails in these states, the newest first."""
    async with reach.database(reach.addressed(settings)) as database:
        rows = await database.mails((arguments.state,) if arguments.state else _OPEN, LISTED)
    print("\n".join(map(_line, rows)) or "there is none")
    return 0


def _line(row: Mail) -> str:
    time = f"{row.updated_at:%Y-%m-%d %H:%M}" if row.updated_at else "?"
    people = f"{len(row.accepted)} taken, {len(row.refused)} refused, {len(row.waiting)} waiting"
    job = f"{printable(row.tenant_id)} {printable(row.job_id)} run {row.run}"
    return f"{row.state:<9} {time}  {job}  {people}, {row.attempts} attempts  {printable(row.answer or '')}"


async def run_resend(arguments: argparse.Namespace, settings: Settings) -> int:
    """Have the mail of a job's newest run sent again."""
    async with reach.both(reach.addressed(settings)) as (database, reader):
        job = await reach.job_named(arguments.job, arguments.tenant, reader)
        if job is None:
            raise NotFound(f"there is no job {arguments.job}")
        [written] = await database.commit([resending(job)])
    if written is None or not written.applied:
        raise NotFound(f"no mail of {arguments.job} has ended: it has no recipients, or is being sent; see its status")
    print("it is sent again; `concord status` and `concord mail list` say what becomes of it")
    return 0


def resending(job: Job) -> Step:
    """The step that has the mail begun again."""
    return Step("mail resend", uuid4(), beginning(job, "mail", "concord mail resend"))
