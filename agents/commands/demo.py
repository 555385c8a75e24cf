"""`concord demo`: starts a whole fleet, transcribes a recording with it, and prints the result. `make demo` runs it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import textwrap
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agents.commands import reach
from agents.commands.demo_recordings import demo_recordings, reference_text
from agents.commands.jobs import publish, transcript
from agents.commands.jobs.progress import following
from agents.commands.serve import servers
from agents.embedded import moonshine_weights
from agents.fleet import build
from agents.fleet.fleet import Fleet
from agents.fleet.recognizers import local_model
from agents.fleet.sections.recognizers import LOCAL_RECOGNIZERS
from agents.stages import registry
from agents.text.score import Score, pooled, score, words
from schemas import blob_names
from schemas.errors import InvalidInput, NotFound, ServerError, SettingsError, Unavailable
from schemas.printable import printable
from schemas.texts import joined
from schemas.words import Hypothesis, Reconciliation, adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agents.commands.jobs.publish import Recording
    from agents.fleet.settings import Settings
    from schemas.events.job import JobStatus
    from schemas.ids import Key
    from sinks.ports.blobs import Store
    from sinks.postgres.database import Postgres

#: The tenant of the demo's recordings.
TENANT = "demo"

#: Seconds within which all stages have to join their consumer groups.
JOIN_S = 60.0

#: Suffixes of recordings in a folder; a file with any other suffix can be named.
SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".opus", ".webm", ".aif", ".aiff", ".amr", ".aac")

#: Seconds for which documents of the transcripts are waited for, before what is stored is listed.
ENRICHMENT_S = 10.0

#: The name of the result among the recognizers'.
RESULT = "reconciled"

DESCRIPTION = """Starts a real Kafka, a real PostgreSQL and every stage of the fleet, transcribes recordings and prints
each result: the transcript with its disputed words, who heard what, and where everything is stored.

  concord demo                        a synthetic call, and people reading, through a telephone and in noise
  concord demo call.mp3               any container and codec, minutes or hours
  concord demo recordings/ --stay     all of a folder; then keeps running, with its console

