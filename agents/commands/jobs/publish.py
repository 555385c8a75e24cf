"""`concord publish`: stores recordings, publishes `audio.uploaded` events, and prints transcripts with `--wait`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import mimetypes
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import orjson
from pydantic import ValidationError

from agents.commands import reach
from agents.commands.jobs.progress import Board, following
from agents.runtime.kafka import client as clients
from schemas import blob_names, topics
from schemas.errors import ConcordError, InvalidInput, NotFound
from schemas.events.audio import AudioUploaded, Options
from schemas.events.job import JobStatus
from schemas.ids import job_of_reference
from schemas.messages import Message, message
from schemas.printable import printable, printable_json
from sinks.blobs.rules import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka
    from schemas.ids import Key
    from sinks.ports.blobs import Store

#: The CloudEvents source of this command's events. Not "/concord": it is an external producer to the fleet.
SOURCE = "/concord/cli"

DESCRIPTION = """Stores recordings and publishes an event for each on the topic `audio.uploaded`; prints the job ids.

  concord publish call.wav
  concord publish calls/*.flac --tenant acme --diarize --metadata campaign=spring --wait
  concord publish call.mp3 --reference order-1234     (safe to repeat: it is transcribed once)

With --wait: follows the jobs, prints the transcripts and the URIs of all results; the exit status is 0 if all jobs were
completed. Any other client can do the same: `concord schema asyncapi` describes the events."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("publish", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("audio", nargs="+", metavar="AUDIO", type=Path, help="audio files")
    command.add_argument("--tenant", default="demo", help="the tenant of the recordings (default: demo)")
    command.add_argument("--job-id", metavar="UUID", help="the job's id, for one file (default: a new one)")
    command.add_argument(
        "--reference", metavar="NAME", help="your own name for the job, for one file; unique per tenant"
    )
    command.add_argument("--language", default="auto", help="en, de-CH, ... (default: detected)")
    command.add_argument("--priority", type=int, default=5, metavar="0-9", help="default: 5")
    command.add_argument("--diarize", action="store_true", help="tell speakers apart")
    command.add_argument("--speakers", type=int, metavar="N", help="the number of speakers, if known; with --diarize")
    command.add_argument(
        "--metadata", action="append", default=[], metavar="KEY=VALUE", help="stored with the job; repeatable"
    )
    command.add_argument("--wait", action="store_true", help="follow the jobs until they have ended")
    command.add_argument("--json", action="store_true", help="one JSON object for each job instead of text")
    command.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Recording:
    """A file with the event that announces it."""

    path: Path
    event: AudioUploaded
    #: The job's id: the event's own, or the one that its reference has or will have. It is part of the blob's name.
    job_id: str

    @property
    def key(self) -> Key:
        """The job's key."""
        return self.event.tenant_id, self.job_id

    @property
    def name(self) -> str:
        """The blob's name."""
        return blob_name(self.path, self.event.tenant_id, self.job_id)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Check all arguments, store and publish the recordings; with --wait, follow their jobs."""
    settings = reach.addressed(settings)
    async with reach.store(settings) as store:
        recordings = recordings_of(arguments, store)
        where = reach.kafka(settings)
        if arguments.job_id or arguments.reference:
            recordings = [await _with_existing_job(recordings[0], store, settings)]
            await _refuse_other_recording(recordings[0], store)
        if arguments.wait:
            return await _publish_and_wait(recordings, where, store, settings, as_json=arguments.json)
        await publish(recordings, where, store)
        for recording in recordings:
            print(_announcement(recording, as_json=arguments.json), flush=True)
    return 0


async def _publish_and_wait(
    recordings: Sequence[Recording], where: Kafka, store: Store, settings: Settings, *, as_json: bool
) -> int:
    """Publish the recordings, follow their jobs, and print the results."""
    async with contextlib.AsyncExitStack() as stack:
        # The topic has changes from now on. A repeated job may have ended long ago: then only the database shows it.
        has_database = settings.database_url is not None
        ask = (await stack.enter_async_context(reach.database(settings))).job if has_database else None
        follower = await stack.enter_async_context(following(where, ask))
        await publish(recordings, where, store)
        keys = [recording.key for recording in recordings]
        statuses = await watch(recordings, follower.until_ended(keys), silent=as_json)
    for recording in recordings:
        print(await _result(recording, statuses[recording.key], store, as_json=as_json), flush=True)
    return int(any(status.status == "failed" for status in statuses.values()))


def recordings_of(arguments: argparse.Namespace, store: Store) -> list[Recording]:
    """The recordings that the arguments name. Raises InvalidInput, which lists everything that is wrong with them."""
    for option, name in (("--job-id", arguments.job_id), ("--reference", arguments.reference)):
        if name is not None and len(arguments.audio) > 1:
            raise InvalidInput(f"{option} is for one recording, {len(arguments.audio)} were given")
    problems = [problem for path in arguments.audio if (problem := unreadable(path)) is not None]
    if problems:
        raise InvalidInput("nothing was published:\n  " + "\n  ".join(problems))
    fields = {
        "language": arguments.language,
        "priority": arguments.priority,
        "options": Options(diarize=arguments.diarize, speakers=arguments.speakers),
        "metadata": pairs(arguments.metadata),
        "reference": arguments.reference,
    }
    return [recording_of(path, store, arguments.tenant, arguments.job_id, **fields) for path in arguments.audio]


def unreadable(path: Path) -> str | None:
    """Why a file cannot be uploaded, or None."""
    if path.is_dir():
        return f"{path}: is a folder; name the files, e.g. {path}/*.wav"
    if not path.exists():
        return f"{path}: there is no such file"
    if not path.is_file():
        return f"{path}: is not a regular file"
    try:
        with path.open("rb"):
            return None
    except OSError as exc:
        return f"{path}: cannot be read ({exc.strerror})"


def pairs(arguments: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE arguments as a mapping. Raises InvalidInput."""
    malformed = [pair for pair in arguments if "=" not in pair or pair.startswith("=")]
    if malformed:
        raise InvalidInput(f"--metadata {malformed[0]!r}: write KEY=VALUE")
    return {key: value for key, _, value in (pair.partition("=") for pair in arguments)}


def recording_of(path: Path, store: Store, tenant: str, job_id: str | None = None, **fields: Any) -> Recording:
    """A file with its event, which has these fields. Raises InvalidInput for what the event's schema refuses."""
    job_id = job_id or (None if fields.get("reference") else str(uuid4()))
    try:
        # Tenant and job id are checked before they become part of a name and a URI.
        event = AudioUploaded(tenant_id=tenant, job_id=job_id, audio_uri="check://names", filename=path.name, **fields)
    except ValidationError as exc:
        raise InvalidInput("; ".join(_option_error(error) for error in exc.errors(include_input=False))) from None
    job_id = event.job_id or job_of_reference(tenant, event.reference or "")
    return _with_uri(Recording(path, event, job_id), store)


def _with_uri(recording: Recording, store: Store) -> Recording:
    """The recording with its future URI in the store."""
    return replace(recording, event=recording.event.model_copy(update={"audio_uri": store.uri(recording.name)}))


def _option_error(error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    option = str(error["loc"][0]).removesuffix("_id" if error["loc"][0] == "tenant_id" else "").replace("_", "-")
    return f"--{option}: {error['msg'].removeprefix('Value error, ')}"


def blob_name(path: Path, tenant: str, job_id: str) -> str:
    """The name under which the fleet itself would store the original, so that it need not copy the blob."""
    extension = path.suffix[1:].lower()
    return blob_names.original(tenant, job_id, extension if re.fullmatch(r"[a-z0-9]{1,8}", extension) else "audio")


async def _with_existing_job(recording: Recording, store: Store, settings: Settings) -> Recording:
    """The recording with the id of the existing job of its reference, which may differ from the derived id."""
    event = recording.event
    if event.job_id is not None or settings.database_url is None:
        return recording
    async with reach.reader(settings) as reader:
        jobs = await reader.find(event.tenant_id, event.reference or "")
    return _with_uri(replace(recording, job_id=jobs[0].job_id), store) if jobs else recording


async def _refuse_other_recording(recording: Recording, store: Store) -> None:
    """Raise InvalidInput if the job has another recording, which would be overwritten."""
    event, job_id = recording.event, recording.job_id
    async for uri in store.list(f"{event.tenant_id}/{job_id}/"):
        if uri.rpartition("/")[2].startswith("original.") and not await _is_stored(recording, uri, store):
            option, name = ("--job-id", job_id) if event.job_id else ("--reference", event.reference)
            raise InvalidInput(f"job {name} has another recording already ({readable(uri)}); choose another {option}")


async def _is_stored(recording: Recording, uri: str, store: Store) -> bool:
    """Whether the blob at the URI has the recording's bytes."""
    blob = await store.stat(uri)
    return blob is not None and blob.sha256 == await asyncio.to_thread(_sha256, recording.path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def publish(recordings: Sequence[Recording], where: Kafka, store: Store) -> None:
    """Store all files, then publish their events: so no event names a blob that does not exist.

    Raises:
        NotFound: the topic does not exist.
        Unavailable: Kafka or the store cannot be reached.
    """
    await reach.partitions_of(where, topics.UPLOADED.name)
    for recording in recordings:
        content_type = mimetypes.guess_type(recording.path.name)[0] or "application/octet-stream"
        await store.put(recording.name, _chunks(recording.path), content_type)
    async with reach.started(where, clients.producer(where)) as producer:
        acknowledgements = [await producer.send(**record(recording)) for recording in recordings]
        await asyncio.gather(*acknowledgements)


def record(recording: Recording) -> dict[str, Any]:
    """The recording's event as arguments of the producer's `send`."""
    event: Message = message(topics.UPLOADED.name, recording.event, id=uuid4(), now=datetime.now(UTC))
    headers = [(name, SOURCE.encode() if name == "ce_source" else value) for name, value in event.headers]
    return {"topic": event.topic, "key": recording.job_id.encode(), "value": event.value, "headers": headers}


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, PIECE):
            yield chunk


async def watch(
    recordings: Sequence[Recording], statuses: AsyncIterator[JobStatus], *, silent: bool = False
) -> dict[Key, JobStatus]:
    """Show the jobs' progress, unless `silent`, until each has ended; their last statuses."""
    board = Board({recording.key: recording.event.filename for recording in recordings})
    newest: dict[Key, JobStatus] = {}
    if silent:
        async for status in statuses:
            newest[status.tenant_id, status.job_id] = status
        return newest
    async with board.shown():
        async for status in statuses:
            board.update(status)
            newest[status.tenant_id, status.job_id] = status
    return newest


def _announcement(recording: Recording, *, as_json: bool) -> str:
    if not as_json:
        return recording.job_id
    tenant_id, job_id = recording.key
    return _json({"job_id": job_id, "tenant_id": tenant_id, "file": str(recording.path)})


def _json(document: dict[str, Any]) -> str:
    return printable_json(json.dumps(document, ensure_ascii=False))


async def blobs_of(key: Key, store: Store) -> list[str]:
    """The URIs of all blobs of a job, sorted."""
    tenant_id, job_id = key
    return sorted([uri async for uri in store.list(f"{tenant_id}/{job_id}/")])


async def _result(recording: Recording, status: JobStatus, store: Store, *, as_json: bool) -> str:
    uris = await blobs_of(recording.key, store)
    text = await _text(recording, status, store) if status.status == "completed" else None
    if as_json:
        document = {"job_id": recording.job_id, "file": str(recording.path)}
        return _json(document | {"status": status.status, "reason": status.reason, "text": text, "stored": uris})
    heading = f"\n{printable(recording.event.filename)}: {status.status} (job {recording.job_id})"
    body = status.reason if text is None else text or "(no speech was heard)"
    return "\n".join([heading, "", printable(f"{body}"), "", *(f"  {readable(uri)}" for uri in uris)])


async def _text(recording: Recording, status: JobStatus, store: Store) -> str:
    """The transcript's text. Raises ConcordError if it is not in this command's store."""
    uri = store.uri(blob_names.agent_optimized(*recording.key, status.run))
    try:
        document = orjson.loads(await store.get(uri))
    except NotFound as exc:
        raise ConcordError(
            f"{readable(uri)} does not exist: does the fleet use another STORAGE_ROOT or bucket than this command?"
        ) from exc
    return str(document["transcript"]["text"])


def readable(uri: str) -> str:
    """The path of a file: URI, any other URI unchanged; printable."""
    parts = urlsplit(uri)
    return printable(unquote(parts.path) if parts.scheme == "file" else uri)
