"""`concord publish`: recordings into the store, `audio.uploaded` onto the stream; with `--wait` the transcript back."""

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

#: Where the events of this command come from, in CloudEvents' sense. Not "/concord": to the fleet we are strangers.
SOURCE = "/concord/cli"

DESCRIPTION = """Puts recordings into the store and announces each on the topic `audio.uploaded`; prints the job ids.

  concord publish call.wav
  concord publish calls/*.flac --tenant acme --diarize --metadata campaign=spring --wait
  concord publish call.mp3 --reference order-1234     (safe to repeat: it is transcribed once)

With --wait: follows the jobs, prints the transcripts and where everything is; ends with 0 when all were completed.
Any other client can do the same: `concord schema asyncapi` describes the events."""


def add(commands: Any) -> None:
    """The command."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(
        "publish", help="have recordings transcribed", description=DESCRIPTION, formatter_class=raw
    )
    command.add_argument("audio", nargs="+", metavar="AUDIO", type=Path, help="audio files")
    command.add_argument("--tenant", default="demo", help="whose recordings these are (default: demo)")
    command.add_argument("--job-id", metavar="UUID", help="the job's id, for one file (default: a new one)")
    command.add_argument(
        "--reference", metavar="NAME", help="your own name for the job, for one file; unique per tenant"
    )
    command.add_argument("--language", default="auto", help="en, de-CH, ... (default: recognized)")
    command.add_argument("--priority", type=int, default=5, metavar="0-9", help="default: 5")
    command.add_argument("--diarize", action="store_true", help="tell speakers apart, where a recognizer can")
    command.add_argument(
        "--metadata", action="append", default=[], metavar="KEY=VALUE", help="kept with the job; repeatable"
    )
    command.add_argument("--wait", action="store_true", help="follow the jobs until they have ended")
    command.add_argument("--json", action="store_true", help="a JSON object per job instead of text")
    command.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Recording:
    """A file on its way into the store."""

    path: Path
    event: AudioUploaded
    #: The job's id: the event's own, or the one that its reference has or will have. It names the blob.
    job_id: str

    @property
    def key(self) -> Key:
        """What names the job among all tenants'."""
        return self.event.tenant_id, self.job_id

    @property
    def name(self) -> str:
        """The blob's name."""
        return blob_name(self.path, self.event.tenant_id, self.job_id)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Check everything, upload, publish, and perhaps wait."""
    settings = reach.addressed(settings)
    async with reach.store(settings) as store:
        recordings = planned(arguments, store)
        where = reach.kafka(settings)
        if arguments.job_id or arguments.reference:
            recordings = [await _known(recordings[0], store, settings)]
            await _not_taken(recordings[0], store)
        if arguments.wait:
            return await _waited(recordings, where, store, settings, as_json=arguments.json)
        await publish(recordings, where, store)
        for one in recordings:
            print(_announced(one, as_json=arguments.json), flush=True)
    return 0


async def _waited(
    recordings: Sequence[Recording], where: Kafka, store: Store, settings: Settings, *, as_json: bool
) -> int:
    """Publish, follow and show what came out."""
    async with contextlib.AsyncExitStack() as stack:
        # The topic says what happens from now on. A repeated job may have ended long ago: the database knows.
        known = settings.database_url is not None
        ask = (await stack.enter_async_context(reach.database(settings))).job if known else None
        follower = await stack.enter_async_context(following(where, ask))
        await publish(recordings, where, store)
        ended = await watched(recordings, follower.until_ended([one.key for one in recordings]), silent=as_json)
    for one in recordings:
        print(await _result(one, ended[one.key], store, as_json=as_json), flush=True)
    return int(any(status.status == "failed" for status in ended.values()))


def planned(arguments: argparse.Namespace, store: Store) -> list[Recording]:
    """What is to be published. Raises `InvalidInput` listing everything that is wrong, before anything has happened."""
    for option, name in (("--job-id", arguments.job_id), ("--reference", arguments.reference)):
        if name is not None and len(arguments.audio) > 1:
            raise InvalidInput(f"{option} is for one recording, {len(arguments.audio)} were given")
    wrong = [problem for path in arguments.audio if (problem := unreadable(path)) is not None]
    if wrong:
        raise InvalidInput("nothing was published:\n  " + "\n  ".join(wrong))
    options = Options(diarize=arguments.diarize)
    more = {
        "language": arguments.language,
        "priority": arguments.priority,
        "options": options,
        "metadata": pairs(arguments.metadata),
        "reference": arguments.reference,
    }
    return [recording(path, store, arguments.tenant, arguments.job_id, **more) for path in arguments.audio]


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


def pairs(given: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE arguments as a mapping."""
    wrong = [pair for pair in given if "=" not in pair or pair.startswith("=")]
    if wrong:
        raise InvalidInput(f"--metadata {wrong[0]!r}: write KEY=VALUE")
    return {key: value for key, _, value in (pair.partition("=") for pair in given)}


def recording(path: Path, store: Store, tenant: str, job_id: str | None = None, **more: Any) -> Recording:
    """A file with its event, checked against the event's schema."""
    job_id = job_id or (None if more.get("reference") else str(uuid4()))
    try:
        # Tenant and job id are checked before they become part of a name and a URI.
        event = AudioUploaded(tenant_id=tenant, job_id=job_id, audio_uri="check://names", filename=path.name, **more)
        return _stored_as(
            Recording(path, event, event.job_id or job_of_reference(tenant, event.reference or "")), store
        )
    except ValidationError as exc:
        raise InvalidInput("; ".join(_complaint(error) for error in exc.errors(include_input=False))) from None


