"""`concord requests`: lists requests that a provider may have accepted, and stores an operator's decisions."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import uuid4

from agents.asr.protocols import RemoteRecognizer
from agents.commands import reach
from agents.commands.arguments import moment
from agents.fleet.recognizers import open_recognizer
from agents.stages.asr_requests.remote import CLAIM_S
from schemas.errors import NotFound
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Progress, RequestChange, Step
from schemas.printable import printable
from sinks.ports.clock import Clock
from sinks.ports.providers.requests import Requests
from sinks.ports.providers.strays import Stray, Strays
from sinks.ports.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.fleet.settings import Settings
    from schemas.jobs.rows import ProviderRequest

DESCRIPTION = """Shows requests to providers that may have been accepted, and billed, although no answer came: those
that are parked, because the provider's list does not show whether they exist; those without which a run went on, until
the job is reprocessed; and those that a provider lists and this installation does not know (after a restore). None of
them is repeated.

  concord requests
  concord requests found JOB assemblyai 5551722e-f677...    it exists, with this id: wait for its answer
  concord requests retry JOB assemblyai                     it does not exist: repeat it, which is billed
  concord requests give-up JOB assemblyai                   let the run go on without it at once
  concord requests forget assemblyai 5551722e-f677...       it is not one of this installation

After a backup of PostgreSQL was restored, while no worker runs, before the first one is started:

  concord requests recover --since 2026-11-29T10:00         the time of the backup

reads from each provider's list the requests since then, so that none of them is repeated and billed again."""

Decision = Literal["found", "retry", "give-up"]

#: Most rows that are listed.
LISTED = 1000


def add(commands: Any) -> None:
    """Add the command and its decisions to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("requests", description=DESCRIPTION, formatter_class=raw)
    command.set_defaults(run=run_list)
    verbs = command.add_subparsers(metavar="DECISION")
    for name in ("found", "retry", "give-up"):
        verb = verbs.add_parser(name, description=DESCRIPTION, formatter_class=raw)
        verb.add_argument("job", metavar="JOB", help="its id or its reference")
        verb.add_argument("provider", metavar="PROVIDER")
        if name == "found":
            verb.add_argument("id", metavar="ID", help="the provider's own id of the request")
        verb.add_argument("--tenant", metavar="T", help="the job's tenant")
        verb.set_defaults(run=run_decision, decision=name)
    verb = verbs.add_parser("forget", description=DESCRIPTION, formatter_class=raw)
    verb.add_argument("provider", metavar="PROVIDER")
    verb.add_argument("id", metavar="ID")
    verb.set_defaults(run=run_forget)
    verb = verbs.add_parser("recover", description=DESCRIPTION, formatter_class=raw)
    verb.add_argument("--since", metavar="TIME", type=moment, required=True, help="when the backup was taken, in UTC")
    verb.add_argument("--now", action="store_true", help="do not wait for requests that may still arrive")
    verb.set_defaults(run=run_recover)


async def run_list(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print every request that an operator may have to decide about."""
    del arguments
    async with reach.database(reach.addressed(settings)) as database:
        rows = await database.doubtful(LISTED)
        strays = [stray for name in settings.recognizers for stray in await database.strays(name)]
    lines = [*map(_line, rows), *map(_stray_line, strays)]
    print("\n".join(lines) or "there is none")
    return 0


def _line(row: ProviderRequest) -> str:
    state = row.state if row.state == "parked" else "left behind"
    time = f"{row.claimed_until:%Y-%m-%d %H:%M}" if row.claimed_until else "?"
    job = f"{printable(row.tenant_id)} {printable(row.job_id)} run {row.run}"
    return f"{state:<12} {printable(row.provider):<14} {time}  {job}  {printable(row.error or '')}"


def _stray_line(stray: Stray) -> str:
    time = f"{stray.created:%Y-%m-%d %H:%M}" if stray.created else "?"
    audio = stray.marker or " ".join(url.partition("?")[0] for url in stray.urls or ())
    return f"{'unknown':<12} {printable(stray.provider):<14} {time}  {printable(stray.provider_id)}  {printable(audio)}"


