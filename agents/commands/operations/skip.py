"""`concord skip`: excludes a record at which a stage crashes or hangs, so that the stage goes on behind it."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agents.commands import reach
from agents.commands.operations.record_text import bytes_text, value_text
from agents.runtime.kafka import client as clients
from agents.stages import registry
from schemas.errors import InvalidInput, NotFound
from schemas.operations import Skip
from schemas.printable import LINE, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka
    from schemas.envelope import Record
    from sinks.postgres.operations import PostgresOperations

#: Timeout for reading the record, and seconds between two queries whether it has been skipped.
READ_S, POLL_S = 10.0, 0.5

DESCRIPTION = """The last resort for a record at which a stage fails repeatedly, or hangs: /readyz and `concord doctor`
show which one, as TOPIC/PARTITION/OFFSET.

  concord skip audio.uploaded 2 1714
  concord skip audio.uploaded 2 1714 --reason "kills the prober, see #123"
  concord skip audio.uploaded 2 1714 --unread       the workers crash even when they unpack it

The record goes into <topic>.dlq with the reason, its job ends in `job.failed`, and the stage goes on behind it. Nothing
is lost: `concord dlq replay` puts it back when the cause is fixed.

It works while the fleet runs, while it crashes, and while it is stopped: the request is stored in PostgreSQL, and
workers read it every few seconds and before they start a stage. (Kafka accepts no offsets from outside while a stage's
group has members.) A request is valid for 14 days and for this very record.

With --unread the bytes are not even unpacked: all records that were sent in one batch with it become one dead letter,
from which they cannot be replayed, and their jobs get no `job.failed`."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "skip",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("topic", metavar="TOPIC", help="a topic that a stage reads")
    command.add_argument("partition", metavar="PARTITION", type=_count)
    command.add_argument("offset", metavar="OFFSET", type=_count)
    command.add_argument("--reason", metavar="TEXT", default="no reason given", help="the reason in the dead letter")
    command.add_argument("--unread", action="store_true", help="do not unpack it: its whole batch is one dead letter")
    command.add_argument(
        "--wait", metavar="S", type=float, default=30.0, help="seconds to wait until it is skipped (default: 30)"
    )
    command.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return int(text)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the record, store the request, and wait until the stage has skipped it."""
    settings = reach.addressed(settings)
    where = reach.kafka(settings)
    tp = TopicPartition(arguments.topic, arguments.partition)
    readers = registry.read_by(settings.recognizers)
    if tp.topic not in readers:
        raise InvalidInput(f"no stage reads {tp.topic}; stages read {', '.join(readers)}")
    record = await _read(where, tp, arguments.offset, unread=arguments.unread)
    stages = await _not_passed(where, readers[tp.topic], tp, arguments.offset)
    print("not read" if record is None else record_text(record))
    reason = f"passed over by an operator: {arguments.reason}"
    timestamp_ms = record.timestamp_ms if record is not None else None
    skip = Skip(tp.topic, tp.partition, arguments.offset, reason, timestamp_ms, arguments.unread)
    async with reach.operations(settings) as operations:
        await operations.ask(skip)
        print(f"\n{' and '.join(stages)} is to skip {tp.topic}/{tp.partition}/{skip.offset}", flush=True)
        done = await _is_done(operations, skip, stages, arguments.wait)
    print(
        f"done: it is in {tp.topic}.dlq (`concord dlq list --topic {tp.topic}`)"
        if done
        else f"not done within {arguments.wait:.0f} s: it will be when a worker with {' and '.join(stages)} reads it"
    )
    return 0


def record_text(record: Record) -> str:
    """A record in full: its position, flaw, headers, key and value."""
    rows = [f"{record.topic}/{record.partition}/{record.offset}"]
    if record.flaw is not None:
        rows.append(f"cannot be read as it was sent: {printable(record.flaw.reason, limit=LINE)}")
    rows += [f"  {printable(name, limit=LINE)}: {bytes_text(value)}" for name, value in record.headers]
    return "\n".join([*rows, f"key: {bytes_text(record.key)}", "value:", value_text(record.value)])


async def _read(where: Kafka, tp: TopicPartition, offset: int, *, unread: bool) -> Record | None:
    """The record; None if it must not be unpacked. Raises NotFound if there is none."""
    if tp not in await reach.partitions_of(where, tp.topic):
        raise NotFound(f"{tp.topic} has no partition {tp.partition}")
    async with reach.started(where, clients.consumer(where)) as consumer:
        consumer.assign([tp])
        begin, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
        if not begin <= offset < end:
            raise NotFound(f"{tp.topic}/{tp.partition} has the offsets {begin} to {end - 1}")
        if unread:
            return None
        consumer.seek(tp, offset)
        deadline = time.monotonic() + READ_S
        while await consumer.position(tp) <= offset and time.monotonic() < deadline:
            for raw in (await consumer.getmany(tp, timeout_ms=200, max_records=1)).get(tp, ()):
                record = clients.record_of(raw)
                first = record.flaw.offsets[0] if record.flaw and record.flaw.offsets else record.offset
                if first <= offset <= record.offset:
                    return record
    raise NotFound(f"{tp.topic}/{tp.partition} has no record at {offset}: a transaction marker, or deleted")


async def _not_passed(where: Kafka, stages: Sequence[str], tp: TopicPartition, offset: int) -> list[str]:
    """Those of these stages that have not committed a higher offset. Raises InvalidInput if all have."""
    admin = AIOKafkaAdminClient(**where.client(), request_timeout_ms=10_000)
    with reach.kafka_explained(where):
        try:
            await admin.start()
            committed = {
                stage: (await admin.list_consumer_group_offsets(f"concord.{stage}", partitions=[tp]))[tp].offset
                for stage in stages
            }
        finally:
            await admin.close()
    remaining = [stage for stage in stages if committed[stage] <= offset]
    if not remaining:
        passed = ", ".join(
            f"{stage} is past it: the next offset that it reads is {committed[stage]}" for stage in stages
        )
        raise InvalidInput(f"{tp.topic}/{tp.partition}: {passed}")
    return remaining


async def _is_done(operations: PostgresOperations, skip: Skip, stages: Sequence[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if set(stages) <= set(await operations.done_by(skip)):
            return True
        await asyncio.sleep(POLL_S)
    return False