def _stored_as(one: Recording, store: Store) -> Recording:
    """With the URI of the blob that it will be."""
    return replace(one, event=one.event.model_copy(update={"audio_uri": store.uri(one.name)}))


def _complaint(error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    option = str(error["loc"][0]).removesuffix("_id" if error["loc"][0] == "tenant_id" else "").replace("_", "-")
    return f"--{option}: {error['msg'].removeprefix('Value error, ')}"


def blob_name(path: Path, tenant: str, job_id: str) -> str:
    """Where the fleet would keep the original itself, so that it need not copy it."""
    extension = path.suffix[1:].lower()
    return blob_names.original(tenant, job_id, extension if re.fullmatch(r"[a-z0-9]{1,8}", extension) else "audio")


async def _known(one: Recording, store: Store, settings: Settings) -> Recording:
    """With the id of the job that has this reference already, which need not be the one that is derived from it."""
    if one.event.job_id is not None or settings.database_url is None:
        return one
    async with reach.reader(settings) as reader:
        jobs = await reader.find(one.event.tenant_id, one.event.reference or "")
    return _stored_as(replace(one, job_id=jobs[0].job_id), store) if jobs else one


async def _not_taken(one: Recording, store: Store) -> None:
    """With a name of the user's own: refuse to write over another recording of that job."""
    async for uri in store.list(f"{one.event.tenant_id}/{one.job_id}/"):
        if uri.rpartition("/")[2].startswith("original.") and not await _same(uri, one, store):
            option, name = ("--job-id", one.job_id) if one.event.job_id else ("--reference", one.event.reference)
            raise InvalidInput(f"job {name} has another recording already ({readable(uri)}); choose another {option}")


async def _same(uri: str, one: Recording, store: Store) -> bool:
    there = await store.stat(uri)
    return there is not None and there.sha256 == await asyncio.to_thread(_sha256, one.path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def publish(recordings: Sequence[Recording], where: Kafka, store: Store) -> None:
    """Upload all files, then announce each: an event never names a blob that is not there."""
    await reach.partitions_of(where, topics.UPLOADED.name)
    for one in recordings:
        kind = mimetypes.guess_type(one.path.name)[0] or "application/octet-stream"
        await store.put(one.name, _pieces(one.path), kind)
    async with reach.started(where, clients.producer(where)) as producer:
        sent = [await producer.send(**record(one)) for one in recordings]
        await asyncio.gather(*sent)


def record(one: Recording) -> dict[str, Any]:
    """The event as the producer takes it."""
    event: Message = message(topics.UPLOADED.name, one.event, id=uuid4(), now=datetime.now(UTC))
    headers = [(name, SOURCE.encode() if name == "ce_source" else value) for name, value in event.headers]
    return {"topic": event.topic, "key": one.job_id.encode(), "value": event.value, "headers": headers}


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


async def watched(
    recordings: Sequence[Recording], statuses: AsyncIterator[JobStatus], *, silent: bool = False
) -> dict[Key, JobStatus]:
    """Show the jobs until each has ended; how each ended."""
    board = Board({one.key: one.event.filename for one in recordings})
    ended: dict[Key, JobStatus] = {}
    if silent:
        async for status in statuses:
            ended[status.tenant_id, status.job_id] = status
        return ended
    async with board.shown():
        async for status in statuses:
            board.update(status)
            ended[status.tenant_id, status.job_id] = status
    return ended


def _announced(one: Recording, *, as_json: bool) -> str:
    if not as_json:
        return one.job_id
    return _dumped({"job_id": one.job_id, "tenant_id": one.event.tenant_id, "file": str(one.path)})


def _dumped(document: dict[str, Any]) -> str:
    return printable_json(json.dumps(document, ensure_ascii=False))


async def stored(tenant_id: str, job_id: str, store: Store) -> list[str]:
    """Where everything of a job is."""
    return sorted([uri async for uri in store.list(f"{tenant_id}/{job_id}/")])


async def _result(one: Recording, status: JobStatus, store: Store, *, as_json: bool) -> str:
    places = await stored(one.event.tenant_id, one.job_id, store)
    text = await _text(one, status, store) if status.status == "completed" else None
    if as_json:
        found = {"job_id": one.job_id, "file": str(one.path), "status": status.status, "reason": status.reason}
        return _dumped(found | {"text": text, "stored": places})
    head = f"\n{printable(one.event.filename)}: {status.status} (job {one.job_id})"
    body = status.reason if text is None else text or "(no speech was heard)"
    return "\n".join([head, "", printable(f"{body}"), "", *(f"  {readable(uri)}" for uri in places)])


async def _text(one: Recording, status: JobStatus, store: Store) -> str:
    uri = store.uri(blob_names.agent_optimized(one.event.tenant_id, one.job_id, status.run))
    try:
        found = orjson.loads(await store.get(uri))
    except NotFound as exc:
        raise ConcordError(
            f"{readable(uri)} is not there: does the fleet use another STORAGE_ROOT or bucket than you?"
        ) from exc
    return str(found["transcript"]["text"])


def readable(uri: str) -> str:
    """A file's path where the URI is one, else the URI."""
    parts = urlsplit(uri)
    return printable(unquote(parts.path) if parts.scheme == "file" else uri)
