"""`concord status` and `concord watch`: where a job is, from PostgreSQL, which has the truth."""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agents.commands import reach
from agents.commands.progress import ASK_S, Board, Follower, table
from schemas.errors import NotFound
from schemas.jobs import status_of
from schemas.printable import printable, printable_json

if TYPE_CHECKING:
    from agents.settings import Settings
    from schemas.jobs import Job
    from sinks.postgres import Postgres

#: Seconds for which `watch` waits for a job that is not known yet: its upload may be on its way.
APPEARS_S = 15.0

STATUS = """Shows where a job is: every step with its time and attempts, and the reason if it failed.

  concord status 4be0643f-1d98-573b-97cd-ca98a65347dd
  concord status order-1234 --json | jq .status

Ends with 0, or with 2 when there is no such job."""

WATCH = """Shows where a job is until its run has ended.

  concord watch 4be0643f-1d98-573b-97cd-ca98a65347dd

On a terminal one line, kept fresh; elsewhere a line per change (with --json an object per change).
Ends with 0 when the job was completed, 1 when it failed, 2 when there is no such job."""


def add(commands: Any) -> None:
    """The two commands."""
    for name, does, description, run in (
        ("status", "where a job is", STATUS, run_status),
        ("watch", "follow a job until it has ended", WATCH, run_watch),
    ):
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=does, description=description, formatter_class=raw)
        command.add_argument("job_id", metavar="ID", help="the job's id, as `concord publish` or the upload said it")
        command.add_argument("--json", action="store_true", help="as JSON, in the form of the topic job.status")
        command.set_defaults(run=run)


async def run_status(arguments: argparse.Namespace, settings: Settings) -> int:
    """One look."""
    async with reach.database(reach.addressed(settings)) as database:
        job = await database.job(arguments.job_id)
        if job is None:
            raise _unknown(arguments.job_id)
        dumped = printable_json(status_of(job).model_dump_json(indent=2)) if arguments.json else None
        print(dumped or await _told(job, database))
    return 0


async def _told(job: Job, database: Postgres) -> str:
    told = table(status_of(job), datetime.now(UTC))
    requests = await database.requests(job.job_id, job.run)
    heard = [
        f"  {printable(r.provider):<28} {r.word_count or 0} words, confidence {r.confidence or 0:.0%}"
        for r in requests
        if r.state == "done"
    ]
    return "\n".join([told, *(["", "heard:", *heard] if heard else [])])


async def run_watch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Look until it has ended."""
    async with reach.database(reach.addressed(settings)) as database:
        job = await _appeared(arguments.job_id, database)
        board = Board({job.job_id: job.filename})
        status = status_of(job)
        if arguments.json:
            async for status in Follower(ask=database.job).until_ended([job.job_id]):
                print(printable_json(status.model_dump_json()), flush=True)
        else:
            async with board.shown():
                async for status in Follower(ask=database.job).until_ended([job.job_id]):
                    board.update(status)
    return int(status.status == "failed")


async def _appeared(job_id: str, database: Postgres) -> Job:
    until = time.monotonic() + APPEARS_S
    while True:
        job = await database.job(job_id)
        if job is not None:
            return job
        if time.monotonic() > until:
            raise _unknown(job_id)
        await asyncio.sleep(ASK_S)


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id!r} in the database: is the id right, and does an `intake` worker run?")
