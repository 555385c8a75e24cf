"""`concord dlq`: look at the dead letters and put them back."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition

from agents.commands import reach
from agents.runtime.kafka import client as clients
from schemas import ids, topics
from schemas.envelope import Headers, Record, decode
from schemas.errors import InvalidInput, MalformedEvent, NotFound
from schemas.events.audio import AudioUploaded
from schemas.events.base import Event
from schemas.events.job import JobReprocess
from schemas.jobs.outcome import id_of_upload
from schemas.messages import Message, message
from schemas.printable import LINE, printable, printable_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka
    from schemas.ids import Key
    from schemas.jobs.rows import Job
    from sinks.postgres.database import Postgres
    from sinks.postgres.reader import Reader

#: How dead letter topics are named.
SUFFIX = ".dlq"

#: Bytes of a value that `show` prints.
SHOWN_BYTES = 16_384

#: Levels of JSON that are indented: what is nested deeper is shown as it came.
DEEPEST = 40

#: Characters of a job's name in the list: a UUID.
JOB_WIDTH = 36

#: Seconds without a record after which a topic counts as read, should its end never be reached.
QUIET_S = 5.0

#: Headers that a replay begins anew: why it was given up, and how often it had been tried.
_NOT_REPLAYED = ("dlq-", "ce_attempt", "ce_replay")

DESCRIPTION = """What could not be handled is kept, byte for byte, on `<topic>.dlq`, with why.

  concord dlq list                                 the newest of every dead letter topic
  concord dlq show audio.uploaded 17               one of them, whole
  concord dlq replay audio.uploaded 17 18          put two back
  concord dlq replay intake.due --all              put all back whose job has not been completed meanwhile"""

REPLAY = """Puts dead letters back: key, value and headers as they came, onto the topic they came from.

A record of a job that has failed for good is not put back; that job is run again instead (a new run, on `intake.due`).
Safe to repeat: the same dead letter replayed twice is handled once.

  concord dlq replay audio.uploaded 17
  concord dlq replay asr.results --all --dry-run"""


def add(commands: Any) -> None:
    """The command and its three verbs."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(
        "dlq", help="dead letters: list, show, replay", description=DESCRIPTION, formatter_class=raw
    )
    verbs = command.add_subparsers(metavar="VERB", required=True)
    listed = verbs.add_parser("list", help="the newest dead letters", description=DESCRIPTION, formatter_class=raw)
    listed.add_argument("--topic", metavar="T", help="only those of this topic")
    listed.add_argument("--limit", type=positive, default=20, help="how many of each topic, newest last (default: 20)")
    listed.add_argument("--json", action="store_true", help="a JSON object per dead letter")
    listed.set_defaults(run=run_list)
    shown = verbs.add_parser("show", help="one dead letter, whole", description=DESCRIPTION, formatter_class=raw)
    shown.add_argument("topic", metavar="TOPIC", help="e.g. audio.uploaded (or audio.uploaded.dlq)")
    shown.add_argument("offset", metavar="OFFSET", type=place, help="as `list` says it")
    shown.add_argument("--json", action="store_true", help="as JSON, the value in base64")
    shown.set_defaults(run=run_show)
    replay = verbs.add_parser("replay", help="put dead letters back", description=REPLAY, formatter_class=raw)
    replay.add_argument("topic", metavar="TOPIC", help="e.g. audio.uploaded (or audio.uploaded.dlq)")
    replay.add_argument("offset", metavar="OFFSET", nargs="*", type=place, help="as `list` says them")
    replay.add_argument("--all", action="store_true", help="all whose job has not been completed meanwhile")
    replay.add_argument("--dry-run", action="store_true", help="only say what would be done")
    replay.set_defaults(run=run_replay)


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def place(text: str) -> tuple[int, int]:
    """OFFSET or PARTITION/OFFSET; Concord makes dead letter topics with one partition, operators may have more."""
    match = re.fullmatch(r"(?:(\d+)/)?(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no offset; `concord dlq list` shows them")
    return int(match[1] or 0), int(match[2])


async def run_list(arguments: argparse.Namespace, settings: Settings) -> int:
    """The newest of each topic."""
    where = reach.kafka(reach.addressed(settings))
    found = 0
    async with opened(where) as box:
        for topic in [box.named(arguments.topic)] if arguments.topic else box.topics:
            letters = await box.newest(topic, arguments.limit)
            found += len(letters)
            if letters:
                print("\n".join(_listed(topic, letters, as_json=arguments.json)), flush=True)
    if not found and not arguments.json:
        print("no dead letters")
    return 0