async def run_decision(arguments: argparse.Namespace, settings: Settings) -> int:
    """Store a decision about a parked request."""
    async with reach.both(reach.addressed(settings)) as (database, reader):
        job = await reach.job_named(arguments.job, arguments.tenant, reader)
        rows = await database.requests(*job.key, job.run) if job else []
        row = next((r for r in rows if r.provider == arguments.provider and r.state == "parked"), None)
        if row is None:
            raise NotFound(f"{arguments.job} has no parked request to {arguments.provider}; see `concord requests`")
        if not await decide(database, row, arguments.decision, getattr(arguments, "id", None)):
            raise NotFound("it is no longer parked: its run has ended, or its answer arrived; see `concord status`")
    return 0


class Decides(Clock, Steps, Requests, Protocol):
    """What a decision asks of the database."""


async def decide(database: Decides, row: ProviderRequest, decision: Decision, id: str | None = None) -> bool:
    """Store the decision; False if the request has changed meanwhile. A new token fences workers that search for it.

    Raises Unavailable when the database cannot be reached.
    """
    columns: dict[str, Any] = {"token": row.token + 1, "error": None}
    match decision:
        case "found":
            columns |= {"state": "submitted", "provider_id": id, "submitted_at": await database.now()}
        case "retry":
            columns |= {"state": "waiting", "claimed_until": None}
        case _:
            reason = f"given up by an operator: {row.error}"
            columns |= {"state": "failed", "error": reason, "abandoned_at": await database.now()}
    outcome = Outcome(
        tenant_id=row.tenant_id,
        job_id=row.job_id,
        run=row.run,
        request=RequestChange(run=row.run, provider=row.provider, token=row.token, columns=columns),
        progress=Progress(run=row.run, stage=f"transcribe.{row.provider}", step=StepState(state="running")),
        audit="failed" if decision == "give-up" else "retried",
        error=f"decided by an operator: {decision}",
    )
    [written] = await database.commit([Step(f"transcribe.{row.provider}", uuid4(), outcome)])
    await database.expedite_job(row.tenant_id, row.job_id, row.provider)
    return written is not None and written.applied


async def run_forget(arguments: argparse.Namespace, settings: Settings) -> int:
    """Delete an unknown request from the list: it belongs to another installation."""
    async with reach.database(reach.addressed(settings)) as database:
        if not await database.forget_stray(arguments.provider, arguments.id):
            raise NotFound(f"{arguments.provider} has no unknown request {arguments.id}; see `concord requests`")
    return 0


async def run_recover(arguments: argparse.Namespace, settings: Settings) -> int:
    """Read the list of every provider, and print how many unknown requests it has."""
    settings = reach.addressed(settings)
    async with reach.database(settings) as database:
        for name in settings.recognizers:
            recognizer = open_recognizer(name, settings)
            try:
                if isinstance(recognizer, RemoteRecognizer):
                    if not arguments.now:
                        await _wait_until_settled(recognizer)
                    print(_summary(name, await recover(database, recognizer, arguments.since)))
                else:
                    print(f"{name}: has no list of its requests")
            finally:
                await recognizer.close()
    return 0


async def _wait_until_settled(recognizer: RemoteRecognizer) -> None:
    seconds = recognizer.settles_s + CLAIM_S
    print(f"{recognizer.name}: requests may still arrive; its list is read in {seconds:.0f} s (or now, with --now)")
    await asyncio.sleep(seconds)


async def recover(database: Strays, recognizer: RemoteRecognizer, since: datetime) -> list[Stray]:
    """Store, and return, the requests in the provider's list since then that no row has: a recording that is submitted
    later is compared with them first.

    Raises:
        Transient, ProviderError: the provider's list cannot be read.
        Unavailable: the database cannot be reached.
    """
    since -= timedelta(minutes=10)  # clocks differ
    listed = await recognizer.listed(since)
    recent = [item for item in listed if item.created is None or item.created >= since]
    strays = [
        Stray(recognizer.name, item.id, item.created, None if item.urls is None else tuple(item.urls), item.marker)
        for item in recent
        if item.urls is None or item.urls or item.marker
    ]
    return await database.keep_strays(strays)


def _summary(name: str, strays: Sequence[Stray]) -> str:
    oldest = min((stray.created for stray in strays if stray.created), default=None)
    since = f", the oldest of {oldest.astimezone(UTC):%Y-%m-%d %H:%M}" if oldest else ""
    return f"{name}: {len(strays)} unknown requests{since}"