Where the spoken text is known, word error rates are shown: from call.txt beside call.wav, or from a README.md beside
it with a line like "`call.wav`: the spoken text". No key is needed. The servers in KAFKA_BOOTSTRAP_SERVERS and
DATABASE_URL are used if they are set, and so is a `concord up` that runs on this CONCORD_DATA."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("demo", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("audio", nargs="*", metavar="AUDIO", type=Path, help="recordings, or folders of them")
    command.add_argument("--stay", action="store_true", help="keep running afterwards, until Ctrl-C")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Start or find a fleet, transcribe the recordings, and print the results."""
    paths = recordings_in(arguments.audio)
    addressed = reach.addressed(settings)
    if not paths:
        paths = await asyncio.to_thread(demo_recordings, settings.data / "audio")
    async with contextlib.AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(_fleet(settings, addressed))
        results = await _transcribe(paths, fleet)
        scores = [await _show(recording, status, fleet) for recording, status in results]
        if len(scores) > 1:
            print(pooled_rates([by_name for by_name in scores if by_name]))
        print(f"\nConsole: {fleet.console}")
        if arguments.stay:
            await _stay()
        elif fleet.own is not None:
            print("Everything stops now and keeps its data; `make up` starts it again and stays.")
    return int(any(status.status == "failed" for _, status in results))


def recordings_in(arguments: Sequence[Path]) -> list[Path]:
    """The recordings that these paths name; a folder stands for the recordings in it. Raises InvalidInput."""
    paths: list[Path] = []
    for path in arguments:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise InvalidInput(f"{path}: no recording in this folder ({', '.join(SUFFIXES)})")
        paths += files
    problems = [problem for path in paths if (problem := publish.unreadable(path)) is not None]
    if problems:
        raise InvalidInput("\n  ".join(["nothing was started:", *problems]))
    return paths


@dataclass(frozen=True, slots=True)
class RunningFleet:
    """A fleet that accepts recordings."""

    settings: Settings
    database: Postgres
    store: Store
    console: str
    #: The fleet if this process has started it; None for one that was running already.
    own: Fleet | None = None


@contextlib.asynccontextmanager
async def _fleet(settings: Settings, addressed: Settings) -> AsyncIterator[RunningFleet]:
    """The fleet that runs on this CONCORD_DATA, or else a new one in this process.

    `addressed` are the settings with the servers of a `concord up`.
    """
    if addressed != settings and await reach.serves(addressed):
        print(f"Using the fleet that runs here already, {reach.console(addressed)}")
        async with reach.database(addressed) as database, reach.store(addressed) as store:
            yield RunningFleet(addressed, database, store, reach.console(addressed))
        return
    for name in settings.opened:
        if (local := local_model(name, settings)) is not None:
            await asyncio.to_thread(local[1])
    if settings.opened[:2] == LOCAL_RECOGNIZERS and not moonshine_weights.supported():
        print("There is no Moonshine model for this platform: whisper-tiny.en is the second recognizer")
    # Servers without a fleet (`concord servers`) are used; addresses that an earlier start has left are ignored.
    base = addressed if addressed != settings and await _answers(addressed) else settings
    began = time.monotonic()
    print(_servers_text(base), flush=True)
    async with servers(base) as complete:
        await reach.answering(complete)
        print(f"  servers are up after {time.monotonic() - began:.1f} s; starting the stages", flush=True)
        complete = _with_free_port(complete)
        async with build.running(complete, registry.roles(complete.recognizers, complete.kinds)) as fleet:
            await _wait_until_ready(fleet)
            print(
                f"  {len(fleet.apps)} stages and the relay are up after {time.monotonic() - began:.1f} s\n", flush=True
            )
            yield RunningFleet(complete, fleet.database, fleet.store, f"{fleet.url}/", fleet)


async def _answers(settings: Settings) -> bool:
    try:
        await reach.answering(settings)
    except (Unavailable, SettingsError):
        return False
    return True


def _servers_text(settings: Settings) -> str:
    servers = [("Apache Kafka", settings.kafka_servers), ("PostgreSQL", settings.database_url)]
    embedded = [name for name, address in servers if address is None]
    if not embedded:
        return "Using the configured Kafka and PostgreSQL"
    return f"Starting {' and '.join(embedded)} in {settings.data}"


def _with_free_port(settings: Settings) -> Settings:
    """The settings with any free HTTP port if no port is configured and another program has the default one."""
    if "http" in settings.model_fields_set:
        return settings
    try:
        with reach.listening(settings):
            return settings
    except OSError:
        return settings.model_copy(update={"http": f"{settings.http_host}:0"})


async def _wait_until_ready(fleet: Fleet) -> None:
    """Wait until every stage reads events, so that the times that are shown do not include the fleet's start.

    Raises ServerError if a stage fails, or is not ready within `JOIN_S`.
    """
    deadline = time.monotonic() + JOIN_S
    while not all(fleet.ready.values()):
        if fleet.failure() is not None or time.monotonic() > deadline:
            joining = ", ".join(name for name, ready in fleet.ready.items() if not ready)
            raise ServerError(fleet.failure() or f"not ready after {JOIN_S:.0f} s: {joining}")
        await asyncio.sleep(0.1)


async def _transcribe(paths: Sequence[Path], fleet: RunningFleet) -> list[tuple[Recording, JobStatus]]:
    """Publish the recordings, show their progress, and return the last status of each."""
    where = reach.kafka(fleet.settings)
    recordings = [publish.recording_of(path, fleet.store, TENANT) for path in paths]
    async with following(where, fleet.database.job) as follower:
        await publish.publish(recordings, where, fleet.store)
        statuses = follower.until_ended([recording.key for recording in recordings])
        newest = await _unless_fleet_fails(publish.watch(recordings, statuses), fleet.own)
    await _until_enriched(recordings, fleet.database)
    return [(recording, newest[recording.key]) for recording in recordings]


async def _until_enriched(recordings: Sequence[Recording], database: Postgres) -> None:
    """Wait for what is made of the transcripts after their runs have completed, for `ENRICHMENT_S` at most."""
    deadline = time.monotonic() + ENRICHMENT_S
    for recording in recordings:
        while (job := await database.job(*recording.key)) is not None and time.monotonic() < deadline:
            if all(one.state in {"done", "failed"} for one in job.enrichment.values()):
                break
            await asyncio.sleep(0.2)


async def _unless_fleet_fails(watching: Any, fleet: Fleet | None) -> dict[Key, JobStatus]:
    """Await the coroutine; raise ServerError if a task of the fleet fails first."""
    task = asyncio.ensure_future(watching)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=0.5)
            failure = fleet.failure() if fleet is not None else None
            if failure is not None and not task.done():
                raise ServerError(f"{failure}; set CONCORD_LOG_LEVEL=INFO for details")
        return cast("dict[Key, JobStatus]", task.result())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _show(recording: Recording, status: JobStatus, fleet: RunningFleet) -> dict[str, Score]:
    """Print one recording's transcript and URIs; its scores by name, empty if the spoken text is unknown."""
    duration_s = ((status.completed_at or status.updated_at) - status.created_at).total_seconds()
    print(f"\n{'=' * 8} {printable(recording.event.filename)}: {status.status} after {duration_s:.1f} s\n")
    scores: dict[str, Score] = {}
    if status.status == "failed":
        print(printable(status.reason or ""))
    else:
        result = await _reconciliation(recording, status, fleet.store)
        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        print(transcript.plain(result, color=sys.stdout.isatty(), width=width))
        print(f"\n{textwrap.fill(transcript.facts(result), width)}")
        scores = await _scores(recording, status, result, fleet)
        if scores:
            print(f"\n{rates(scores)}")
    print("\nStored:")
    for uri in await publish.blobs_of(recording.key, fleet.store):
        print(f"  {publish.readable(uri)}")
    return scores


