"""`concord verify`: whether jobs, requests, blobs and what is on its way agree; with `--repair`, they are made to."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from agents.commands import reach
from agents.commands.operations.dlq import positive
from agents.runtime.kafka.group_positions import GroupPositions
from agents.upkeep.stuck_jobs import STAGES
from agents.upkeep.sweeper import Sweeper
from schemas.jobs.rows import TERMINAL
from schemas.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.fleet.settings import Settings
    from schemas.ids import Key
    from schemas.jobs.outcome import Step
    from sinks.ports.blobs import Store
    from sinks.postgres.database import Postgres

#: Files, or blobs, that are looked at in one question.
MANY: Final = 500

#: Seconds for which a job must have stood still.
IDLE_S: Final = 60

DESCRIPTION = """Compares what PostgreSQL, the blob store and Kafka hold, and lists what does not fit together:

  standing still   open jobs for which no event is on its way
  without an end   requests to recognizers of ended runs whose end is not known: they may have been charged
  no transcript    completed jobs without one in PostgreSQL
  lost             blobs that a job refers to and that are not there
  orphan           recordings in the folder of an ended job that nothing refers to
  nobody's         blobs in the folder of no job

  concord verify                  list; the status is 1 if there is anything
  concord verify --repair         put jobs that stand still on their way again, and delete orphans
  concord verify --no-storage     leave blobs out: with many, looking at each takes long

A running fleet does the same to jobs and orphans by itself, a minute or two after they stand still. What --repair
cannot mend (lost blobs, blobs of no job, requests without an end) is for a person to decide."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not fit."""

    kind: str
    tenant_id: str
    job_id: str
    text: str


def add(commands: Any) -> None:
    """The command."""
    command = commands.add_parser(
        "verify",
        help="what does not fit together, and mend it",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--repair", action="store_true", help="put jobs on their way again, delete orphans")
    command.add_argument("--no-storage", action="store_true", help="do not look at blobs")
    command.add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="of each kind, but blobs: all (default: 1000)"
    )
    command.add_argument("--json", action="store_true", help="a JSON object per line")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Look, print, mend."""
    settings = reach.addressed(settings)
    faults = 0
    async with reach.database(settings) as database, reach.store(settings) as store:
        async for fault in found(database, store, limit=arguments.limit, storage=not arguments.no_storage):
            faults += 1
            print(_shown(fault, as_json=arguments.json), flush=True)
            if arguments.repair and fault.kind == "orphan":
                await store.delete(fault.text)
        if arguments.repair:
            positions = GroupPositions(reach.kafka(settings))
            sweeper = Sweeper(
                database, database, _Commits(database), store, positions, settings.recognizers, settings.deadline_s
            )
            await _repair(sweeper)
    if not arguments.json:
        print(f"{faults} things do not fit together" if faults else "everything fits together")
    return int(faults > 0)


class _Commits:
    """Commits at once: no worker runs here that would gather steps."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    async def commit(self, step: Step) -> object:
        return await self._database.commit([step])


async def _repair(sweeper: Sweeper) -> None:
    """Put jobs that stand still on their way again, unless their event may still be unread in Kafka."""
    for status in STAGES:
        groups = sweeper.groups(status)
        at = await sweeper.database.now()
        ends = await sweeper.positions.ends({topic for topics in groups.values() for topic in topics})
        if not await sweeper.positions.passed(groups, ends):
            print(f"`{status}`: {', '.join(groups)} has not read its topics to their end; nothing was revived")
            continue
        if revived := await sweeper.revive(status, at - timedelta(seconds=IDLE_S)):
            print(f"`{status}`: {revived} jobs were put on their way again, or ended")


async def found(database: Postgres, store: Store, *, limit: int = 1000, storage: bool = True) -> AsyncIterator[Fault]:
    """Everything that does not fit together, at most `limit` of each kind from PostgreSQL."""
    before = await database.now() - timedelta(seconds=IDLE_S)
    for status in STAGES:
        for one in await database.stuck_jobs(status, before, limit):
            since = f"{one.job.updated_at:%Y-%m-%d %H:%M:%S}" if one.job.updated_at else "long"
            text = f"`{status}` since {since}; revived {one.times} times"
            yield Fault("standing still", *one.job.key, text)
    for row in await database.unended_requests(limit):
        named = f"{row['provider']}, run {row['run']}: {row['state']}, {row['provider_id'] or row['marker']}"
        yield Fault("without an end", row["tenant_id"], row["job_id"], named)
    for row in await database.without_transcript(limit):
        yield Fault("no transcript", row["tenant_id"], row["job_id"], f"run {row['run']}")
    if storage:
        async for fault in _lost(database, store):
            yield fault
        async for fault in _unknown(database, store):
            yield fault


async def _lost(database: Postgres, store: Store) -> AsyncIterator[Fault]:
    """Files that are not in the store."""
    after: tuple[str, str, int, str] = ("", "", 0, "")
    while rows := await database.files_after(*after, MANY):
        for row in rows:
            if await store.stat(row["uri"]) is None:
                yield Fault("lost", row["tenant_id"], row["job_id"], row["uri"])
        after = (rows[-1]["tenant_id"], rows[-1]["job_id"], rows[-1]["run"], rows[-1]["kind"])


#: What a job's folder holds besides its files: derived names of results, kept answers and hypotheses.
_DERIVED = re.compile(
    r"(runs/\d+/)?(hypotheses/[^/]+\.json|raw_transcript\.json|agent_optimized\.json|metadata\.json)|pieces/.+"
)


async def _unknown(database: Postgres, store: Store) -> AsyncIterator[Fault]:
    """Blobs that no job refers to."""
    gathered: dict[Key, list[tuple[str, str]]] = {}
    size = 0
    async for uri in store.list(""):
        tenant, _, rest = store.name(uri).partition("/")
        job, _, name = rest.partition("/")
        if name and not _DERIVED.fullmatch(name):
            gathered.setdefault((tenant, job), []).append((uri, name))
            size += 1
        if size >= MANY:
            async for fault in _of_no_job(database, gathered):
                yield fault
            gathered, size = {}, 0
    async for fault in _of_no_job(database, gathered):
        yield fault


async def _of_no_job(database: Postgres, gathered: dict[Key, list[tuple[str, str]]]) -> AsyncIterator[Fault]:
    for row in await database.known_blobs(list(gathered)) if gathered else ():
        key = (row["tenant_id"], row["job_id"])
        known = {*row["files"], *row["named"]}
        for uri, name in gathered[key]:
            if row["status"] is None:
                yield Fault("nobody's", *key, uri)
            elif uri not in known and name.startswith("original.") and row["status"] in TERMINAL:
                yield Fault("orphan", *key, uri)


def _shown(fault: Fault, *, as_json: bool) -> str:
    if as_json:
        return printable_json(orjson.dumps(asdict(fault)).decode())
    return "  ".join((f"{fault.kind:<15}", *map(printable, (f"{fault.tenant_id}/{fault.job_id}", fault.text))))
