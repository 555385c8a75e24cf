"""`concord skip`: lead the fleet past a record that it cannot get past by itself."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agents.commands import reach
from agents.commands.operations.dlq import pretty, readable_bytes
from agents.runtime.kafka import client as clients
from schemas import topics
from schemas.errors import InvalidInput, NotFound
from schemas.operations import Skip
from schemas.printable import LINE, printable

if TYPE_CHECKING:
    from typing import Any

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka
    from schemas.envelope import Record
    from sinks.ports.operations import Operations

#: Seconds for which the record is looked for, and between looks at whether it has been passed over.
READ_S, LOOK_S = 10.0, 0.5

DESCRIPTION = """The last resort for a record at which a stage fails again and again, or stands still: /readyz and
`concord doctor` say which one, as TOPIC/PARTITION/OFFSET.

  concord skip audio.uploaded 2 1714
  concord skip audio.uploaded 2 1714 --reason "kills the prober, see #123"
  concord skip audio.uploaded 2 1714 --unread       the workers die even of looking at it

The record goes into <topic>.dlq with the reason, its job ends in `job.failed`, and the stage goes on behind it. Nothing
is lost: `concord dlq replay` puts it back when the cause is mended.

It works while the fleet runs, while it crashes, and while it is stopped: the wish is kept in PostgreSQL, workers look
for it every few seconds and before they start a stage. (Kafka itself takes offsets from nobody else while a stage has
members.) A wish holds for 14 days and for this very record.

With --unread the bytes are not even unpacked: all records that were sent in one batch with it become one dead letter,
from which they cannot be replayed, and their jobs get no `job.failed`."""


def add(commands: Any) -> None:
    """The command."""
    command = commands.add_parser(
        "skip",
        help="lead the fleet past a record that it cannot get past",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("topic", metavar="TOPIC", help="a topic that a stage reads")
    command.add_argument("partition", metavar="PARTITION", type=_count)
    command.add_argument("offset", metavar="OFFSET", type=_count)
    command.add_argument("--reason", metavar="TEXT", default="no reason given", help="what the dead letter will say")
    command.add_argument("--unread", action="store_true", help="do not unpack it: its whole batch goes as it is")
    command.add_argument(
        "--wait", metavar="S", type=float, default=30.0, help="seconds to wait for a worker that does it (default: 30)"
    )
    command.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return int(text)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Look, ask, wait."""
    settings = reach.addressed(settings)
    where = reach.kafka(settings)
    tp = TopicPartition(arguments.topic, arguments.partition)
    stage = topics.read_by(settings.recognizers).get(tp.topic)
    if stage is None:
        there = ", ".join(topics.read_by(settings.recognizers))
        raise InvalidInput(f"no stage reads {tp.topic}; they read {there}")
    record = await _there(where, tp, arguments.offset, unread=arguments.unread)
    await _not_yet_done(where, stage, tp, arguments.offset)
    print("not looked at" if record is None else shown(record))
    reason = f"passed over by an operator: {arguments.reason}"
    when = record.timestamp_ms if record is not None else None
    skip = Skip(tp.topic, tp.partition, arguments.offset, reason, when, arguments.unread)
    async with reach.operations(settings) as operations:
        await operations.ask(skip)
        print(f"\n{stage} is to pass over {tp.topic}/{tp.partition}/{skip.offset}", flush=True)
        done = await _done(operations, skip, stage, arguments.wait)
    print(
        f"done: it is in {tp.topic}.dlq (`concord dlq list --topic {tp.topic}`)"
        if done
        else f"not done within {arguments.wait:.0f} s: it will be when a worker with {stage} comes to it"
    )
    return 0


def shown(record: Record) -> str:
    """A record for people."""
    rows = [f"{record.topic}/{record.partition}/{record.offset}"]
    if record.flaw is not None:
        rows.append(f"cannot be read as it was sent: {printable(record.flaw.reason, limit=LINE)}")
    rows += [f"  {printable(name, limit=LINE)}: {readable_bytes(value)}" for name, value in record.headers]
    return "\n".join([*rows, f"key: {readable_bytes(record.key)}", "value:", pretty(record.value)])


async def _there(where: Kafka, tp: TopicPartition, offset: int, *, unread: bool) -> Record | None:
    """The record; None if it is not to be looked at. Raises NotFound if there is none."""
    if tp.partition not in await reach.partitions_of(where, tp.topic):
        raise NotFound(f"{tp.topic} has no partition {tp.partition}")
    async with reach.started(where, clients.consumer(where)) as consumer:
        consumer.assign([tp])
        begin, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
        if not begin <= offset < end:
            raise NotFound(f"{tp.topic}/{tp.partition} has the offsets {begin} to {end - 1}")
        if unread:
            return None
        consumer.seek(tp, offset)
        give_up = time.monotonic() + READ_S
        while await consumer.position(tp) <= offset and time.monotonic() < give_up:
            for raw in (await consumer.getmany(tp, timeout_ms=200, max_records=1)).get(tp, ()):
                record = clients.record_of(raw)
                first = record.flaw.offsets[0] if record.flaw and record.flaw.offsets else record.offset
                if first <= offset <= record.offset:
                    return record
    raise NotFound(f"{tp.topic}/{tp.partition} has no record at {offset}: it was part of a transaction, or is gone")


async def _not_yet_done(where: Kafka, stage: str, tp: TopicPartition, offset: int) -> None:
    """Raises InvalidInput if the stage is past it."""
    group = f"concord.{stage}"
    admin = AIOKafkaAdminClient(**where.client(), request_timeout_ms=10_000)
    with reach.kafka_explained(where):
        try:
            await admin.start()
            committed = (await admin.list_consumer_group_offsets(group, partitions=[tp]))[tp].offset
        finally:
            await admin.close()
    if committed > offset:
        raise InvalidInput(f"{stage} is past it: what it reads next of {tp.topic}/{tp.partition} is {committed}")


async def _done(operations: Operations, skip: Skip, stage: str, seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if stage in await operations.done_by(skip):
            return True
        await asyncio.sleep(LOOK_S)
    return False
