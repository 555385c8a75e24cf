"""`concord demo`: everything from nothing, on one recording, with what came of it. What `make demo` runs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
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
from agents.commands.jobs import publish, transcript
from agents.commands.jobs.progress import following
from agents.commands.serve import servers
from agents.embedded.sample_call import sample_call
from agents.embedded.weights import model_path
from agents.fleet import build
from agents.fleet.fleet import Fleet
from agents.stages import registry
from agents.text.score import Score, pooled, score, words
from schemas import blob_names
from schemas.errors import InvalidInput, NotFound, ServerError, SettingsError, Unavailable
from schemas.printable import printable
from schemas.words import Hypothesis, Reconciliation, adapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agents.commands.jobs.publish import Recording
    from agents.fleet.settings import Settings
    from schemas.events.job import JobStatus
    from schemas.ids import Key
    from sinks.ports.blobs import Store
    from sinks.postgres.database import Postgres

#: Whose recordings the demo's are.
TENANT = "demo"

#: Seconds that the stages may take to join their groups.
JOIN_S = 60.0

#: What a folder is searched for; any other file can be named.
SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".opus", ".webm", ".aif", ".aiff", ".amr", ".aac")

#: The name of the result among the recognizers'.
RESULT = "reconciled"

DESCRIPTION = """Starts a real Kafka, a real PostgreSQL and every stage of the fleet, sends a recording through and
shows what came of it: the transcript with its disputed words, who heard what, where everything is stored.

  concord demo                        speaks a short call itself, with two voices
  concord demo call.mp3               any container and codec, minutes or hours
  concord demo recordings/ --stay     all of a folder; then stays up, with its console

When what was said is known, word error rates are shown: from call.txt beside call.wav, or from a README.md beside
it with a line like "`call.wav`: what was said". No key is needed. Servers that KAFKA_BOOTSTRAP_SERVERS and
DATABASE_URL name are used; a `concord up` that runs on this CONCORD_DATA is used, too."""


def add(commands: Any) -> None:
    """The command."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(
        "demo", help="the whole fleet on one recording", description=DESCRIPTION, formatter_class=raw
    )
    command.add_argument("audio", nargs="*", metavar="AUDIO", type=Path, help="recordings, or folders of them")
    command.add_argument("--stay", action="store_true", help="keep running afterwards, until Ctrl-C")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Start, publish, watch, show, stop."""
    paths = chosen(arguments.audio)
    found = reach.addressed(settings)
    if not paths:
        paths = [await asyncio.to_thread(sample_call, settings.data / "audio")]
    async with contextlib.AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(_fleet(settings, found))
        ended = await _through(paths, fleet)
        scores = [await _show(one, status, fleet) for one, status in ended]
        if len(scores) > 1:
            print(_together([found for found in scores if found]))
        print(f"\nConsole: {fleet.console}")
        if arguments.stay:
            await _stay()
        elif fleet.own is not None:
            print("Everything stops now and keeps its data; `make up` starts it again and stays.")
    return int(any(status.status == "failed" for _, status in ended))


def chosen(given: Sequence[Path]) -> list[Path]:
    """The recordings that were named; a folder stands for the audio files in it."""
    paths: list[Path] = []
    for path in given:
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InvalidInput(f"{path}: no recording in this folder ({', '.join(SUFFIXES)})")
        paths += inside
    wrong = [problem for path in paths if (problem := publish.unreadable(path)) is not None]
    if wrong:
        raise InvalidInput("\n  ".join(["nothing was started:", *wrong]))
    return paths


_LINE = re.compile(r"^\s*(?:[-*]\s+)?`(?P<name>[^`]+)`:\s+(?P<said>\S.*)$", re.MULTILINE)


def said_in(path: Path) -> str | None:
    """What is known to be said in a recording: from a text file or a README beside it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.with_suffix(".txt").read_text()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = _LINE.finditer((path.parent / "README.md").read_text())
        return next((line["said"].strip() for line in lines if line["name"] == path.name), None)
    return None


@dataclass(frozen=True, slots=True)
class Running:
    """A fleet that takes recordings: ours, or one that ran here already."""

    settings: Settings
    database: Postgres
    store: Store
    console: str
    own: Fleet | None = None


@contextlib.asynccontextmanager
async def _fleet(settings: Settings, found: Settings) -> AsyncIterator[Running]:
    """The fleet that runs on this CONCORD_DATA, or one of our own."""
    if found != settings and await reach.serves(found):
        print(f"Using the fleet that runs here already, {reach.console(found)}")
        async with reach.database(found) as database, reach.store(found) as store:
            yield Running(found, database, store, reach.console(found))
        return
    for name in settings.opened:
        if name.startswith("whisper-"):
            model = name.removeprefix("whisper-")
            await asyncio.to_thread(model_path, model, settings.whisper_dir, settings.cache)
    # Servers alone (`concord servers`) are used as they are; what an earlier start left behind is started again.
    base = found if found != settings and await _alive(found) else settings
    began = time.monotonic()
    print(_starting(base), flush=True)
    async with servers(base) as complete:
        await reach.answering(complete)
        print(f"  servers are up after {time.monotonic() - began:.1f} s; starting the stages", flush=True)
        complete = _with_a_port(complete)
        async with build.running(complete, registry.roles(complete.recognizers, complete.enrichments)) as fleet:
            await _joined(fleet)
            print(
                f"  {len(fleet.apps)} stages and the relay are up after {time.monotonic() - began:.1f} s\n", flush=True
            )
            yield Running(complete, fleet.database, fleet.store, f"{fleet.url}/", fleet)


