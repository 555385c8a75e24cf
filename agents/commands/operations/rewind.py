"""`concord rewind`: lets stages read again what came since a time. Part of bringing a restored database up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError

from agents.commands import reach
from agents.commands.jobs.usage import moment
from agents.runtime.kafka import client as clients
from agents.runtime.kafka.group_positions import ADMIN_MS
from agents.runtime.kafka.topic_layout import admin_client
from agents.stages import registry
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka

#: States of a group in which its offsets may be changed: nobody reads.
_AT_REST: Final = frozenset({"Empty", "Dead"})

DESCRIPTION = """Moves the position of the stages' consumer groups back to the first record of a time, so that they read
everything again that came since. What the database knows already changes nothing; what it has forgotten, because it
was restored from a backup, is done again. Only while no worker runs.

  concord rewind --since 2026-11-29T10:00              the time of the backup, or some minutes earlier
  concord rewind --since 2026-11-29T10:00 --dry-run    what would be read again

ops/restore.md says when this is the right thing to do, and what comes before and after it."""


def add(commands: Any) -> None:
    """The command."""
    command = commands.add_parser(
        "rewind",
        help="let stages read again what came since a time",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--since", metavar="TIME", type=moment, required=True, help="in UTC")
    command.add_argument("--dry-run", action="store_true", help="change nothing")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Look, move, say."""
    where = reach.kafka(reach.addressed(settings))
    with reach.kafka_explained(where):
        read = groups(settings.recognizers)
        await _refuse_busy(where, list(read))
        for group, names in read.items():
            moved = await rewound(where, group, names, arguments.since, dry_run=arguments.dry_run)
            print(f"{group:<40} {moved:>8} records to be read again")
    return 0


def groups(recognizers: tuple[str, ...]) -> dict[str, list[str]]:
    """Every stage's consumer group, with the topics that it reads."""
    found: dict[str, list[str]] = {}
    for topic, stages in registry.read_by(recognizers).items():
        for stage in stages:
            found.setdefault(f"concord.{stage}", []).append(topic)
    return found


async def _refuse_busy(where: Kafka, names: list[str]) -> None:
    """Raises InvalidInput while a group has members: Kafka would refuse, and they would not look."""
    async with admin_client(where, ADMIN_MS) as admin:
        busy = [name for name in names if await _state(admin, name) not in _AT_REST]
    if busy:
        raise InvalidInput(f"workers run ({', '.join(busy)}): stop them all first, and wait ten seconds")


async def _state(admin: Any, group: str) -> str:
    for pause_s in (0.2, 0.8, 1.6, 3.2):
        try:
            [answer] = await admin.describe_consumer_groups([group])
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(pause_s)
        else:
            return str(answer.groups[0][2])
    return "Dead"


async def rewound(where: Kafka, group: str, names: Sequence[str], since: datetime, *, dry_run: bool = False) -> int:
    """Commit, for this group, the offsets of the first records at or after `since`; how many records come again.

    A position that is before that already stays.
    """
    reader = clients.consumer(where, group_id=group)
    await reader.start()
    try:
        partitions = [
            TopicPartition(topic, number) for topic in names for number in await reach.partitions_of(where, topic)
        ]
        reader.assign(partitions)
        begins = await reader.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
        moved, again = {}, 0
        for partition, begin in begins.items():
            position = await reader.committed(partition)
            if begin is not None and position is not None and begin.offset < position:
                moved[partition] = begin.offset
                again += position - begin.offset
        if moved and not dry_run:
            await reader.commit(moved)
        return again
    finally:
        await reader.stop()