async def run_show(arguments: argparse.Namespace, settings: Settings) -> int:
    """One, whole."""
    where = reach.kafka(reach.addressed(settings))
    async with opened(where) as box:
        record = await box.at(box.named(arguments.topic), *arguments.offset)
    print(_dumped(record, whole=True) if arguments.json else told(record))
    return 0


async def run_replay(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put some back."""
    if bool(arguments.offset) == arguments.all:
        raise InvalidInput("say which: offsets as `concord dlq list` shows them, or --all")
    settings = reach.addressed(settings)
    where = reach.kafka(settings)
    async with contextlib.AsyncExitStack() as stack:
        database, reader = await stack.enter_async_context(reach.both(settings))
        box = await stack.enter_async_context(opened(where))
        topic = box.named(arguments.topic)
        records = (
            [await box.at(topic, *spot) for spot in arguments.offset]
            if arguments.offset
            else await box.everything(topic)
        )
        plans = [plan(record, await _job(record, database, reader), skip_completed=arguments.all) for record in records]
        if not arguments.dry_run:
            await _send([made.message for made in plans if made.message is not None], where)
    for record, made in zip(records, plans, strict=True):
        print(f"{record.topic} {spot_of(record)}: {printable(made.said)}{' (dry run)' if arguments.dry_run else ''}")
    if not records:
        print(f"{topic} is empty")
    return 0


async def _send(messages: Sequence[Message], where: Kafka) -> None:
    async with reach.started(where, clients.producer(where)) as producer:
        for one in messages:
            await producer.send_and_wait(one.topic, value=one.value, key=one.key, headers=list(one.headers))


async def _job(record: Record, database: Postgres, reader: Reader) -> Job | None:
    """The job that a dead letter is about. Where only its key says which, it is told if one tenant has such a job."""
    key, name = key_of(record), _job_id(record)
    if key is not None or not name:
        return await database.job(*key) if key else None
    jobs = await reader.find(None, name)
    return jobs[0] if len(jobs) == 1 else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What replaying one dead letter comes to."""

    message: Message | None
    said: str


def plan(record: Record, job: Job | None, *, skip_completed: bool = False) -> Plan:
    """What to publish for a dead letter, given the job it is about."""
    topic = came_from(record)
    if (what := record.header("dlq-bytes-of")) is not None:
        return Plan(None, f"not put back, its value is the bytes of a {what} that nobody could read")
    if "value" in (record.header("dlq-truncated") or "").split(","):
        return Plan(None, f"not put back, only a part of its {record.header('dlq-value-length')} bytes was kept")
    if skip_completed and job is not None and job.status == "completed":
        return Plan(None, f"skipped, job {job.job_id} has been completed meanwhile")
    if job is not None and job.status == "failed":
        # The record belongs to a run that has ended: put back, it would be refused as a late-comer.
        return Plan(
            reprocess(record, job), f"job {job.job_id} failed: run {job.run + 1} asked for on {topics.INTAKE_DUE.name}"
        )
    return Plan(restored(record), f"put back on {topic}")


def reprocess(record: Record, job: Job) -> Message:
    """The wish for a new run; the same dead letter and run always make the same event."""
    wish = JobReprocess(
        tenant_id=job.tenant_id, job_id=job.job_id, run=job.run + 1, reason="replayed from the dead letters"
    )
    cause = ids.event_id(_letter(record), "dlq.replay", job.run + 1)
    return message(topics.INTAKE_DUE.name, wish, id=cause, now=datetime.now(UTC), kind="job.reprocess")


def restored(record: Record) -> Message:
    """The record as it came, for the topic it came from: key and value untouched, its replays counted."""
    kept = tuple((name, value) for name, value in record.headers if not name.startswith(_NOT_REPLAYED))
    count = record.header("ce_replay") or "0"
    again = (int(count) if count.isdecimal() and len(count) < 7 else 0) + 1
    headers: Headers = (*kept, ("ce_replay", str(again).encode()))
    return Message(_letter(record), came_from(record), record.key, record.value, headers)


def _letter(record: Record) -> UUID:
    """The identity of the dead letter itself."""
    return ids.record_id(record.topic, record.partition, record.offset, record.timestamp_ms, record.value)


def came_from(record: Record) -> str:
    """The topic on which the record was given up."""
    return record.header("dlq-topic") or record.topic.removesuffix(SUFFIX)


def key_of(record: Record) -> Key | None:
    """Tenant and id of the job that a dead letter is about, if they can be told: the stage that wrote it knew, or the
    record says so.
    """
    tenant, job = record.header("dlq-tenant-id"), record.header("dlq-job-id")
    if tenant and job:
        return tenant, job
    return _of_upload(record) if came_from(record) in topics.INGRESS else _of_event(record)


def _of_upload(record: Record) -> Key | None:
    with contextlib.suppress(MalformedEvent, ValueError):
        envelope = decode(original(record), {topics.UPLOADED.name: topics.UPLOADED})
        if isinstance(envelope.data, AudioUploaded):
            return envelope.data.tenant_id, id_of_upload(envelope.data, envelope.root)
    return None


def _of_event(record: Record) -> Key | None:
    with contextlib.suppress(ValueError):
        event = Event.model_validate_json(record.value or b"")
        return event.tenant_id, event.job_id
    return None


def original(record: Record) -> Record:
    """The record as and where it was before it was given up."""
    headers = tuple((name, value) for name, value in record.headers if not name.startswith("dlq-"))
    numbers = [int(record.header(f"dlq-{name}") or 0) for name in ("partition", "offset", "timestamp")]
    return Record(came_from(record), numbers[0], numbers[1], record.key, record.value, headers, numbers[2])


def spot_of(record: Record) -> str:
    """Where it is, as `place` reads it."""
    return f"{record.partition}/{record.offset}" if record.partition else str(record.offset)


def _listed(topic: str, letters: Sequence[Record], *, as_json: bool) -> list[str]:
    if as_json:
        return [_dumped(record) for record in letters]
    rows = [f"{topic}", f"  {'offset':>8}  {'when':<19}  {'stage':<24} {'tries':>5}  {'job':<36}  reason"]
    return rows + [_row(record) for record in letters]


def _row(record: Record) -> str:
    stage, tries, job, reason = (
        printable(text or "", limit=limit)
        for text, limit in (
            (record.header("dlq-stage"), 24),
            (record.header("dlq-attempts"), 5),
            (_job_id(record), JOB_WIDTH),
            ((record.header("dlq-reason") or "").replace("\n", " "), 200),
        )
    )
    return f"  {spot_of(record):>8}  {_when(record):<19}  {stage:<24} {tries:>5}  {job:<36}  {reason}"


def _job_id(record: Record) -> str:
    key = key_of(record)
    if key is not None or came_from(record) in topics.INGRESS:
        return key[1] if key else ""
    return (record.key or b"").decode("utf-8", "replace")


def _when(record: Record) -> str:
    """Producers choose timestamps freely: not all of them are in a year that there is."""
    try:
        return f"{datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{record.timestamp_ms} ms"


def _dumped(record: Record, *, whole: bool = False) -> str:
    return printable_json(json.dumps(_as_json(record, whole=whole), indent=2 if whole else None, ensure_ascii=False))


def _as_json(record: Record, *, whole: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": _when(record),
        "tenant_id": (key_of(record) or (None, None))[0],
        "job_id": _job_id(record) or None,
        "headers": {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers},
    }
    if whole:
        found["key"] = None if record.key is None else base64.b64encode(record.key).decode()
        found["value"] = None if record.value is None else base64.b64encode(record.value).decode()
    return found


def told(record: Record) -> str:
    """A dead letter for people: why, headers, key, and the value as readable as it is."""
    rows = [
        f"{record.topic} {spot_of(record)}  ({_when(record)})",
        f"reason: {printable(record.header('dlq-reason') or 'not said')}",
        "",
    ]
    rows += [f"  {printable(name, limit=LINE)}: {readable_bytes(value)}" for name, value in record.headers]
    rows += ["", f"key: {readable_bytes(record.key)}", "value:", pretty(record.value)]
    return "\n".join(rows)


def readable_bytes(data: bytes | None) -> str:
    """A header's value or a key, on one line."""
    return "none" if data is None else printable(data.decode("utf-8", "backslashreplace"), limit=LINE)


def pretty(value: bytes | None) -> str:
    """JSON indented, other text as it is, anything else in hex; never more than `SHOWN_BYTES`."""
    if value is None:
        return "  none"
    text = _indented(value)
    if text is None:
        text = _text(value[:SHOWN_BYTES]) or _hex(value[: SHOWN_BYTES // 4])
        shown = SHOWN_BYTES if _text(value[:SHOWN_BYTES]) else SHOWN_BYTES // 4
        return text if len(value) <= shown else f"{text}\n... {len(value)} bytes in all"
    return text if len(text) <= SHOWN_BYTES else f"{text[:SHOWN_BYTES]}\n... {len(value)} bytes in all"


def _indented(value: bytes) -> str | None:
    """JSON with a line for each value; None for what is none, or is nested too deep for that."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if _is_deeper(document, DEEPEST):
        return None
    return printable_json(json.dumps(document, indent=2, ensure_ascii=False))


def _is_deeper(document: Any, levels: int) -> bool:
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return levels < 0 or any(_is_deeper(child, levels - 1) for child in children)


def _text(value: bytes) -> str | None:
    # Cut in the middle of a character: its last bytes are not counted against it.
    text = value.decode("utf-8", "ignore")
    if len(text.encode()) <= len(value) - 4 or not all(c.isprintable() or c in "\r\n\t" for c in text):
        return None
    return printable(text.replace("\r\n", "\n"), lines=True)


def _hex(value: bytes) -> str:
    rows = (value[i : i + 16] for i in range(0, len(value), 16))
    return "\n".join(
        f"  {16 * i:06x}  {row.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for i, row in enumerate(rows)
    )


class Box:
    """Dead letter topics, read without a group: nothing is remembered of what was looked at."""

    def __init__(self, consumer: Any, bounds: dict[TopicPartition, tuple[int, int]]) -> None:
        self._consumer = consumer
        #: First offset, and the one after the last, when the box was opened.
        self._bounds = bounds

    @property
    def topics(self) -> list[str]:
        """Every dead letter topic there is."""
        return sorted({tp.topic for tp in self._bounds})

    def named(self, topic: str) -> str:
        """The dead letter topic that is meant."""
        name = topic if topic.endswith(SUFFIX) else topic + SUFFIX
        if name not in self.topics:
            there = ", ".join(self.topics) or "none (did a worker ever run?)"
            raise NotFound(f"there is no topic {name}; there are {there}")
        return name

    async def at(self, topic: str, partition: int, offset: int) -> Record:
        """One dead letter."""
        tp = TopicPartition(topic, partition)
        begin, end = self._bounds.get(tp, (0, 0))
        found = await self._read(tp, offset, offset + 1) if begin <= offset < end else []
        if found:
            return found[0]
        raise NotFound(
            f"{topic} has no dead letter {offset} in partition {partition}; see `concord dlq list --topic {topic}`"
        )

    async def newest(self, topic: str, limit: int) -> list[Record]:
        """The last ones, oldest first."""
        found = [record for tp in self._of(topic) for record in await self._last(tp, limit)]
        return sorted(found, key=lambda record: (record.timestamp_ms, record.partition, record.offset))[-limit:]

    async def everything(self, topic: str) -> list[Record]:
        """All of them."""
        return [record for tp in self._of(topic) for record in await self._read(tp, *self._bounds[tp])]

    def _of(self, topic: str) -> list[TopicPartition]:
        return sorted(tp for tp in self._bounds if tp.topic == topic)

    async def _last(self, tp: TopicPartition, limit: int) -> list[Record]:
        """Windows from the end: some of the offsets belong to the ends of transactions, and hold nothing."""
        begin, end = self._bounds[tp]
        found: list[Record] = []
        span = 2 * limit + 10
        while end > begin and len(found) < limit:
            start = max(begin, end - span)
            found = await self._read(tp, start, end) + found
            end, span = start, 2 * span
        return found[-limit:]

    async def _read(self, tp: TopicPartition, start: int, end: int) -> list[Record]:
        """The records from `start` to before `end`."""
        if start >= end:
            return []
        self._consumer.assign([tp])
        self._consumer.seek(tp, start)
        found: list[Record] = []
        heard_at = time.monotonic()
        while await self._consumer.position(tp) < end and time.monotonic() - heard_at < QUIET_S:
            # Short waits: where a transaction was aborted, the position moves on without a record.
            batch = await self._consumer.getmany(tp, timeout_ms=200, max_records=500)
            heard_at = time.monotonic() if batch else heard_at
            found += [clients.record_of(raw) for raw in batch.get(tp, ())]
        return [record for record in found if record.offset < end]


@contextlib.asynccontextmanager
async def opened(where: Kafka) -> AsyncIterator[Box]:
    """The dead letters of a Kafka."""
    there = (await reach.partitions(where)).items()
    all_of = [TopicPartition(name, number) for name, numbers in there if name.endswith(SUFFIX) for number in numbers]
    async with reach.started(where, clients.consumer(where)) as consumer:
        # Asked before the first read: behind a waiting fetch, each answer would take a second.
        begin = await consumer.beginning_offsets(all_of) if all_of else {}
        end = await consumer.end_offsets(all_of) if all_of else {}
        yield Box(consumer, {tp: (begin[tp], end[tp]) for tp in all_of})