async def _alive(settings: Settings) -> bool:
    try:
        await reach.answering(settings)
    except (Unavailable, SettingsError):
        return False
    return True


def _starting(settings: Settings) -> str:
    ours = [
        name
        for name, url in (("Apache Kafka", settings.kafka_servers), ("PostgreSQL", settings.database_url))
        if url is None
    ]
    return f"Starting {' and '.join(ours)} in {settings.data}" if ours else "Using the configured Kafka and PostgreSQL"


def _with_a_port(settings: Settings) -> Settings:
    """The default port may be another program's; a demo then takes any."""
    if "http" in settings.model_fields_set:
        return settings
    try:
        with reach.listening(settings):
            return settings
    except OSError:
        return settings.model_copy(update={"http": f"{settings.http_host}:0"})


async def _joined(fleet: Fleet) -> None:
    """Wait until every stage takes events, so that what the live view shows is the recording's time and not ours."""
    until = time.monotonic() + JOIN_S
    while not all(fleet.ready.values()):
        if fleet.failure() is not None or time.monotonic() > until:
            joining = ", ".join(name for name, ready in fleet.ready.items() if not ready)
            raise ServerError(fleet.failure() or f"not ready after {JOIN_S:.0f} s: {joining}")
        await asyncio.sleep(0.1)


async def _through(paths: Sequence[Path], fleet: Running) -> list[tuple[Recording, JobStatus]]:
    """Send the recordings through the fleet, showing where they are."""
    where = reach.kafka(fleet.settings)
    recordings = [publish.recording(path, fleet.store, TENANT) for path in paths]
    async with following(where, fleet.database.job) as follower:
        await publish.publish(recordings, where, fleet.store)
        statuses = follower.until_ended([one.key for one in recordings])
        ended = await _guarded(publish.watched(recordings, statuses), fleet.own)
    return [(one, ended[one.key]) for one in recordings]


async def _guarded(watching: Any, fleet: Fleet | None) -> dict[Key, JobStatus]:
    """Wait for the end, or for a part of the fleet that stopped."""
    task = asyncio.ensure_future(watching)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=0.5)
            failure = fleet.failure() if fleet is not None else None
            if failure is not None and not task.done():
                raise ServerError(f"{failure}; CONCORD_LOG_LEVEL=INFO says more")
        return cast("dict[Key, JobStatus]", task.result())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _show(one: Recording, status: JobStatus, fleet: Running) -> dict[str, Score]:
    """What came of one recording; its scores, where it is known what was said."""
    took = ((status.completed_at or status.updated_at) - status.created_at).total_seconds()
    print(f"\n{'=' * 8} {printable(one.event.filename)}: {status.status} after {took:.1f} s\n")
    scores: dict[str, Score] = {}
    if status.status == "failed":
        print(printable(status.reason or ""))
    else:
        decided = await _decided(one, status, fleet.store)
        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        print(transcript.plain(decided, color=sys.stdout.isatty(), width=width))
        print(f"\n{textwrap.fill(transcript.facts(decided), width)}")
        scores = await _scores(one, status, decided, fleet)
        if scores:
            print(f"\n{rates(scores)}")
    print("\nStored:")
    for uri in await publish.stored(TENANT, one.job_id, fleet.store):
        print(f"  {publish.readable(uri)}")
    return scores


async def _decided(one: Recording, status: JobStatus, store: Store) -> Reconciliation:
    uri = store.uri(blob_names.raw_transcript(TENANT, one.job_id, status.run))
    try:
        return cast("Reconciliation", adapter(Reconciliation).validate_json(await store.get(uri)))
    except NotFound as exc:
        advice = "do its workers use another STORAGE_ROOT or bucket?"
        raise ServerError(f"the fleet stored the transcript elsewhere than {publish.readable(uri)}: {advice}") from exc


async def _scores(one: Recording, status: JobStatus, decided: Reconciliation, fleet: Running) -> dict[str, Score]:
    said = said_in(one.path)
    if said is None:
        return {}
    compared = partial(score, said, split=partial(words, language=decided.language))
    requests = await fleet.database.requests(*one.key, status.run)
    scores: dict[str, Score] = {}
    for request in requests:
        if request.hypothesis_uri is not None:
            heard = cast("Hypothesis", adapter(Hypothesis).validate_json(await fleet.store.get(request.hypothesis_uri)))
            scores[request.provider] = compared(" ".join(word.text for word in heard.words))
    return scores | {RESULT: compared(decided.text)}


def rates(scores: dict[str, Score]) -> str:
    """Word error rates, a line each."""
    total = next(iter(scores.values()))
    rows = [f"Word error rate against the {total.words} words that were said (normaliser: {total.normaliser}):"]
    for name, one in scores.items():
        kinds = f"{one.substitutions} wrong, {one.insertions} too many, {one.deletions} missing"
        rows.append(f"  {name:<24} {one.rate:7.2%}   {kinds}")
    return "\n".join(rows)


def _together(scores: Sequence[dict[str, Score]]) -> str:
    """Rates pooled over the recordings of which it is known what was said."""
    if not scores:
        return ""
    everyone = [name for name in scores[0] if all(name in one for one in scores)]
    together = {name: pooled([one[name] for one in scores]) for name in everyone}
    return f"\n{'=' * 8} {len(scores)} recordings together\n\n{rates(together)}"


async def _stay() -> None:
    """Until a signal comes."""
    print("Running until Ctrl-C; `concord publish FILE --wait` in another terminal sends more.", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
