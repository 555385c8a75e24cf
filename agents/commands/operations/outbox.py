"""`concord outbox`: events that Kafka refused for good, and that the relay has set aside."""

from __future__ import annotations

import argparse
import base64
from typing import TYPE_CHECKING, Any

import orjson

from agents.commands import reach
from agents.commands.operations import dlq
from agents.runtime.outbox.refused_events import depends
from schemas import topics
from schemas.envelope import Record, decode
from schemas.errors import InvalidInput, MalformedEvent, NotFound
from schemas.events.job import JobStatus
from schemas.messages import Message, load_headers
from schemas.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agents.fleet.settings import Settings
    from schemas.jobs.rows import Job
    from sinks.postgres.database import Postgres

DESCRIPTION = """An event that Kafka refuses for good (too large for its topic, say) is set aside, so that others are
published; the run that needed it has failed with the code publish_refused. When the reason is gone, put it back.

  concord outbox list                    the newest, and why each was refused
  concord outbox retry 17 18             publish two of them after all
  concord outbox retry --all
  concord outbox drop 17                 forget one

A job that has failed for want of its event is run again instead. `concord doctor` says which topics take too little."""


def add(commands: Any) -> None:
    """The command and its three verbs."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(
        "outbox", help="events that Kafka refused", description=DESCRIPTION, formatter_class=raw
    )
    verbs = command.add_subparsers(metavar="VERB", required=True)
    listed = verbs.add_parser("list", help="what was set aside", description=DESCRIPTION, formatter_class=raw)
    listed.add_argument("--limit", type=dlq.positive, default=50, help="how many, newest first (default: 50)")
    listed.add_argument("--json", action="store_true", help="a JSON object per event, whole")
    listed.set_defaults(run=run_list)
    retry = verbs.add_parser("retry", help="publish them after all", description=DESCRIPTION, formatter_class=raw)
    retry.add_argument("id", metavar="ID", nargs="*", type=int, help="as `list` says them")
    retry.add_argument("--all", action="store_true", help="all of them")
    retry.set_defaults(run=run_retry)
    drop = verbs.add_parser("drop", help="forget them", description=DESCRIPTION, formatter_class=raw)
    drop.add_argument("id", metavar="ID", nargs="+", type=int, help="as `list` says them")
    drop.set_defaults(run=run_drop)


#: Events that are put back at once.
_MANY = 10_000


async def run_list(arguments: argparse.Namespace, settings: Settings) -> int:
    """The newest."""
    async with reach.database(reach.addressed(settings)) as database:
        rows = await database.refused(arguments.limit)
    if arguments.json:
        print("".join(f"{printable_json(orjson.dumps(_as_json(row)).decode())}\n" for row in rows), end="")
    else:
        print("\n".join(listed(rows)) if rows else "nothing was set aside")
    return 0


def listed(rows: Iterable[Any]) -> list[str]:
    """A line for each row, for people."""
    head = f"{'id':>8}  {'refused':<19}  {'topic':<28} {'bytes':>9}  {'job':<36}  why"
    return [head, *(_line(row) for row in rows)]


def _line(row: Any) -> str:
    when, size = f"{row['refused_at'].astimezone():%Y-%m-%d %H:%M:%S}", len(row["value"] or b"")
    job = printable(row["job_id"] or "")[:36]
    why = printable(row["error"])[:200]
    return f"{row['id']:>8}  {when:<19}  {printable(row['topic']):<28} {size:>9}  {job:<36}  {why}"


def _as_json(row: Any) -> dict[str, Any]:
    told = {name: row[name] for name in ("id", "topic", "tenant_id", "job_id", "run", "error")}
    told["event_id"] = str(row["event_id"])
    for name in ("key", "value", "headers"):
        told[name] = None if row[name] is None else base64.b64encode(row[name]).decode()
    return told | {"refused_at": row["refused_at"]}


async def run_retry(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put some back."""
    if bool(arguments.id) == arguments.all:
        raise InvalidInput("say which: ids as `concord outbox list` shows them, or --all")
    async with reach.database(reach.addressed(settings)) as database:
        rows = await _found(database, None if arguments.all else arguments.id)
        plans = {row["id"]: plan(row, await _job(row, database)) for row in rows}
        there = await database.settle_refused([(id, made.message) for id, made in plans.items() if made])
    for id, made in plans.items():
        if made is None:
            print(f"{id}: stays, no record can be made of it")
        else:
            print(f"{id}: {made.said if id in there else 'is not there any more'}")
    if not rows:
        print("nothing was set aside")
    elif len(rows) == _MANY:
        print(f"these were the newest {_MANY}; say it again for the others")
    return 0


async def run_drop(arguments: argparse.Namespace, settings: Settings) -> int:
    """Forget some."""
    async with reach.database(reach.addressed(settings)) as database:
        rows = await _found(database, arguments.id)
        there = await database.settle_refused([(row["id"], None) for row in rows])
    for id in sorted(there):
        print(f"{id}: dropped")
    return 0


async def _found(database: Postgres, ids: Sequence[int] | None) -> list[Any]:
    rows = await database.refused(_MANY, ids)
    missing = sorted(set(ids or ()) - {row["id"] for row in rows})
    if missing:
        raise NotFound(f"no event {', '.join(map(str, missing))} was set aside; see `concord outbox list`")
    return rows[::-1]


async def _job(row: Any, database: Postgres) -> Job | None:
    return await database.job(row["tenant_id"], row["job_id"]) if row["tenant_id"] and row["job_id"] else None


def plan(row: Any, job: Job | None) -> dlq.Plan | None:
    """What to publish instead of a row that was set aside, given its job; None if nothing can be."""
    topic = row["topic"]
    try:
        record = record_of(row)
    except (ValueError, TypeError):
        return None
    if topic == topics.STATUS.name and job is not None and job.version > _version(record):
        return dlq.Plan(None, "dropped, a newer status of its job was published")
    if job is not None and job.status == "failed" and row["run"] == job.run and depends(topic):
        return dlq.Plan(dlq.reprocess(record, job), f"job {job.job_id} failed: run {job.run + 1} asked for")
    back = Message(row["event_id"], topic, row["key"], row["value"], tuple(record.headers))
    return dlq.Plan(back, f"put back, for {topic}")


def record_of(row: Any) -> Record:
    """The row as the record that it would have become; its id is its place."""
    return Record(row["topic"], 0, row["id"], row["key"], row["value"], tuple(load_headers(row["headers"])))


def _version(record: Record) -> int:
    try:
        status = decode(record, {topics.STATUS.name: topics.STATUS}).data
    except MalformedEvent:
        return 0
    return status.version if isinstance(status, JobStatus) else 0
