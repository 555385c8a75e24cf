"""`concord verify`: finds contradictions between PostgreSQL, the blob store and Kafka, and repairs some of them."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from agents.commands import reach
from agents.commands.arguments import positive
from agents.runtime.kafka.group_positions import GroupPositions
from agents.stages import registry
from agents.upkeep.sweeper import IDLE_S, Sweeper
from schemas import blob_names
from schemas.jobs.rows import STAGE_OF, TERMINAL
from schemas.printable import printable, printable_json
from sinks.ports.clock import Clock
from sinks.ports.upkeep.stuck_jobs import StuckJobs
from sinks.ports.upkeep.verification import Verification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.fleet.settings import Settings
    from schemas.ids import Key
    from schemas.jobs.outcome import Step
    from sinks.ports.blobs import Store
    from sinks.postgres.database import Postgres

#: Most files, or blobs, in one query.
MANY: Final = 500

DESCRIPTION = """Compares the contents of PostgreSQL, the blob store and Kafka, and lists what does not fit together:

  standing still   open jobs for which no event exists that would move them on
  without an end   requests of ended runs to recognizers whose result is unknown: they may have been charged
  no transcript    completed jobs without a transcript in PostgreSQL
  lost             blobs to which a job refers and that do not exist
  orphan           recordings in the folder of an ended job to which nothing refers
  nobody's         blobs in a folder without a job

  concord verify                  list; the exit status is 1 if there is anything
  concord verify --repair         revive jobs that stand still, and delete orphans
  concord verify --no-storage     ignore blobs: with many of them, querying each takes long

A running fleet repairs jobs and orphans by itself, a minute or two after they stand still. What --repair cannot repair
(lost blobs, blobs without a job, requests without an end) an operator has to decide about."""


class Database(Clock, StuckJobs, Verification, Protocol):
    """The ports that finding contradictions needs."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One contradiction; `kind` is a word of `DESCRIPTION`."""

    kind: str
    tenant_id: str
    job_id: str
    text: str


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "verify",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--repair", action="store_true", help="revive jobs, delete orphans")
    command.add_argument("--no-storage", action="store_true", help="ignore blobs")
    command.add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="most of each kind, except blobs (default: 1000)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print every contradiction, and repair what can be repaired."""
    settings = reach.addressed(settings)
    faults = 0
    async with reach.database(settings) as database, reach.store(settings) as store:
        async for fault in find_faults(database, store, limit=arguments.limit, storage=not arguments.no_storage):
            faults += 1
            print(_line(fault, as_json=arguments.json), flush=True)
            if arguments.repair and fault.kind == "orphan":
                await store.delete(fault.text)
        if arguments.repair:
            positions = GroupPositions(reach.kafka(settings))
            sweeper = Sweeper(
                database,
                database,
                _Committer(database),
                store,
                positions,
                settings.recognizers,
                settings.deadline_s,
                enrichments=registry.enrichments(),
            )
            await _repair(sweeper)
    if not arguments.json:
        print(f"{faults} things do not fit together" if faults else "everything fits together")
    return int(faults > 0)


