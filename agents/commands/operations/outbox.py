"""`concord outbox`: lists events that Kafka refused for good and the relay has set aside, retries and drops them."""

from __future__ import annotations

import argparse
import base64
from typing import TYPE_CHECKING, Any

import orjson

from agents.commands import reach
from agents.commands.arguments import positive
from agents.commands.operations.replay import Replay, reprocess
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
published; the run that needed it has failed with the code publish_refused. When the reason is fixed, put it back.

  concord outbox list                    the newest, and why each was refused
  concord outbox retry 17 18             publish two of them again
  concord outbox retry --all
  concord outbox drop 17                 delete one

A job that failed because its event was refused is run again instead. `concord doctor` lists the topics whose limits are
too low."""


def add(commands: Any) -> None:
    """Add the command and its three verbs to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("outbox", description=DESCRIPTION, formatter_class=raw)
    verbs = command.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the newest", description=DESCRIPTION, formatter_class=raw)
    listing.add_argument("--limit", type=positive, default=50, help="how many, newest first (default: 50)")
    listing.add_argument("--json", action="store_true", help="one JSON object for each event, whole")
    listing.set_defaults(run=run_list)
    retry = verbs.add_parser("retry", help="publish them again", description=DESCRIPTION, formatter_class=raw)
    retry.add_argument("id", metavar="ID", nargs="*", type=int, help="as `list` shows them")
    retry.add_argument("--all", action="store_true", help="all of them")
    retry.set_defaults(run=run_retry)
    drop = verbs.add_parser("drop", help="delete them", description=DESCRIPTION, formatter_class=raw)
    drop.add_argument("id", metavar="ID", nargs="+", type=int, help="as `list` shows them")
    drop.set_defaults(run=run_drop)


#: Most events that are put back at once.
_MANY = 10_000


async def run_list(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the newest events."""
    async with reach.database(reach.addressed(settings)) as database:
        rows = await database.refused(arguments.limit)
    if arguments.json:
        print("".join(f"{printable_json(orjson.dumps(_as_json(row)).decode())}\n" for row in rows), end="")
    else:
        print("\n".join(table(rows)) if rows else "nothing was set aside")
    return 0


def table(rows: Iterable[Any]) -> list[str]:
    """A line for each row, below a line of headings."""
    heading = f"{'id':>8}  {'refused':<19}  {'topic':<28} {'bytes':>9}  {'job':<36}  why"
    return [heading, *(_line(row) for row in rows)]


def _line(row: Any) -> str:
    time, size = f"{row['refused_at'].astimezone():%Y-%m-%d %H:%M:%S}", len(row["value"] or b"")
    job = printable(row["job_id"] or "")[:36]
    reason = printable(row["error"])[:200]
    return f"{row['id']:>8}  {time:<19}  {printable(row['topic']):<28} {size:>9}  {job:<36}  {reason}"


def _as_json(row: Any) -> dict[str, Any]:
    document = {name: row[name] for name in ("id", "topic", "tenant_id", "job_id", "run", "error")}
    document["event_id"] = str(row["event_id"])
    for name in ("key", "value", "headers"):
        document[name] = None if row[name] is None else base64.b64encode(row[name]).decode()
    return document | {"refused_at": row["refused_at"]}


async def run_retry(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put events back, and print what became of each."""
    if bool(arguments.id) == arguments.all:
        raise InvalidInput("say which: ids as `concord outbox list` shows them, or --all")
    async with reach.database(reach.addressed(settings)) as database:
        rows = await _rows(database, None if arguments.all else arguments.id)
        replays = {row["id"]: plan_replay(row, await _job(row, database)) for row in rows}
        settled = await database.settle_refused([(id, replay.message) for id, replay in replays.items() if replay])
    for id, replay in replays.items():
        print(f"{id}: {_result(replay, settled=id in settled)}")
    if not rows:
        print("nothing was set aside")
    elif len(rows) == _MANY:
        print(f"these were the newest {_MANY}; repeat the command for the others")
    return 0


def _result(replay: Replay | None, *, settled: bool) -> str:
    """What became of an event that was to be put back."""
    if replay is None:
        return "stays, no record can be made of it"
    return replay.summary if settled else "is no longer set aside"


async def run_drop(arguments: argparse.Namespace, settings: Settings) -> int:
    """Delete events."""
    async with reach.database(reach.addressed(settings)) as database:
        rows = await _rows(database, arguments.id)
        settled = await database.settle_refused([(row["id"], None) for row in rows])
    for id in sorted(settled):
        print(f"{id}: dropped")
    return 0


async def _rows(database: Postgres, ids: Sequence[int] | None) -> list[Any]:
    """The rows with these ids, or the newest, oldest first. Raises NotFound if one is not there."""
    rows = await database.refused(_MANY, ids)
    missing = sorted(set(ids or ()) - {row["id"] for row in rows})
    if missing:
        raise NotFound(f"no event {', '.join(map(str, missing))} was set aside; see `concord outbox list`")
    return rows[::-1]


async def _job(row: Any, database: Postgres) -> Job | None:
    return await database.job(row["tenant_id"], row["job_id"]) if row["tenant_id"] and row["job_id"] else None


def plan_replay(row: Any, job: Job | None) -> Replay | None:
    """The replay of a row that was set aside; `job` is its job, if it has one. None if the row is no valid record."""
    topic = row["topic"]
    try:
        record = record_of(row)
    except (ValueError, TypeError):
        return None
    if topic == topics.STATUS.name and job is not None and job.version > _version(record):
        return Replay(None, "dropped, a newer status of its job was published")
    if job is not None and job.status == "failed" and row["run"] == job.run and depends(topic):
        return Replay(reprocess(record, job), f"job {job.job_id} failed: run {job.run + 1} asked for")
    message = Message(row["event_id"], topic, row["key"], row["value"], tuple(record.headers))
    return Replay(message, f"put back, for {topic}")


def record_of(row: Any) -> Record:
    """The row as the record that it would have become, with the row's id as its offset. Raises ValueError and TypeError
    for headers that cannot be read.
    """
    return Record(row["topic"], 0, row["id"], row["key"], row["value"], tuple(load_headers(row["headers"])))


def _version(record: Record) -> int:
    try:
        status = decode(record, {topics.STATUS.name: topics.STATUS}).data
    except MalformedEvent:
        return 0
    return status.version if isinstance(status, JobStatus) else 0
