"""`concord status` and `concord watch`: show a job's status from PostgreSQL, once or until its run has ended."""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agents.commands import reach
from agents.commands.jobs.progress import ASK_S, Board, Follower, table
from schemas.errors import NotFound
from schemas.jobs.status import status_of
from schemas.printable import printable, printable_json

if TYPE_CHECKING:
    from agents.fleet.settings import Settings
    from schemas.jobs.rows import Job
    from sinks.postgres.database import Postgres
    from sinks.postgres.reader import Reader

#: Seconds for which `watch` waits for a job that does not exist yet: its upload may not be read yet.
APPEARS_S = 15.0

STATUS = """Shows a job's status: every step with its time and attempts, and the reason if it failed.

  concord status 4be0643f-1d98-573b-97cd-ca98a65347dd
  concord status order-1234 --tenant acme --json | jq .status        (by the reference in the upload)

The exit status is 0, or 2 when there is no such job, or several tenants have one of that name."""

WATCH = """Shows a job's status until its run has ended.

  concord watch 4be0643f-1d98-573b-97cd-ca98a65347dd

On a terminal one line, updated in place; elsewhere one line for each change (with --json one object for each change).
The exit status is 0 when the job was completed, 1 when it failed, 2 when there is no such job."""


def add(commands: Any) -> None:
    """Add the two commands to the parser."""
    for name, description, run in (("status", STATUS, run_status), ("watch", WATCH, run_watch)):
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, description=description, formatter_class=raw)
        command.add_argument("job", metavar="JOB", help="its id, as `concord publish` prints it, or its reference")
        command.add_argument(
            "--tenant", metavar="T", help="the job's tenant; needed where several have a job of that name"
        )
        command.add_argument("--json", action="store_true", help="as JSON, in the form of the topic job.status")
        command.set_defaults(run=run)


async def run_status(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the job's status."""
    async with reach.both(reach.addressed(settings)) as (database, reader):
        job = await reach.job_named(arguments.job, arguments.tenant, reader)
        if job is None:
            raise _unknown(arguments.job)
        document = printable_json(status_of(job).model_dump_json(indent=2)) if arguments.json else None
        print(document or await _text(job, database))
    return 0


async def _text(job: Job, database: Postgres) -> str:
    steps = table(status_of(job), datetime.now(UTC))
    requests = await database.requests(*job.key, job.run)
    hypotheses = [
        f"  {printable(r.provider):<28} {r.word_count or 0} words, confidence {r.confidence or 0:.0%}"
        for r in requests
        if r.hypothesis_uri
    ]
    return "\n".join([steps, *(["", "heard:", *hypotheses] if hypotheses else [])])


async def run_watch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print each change of the job's status until its run has ended."""
    async with reach.both(reach.addressed(settings)) as (database, reader):
        job = await _wait_for_job(arguments.job, arguments.tenant, reader)
        board = Board({job.key: job.filename})
        status = status_of(job)
        if arguments.json:
            async for status in Follower(ask=database.job).until_ended([job.key]):
                print(printable_json(status.model_dump_json()), flush=True)
        else:
            async with board.shown():
                async for status in Follower(ask=database.job).until_ended([job.key]):
                    board.update(status)
    return int(status.status == "failed")


async def _wait_for_job(name: str, tenant: str | None, reader: Reader) -> Job:
    deadline = time.monotonic() + APPEARS_S
    while True:
        job = await reach.job_named(name, tenant, reader)
        if job is not None:
            return job
        if time.monotonic() > deadline:
            raise _unknown(name)
        await asyncio.sleep(ASK_S)


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no job {name!r} in the database: is the id right, and does an `intake` worker run?")