async def _reconciliation(recording: Recording, status: JobStatus, store: Store) -> Reconciliation:
    uri = store.uri(blob_names.raw_transcript(*recording.key, status.run))
    try:
        return cast("Reconciliation", adapter(Reconciliation).validate_json(await store.get(uri)))
    except NotFound as exc:
        advice = "do its workers use another STORAGE_ROOT or bucket?"
        raise ServerError(f"the fleet stored the transcript elsewhere than {publish.readable(uri)}: {advice}") from exc


async def _scores(
    recording: Recording, status: JobStatus, result: Reconciliation, fleet: RunningFleet
) -> dict[str, Score]:
    """The scores of each recognizer and of the result; empty if the spoken text is unknown."""
    reference = reference_text(recording.path)
    if reference is None:
        return {}
    score_of = partial(score, reference, split=partial(words, language=result.language))
    requests = await fleet.database.requests(*recording.key, status.run)
    scores: dict[str, Score] = {}
    for request in requests:
        if request.hypothesis_uri is not None:
            document = await fleet.store.get(request.hypothesis_uri)
            hypothesis = cast("Hypothesis", adapter(Hypothesis).validate_json(document))
            scores[request.provider] = score_of(joined(word.text for word in hypothesis.words))
    return scores | {RESULT: score_of(result.text)}


def rates(scores: dict[str, Score]) -> str:
    """Word error rates by name, one in a line; `scores` must not be empty."""
    first = next(iter(scores.values()))
    rows = [f"Word error rate against the {first.words} words that were said (normaliser: {first.normaliser}):"]
    for name, errors in scores.items():
        kinds = f"{errors.substitutions} wrong, {errors.insertions} too many, {errors.deletions} missing"
        rows.append(f"  {name:<24} {errors.rate:7.2%}   {kinds}")
    return "\n".join(rows)


def pooled_rates(scores: Sequence[dict[str, Score]]) -> str:
    """Rates pooled over these recordings, of the recognizers that have transcribed all of them, and what reconciling
    them gains.
    """
    if not scores:
        return ""
    names = [name for name in scores[0] if all(name in by_name for by_name in scores)]
    totals = {name: pooled([by_name[name] for by_name in scores]) for name in names}
    return f"\n{'=' * 8} {len(scores)} recordings together\n\n{rates(totals)}\n{_gain(totals)}"


def _gain(totals: dict[str, Score]) -> str:
    """What reconciling gains or loses, beside the recognizer that is the best of them over all recordings."""
    others = {name: total for name, total in totals.items() if name != RESULT}
    if RESULT not in totals or len(others) < 2:
        return ""
    best = min(others, key=lambda name: others[name].errors)
    saved = others[best].errors - totals[RESULT].errors
    return f"Reconciled: {abs(saved)} {'fewer' if saved >= 0 else 'more'} errors than {best} alone."


async def _stay() -> None:
    """Keep running until SIGINT or SIGTERM."""
    print("Running until Ctrl-C; `concord publish FILE --wait` in another terminal sends more.", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