class _Committer:
    """Commits each step in a transaction of its own: a command has no concurrent steps to combine."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    async def commit(self, step: Step) -> object:
        return await self._database.commit([step])


async def _repair(sweeper: Sweeper) -> None:
    """Revive what stands still, unless its event may still be unread in Kafka."""
    for revival in sweeper.revivals():
        count = await sweeper.revive_if_read(revival)
        if count is None:
            groups = ", ".join(revival.groups)
            print(f"{revival.subject}: {groups} has not read its topics to their end; nothing was revived")
        elif count:
            print(f"{revival.subject}: {count} {revival.result}")


async def find_faults(
    database: Database, store: Store, *, limit: int = 1000, storage: bool = True
) -> AsyncIterator[Fault]:
    """Every contradiction, at most `limit` of each kind from PostgreSQL; those about blobs only with `storage`.

    Raises Unavailable when PostgreSQL or the blob store cannot be reached.
    """
    before = await database.now() - timedelta(seconds=IDLE_S)
    for status in STAGE_OF:
        for stuck in await database.stuck_jobs(status, before, limit):
            since = f"{stuck.job.updated_at:%Y-%m-%d %H:%M:%S}" if stuck.job.updated_at else "long"
            text = f"`{status}` since {since}; revived {stuck.times} times"
            yield Fault("standing still", *stuck.job.key, text)
    for kind in registry.enrichments():
        for one in await database.stuck_enrichments(kind, before, limit):
            row = one.enrichment
            text = f"{kind} of run {row.run}: `{row.state}` since {row.updated_at:%Y-%m-%d %H:%M:%S}"
            yield Fault("standing still", row.tenant_id, row.job_id, f"{text}; revived {one.times} times")
    for unended in await database.unended_requests(limit):
        request = f"{unended['provider']}, run {unended['run']}: {unended['state']}, "
        request += unended["provider_id"] or unended["marker"]
        yield Fault("without an end", unended["tenant_id"], unended["job_id"], request)
    for job in await database.without_transcript(limit):
        yield Fault("no transcript", job["tenant_id"], job["job_id"], f"run {job['run']}")
    if storage:
        async for fault in _lost(database, store):
            yield fault
        async for fault in _unreferenced(database, store):
            yield fault


async def _lost(database: Database, store: Store) -> AsyncIterator[Fault]:
    """Files of jobs whose blobs do not exist."""
    after: tuple[str, str, int, str] = ("", "", 0, "")
    while rows := await database.files_after(*after, MANY):
        for row in rows:
            if await store.stat(row["uri"]) is None:
                yield Fault("lost", row["tenant_id"], row["job_id"], row["uri"])
        after = (rows[-1]["tenant_id"], rows[-1]["job_id"], rows[-1]["run"], rows[-1]["kind"])


#: Blobs in a job's folder that are no files of the job: results, hypotheses, cached answers.
_DERIVED = re.compile(
    r"(runs/\d+/)?(restricted/)?(hypotheses/[^/]+\.json|raw_transcript\.json|agent_optimized\.json|metadata\.json|document\.md)|(restricted/)?pieces/.+"
)

_ORIGINAL = re.compile(r"(restricted/)?original\.")


async def _unreferenced(database: Database, store: Store) -> AsyncIterator[Fault]:
    """Blobs to which no job refers."""
    blobs: dict[Key, list[tuple[str, str]]] = {}
    count = 0
    async for uri in store.list(""):
        tenant, _, rest = store.name(uri).partition("/")
        job, _, name = rest.partition("/")
        if name and job != blob_names.UPLOADS and not _DERIVED.fullmatch(name):
            blobs.setdefault((tenant, job), []).append((uri, name))
            count += 1
        if count >= MANY:
            async for fault in _unreferenced_of(database, blobs):
                yield fault
            blobs, count = {}, 0
    async for fault in _unreferenced_of(database, blobs):
        yield fault


async def _unreferenced_of(database: Database, blobs: dict[Key, list[tuple[str, str]]]) -> AsyncIterator[Fault]:
    """Those of these blobs, URI and name by job, to which no job refers."""
    for row in await database.known_blobs(list(blobs)) if blobs else ():
        key = (row["tenant_id"], row["job_id"])
        referenced = {*row["files"], *row["named"]}
        for uri, name in blobs[key]:
            if row["status"] is None:
                yield Fault("nobody's", *key, uri)
            elif uri not in referenced and _ORIGINAL.match(name) and row["status"] in TERMINAL:
                yield Fault("orphan", *key, uri)


def _line(fault: Fault, *, as_json: bool) -> str:
    if as_json:
        return printable_json(orjson.dumps(asdict(fault)).decode())
    return "  ".join((f"{fault.kind:<15}", *map(printable, (f"{fault.tenant_id}/{fault.job_id}", fault.text))))
