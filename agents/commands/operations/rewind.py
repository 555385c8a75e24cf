"""`concord rewind`: moves committed offsets back to a time, so that a restored database is brought up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import GroupCoordinatorNotAvailableError

from agents.commands import reach
from agents.commands.arguments import moment
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

#: States of a group without members, in which its offsets may be changed.
_WITHOUT_MEMBERS: Final = frozenset({"Empty", "Dead"})

DESCRIPTION = """Moves the committed offsets of the stages' consumer groups back to the first record since a time, so
that all records since then are read again. Events that the database has already stored change nothing; those that it
lacks, because it was restored from a backup, are handled again. Only while no worker runs.

  concord rewind --since 2026-11-29T10:00              the time of the backup, or some minutes earlier
  concord rewind --since 2026-11-29T10:00 --dry-run    print how many records would be read again

ops/restore.md describes when this is right, and the steps before and after it."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "rewind",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--since", metavar="TIME", type=moment, required=True, help="in UTC")
    command.add_argument("--dry-run", action="store_true", help="change nothing")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Move the offsets of every group, and print how many records each reads again."""
    where = reach.kafka(reach.addressed(settings))
    with reach.kafka_explained(where):
        topics_of_groups = groups(settings.recognizers)
        await _refuse_active(where, list(topics_of_groups))
        for group, names in topics_of_groups.items():
            count = await rewind(where, group, names, arguments.since, dry_run=arguments.dry_run)
            print(f"{group:<40} {count:>8} records to be read again")
    return 0


def groups(recognizers: tuple[str, ...]) -> dict[str, list[str]]:
    """By consumer group of a stage, the topics that it reads."""
    topics_of_groups: dict[str, list[str]] = {}
    for topic, stages in registry.read_by(recognizers).items():
        for stage in stages:
            topics_of_groups.setdefault(f"concord.{stage}", []).append(topic)
    return topics_of_groups


async def _refuse_active(where: Kafka, names: list[str]) -> None:
    """Raise InvalidInput while a group has members: Kafka would refuse the commit, and they would not seek."""
    async with admin_client(where, ADMIN_MS) as admin:
        active = [name for name in names if await _state(admin, name) not in _WITHOUT_MEMBERS]
    if active:
        raise InvalidInput(f"workers run ({', '.join(active)}): stop them all first, and wait ten seconds")


async def _state(admin: Any, group: str) -> str:
    for pause_s in (0.2, 0.8, 1.6, 3.2):
        try:
            [response] = await admin.describe_consumer_groups([group])
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(pause_s)
        else:
            return str(response.groups[0][2])
    return "Dead"


async def rewind(where: Kafka, group: str, names: Sequence[str], since: datetime, *, dry_run: bool = False) -> int:
    """Commit, for this group, the offsets of the first records at or after `since`; how many records are read again.

    A committed offset that is lower already is kept. `dry_run` commits nothing.

    Raises:
        NotFound: one of the topics does not exist.
        KafkaError: Kafka does not answer, or refuses the commit.
    """
    reader = clients.consumer(where, group_id=group)
    await reader.start()
    try:
        partitions = await reach.partitions_of(where, *names)
        reader.assign(partitions)
        begins = await reader.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
        offsets, count = {}, 0
        for partition, begin in begins.items():
            position = await reader.committed(partition)
            if begin is not None and position is not None and begin.offset < position:
                offsets[partition] = begin.offset
                count += position - begin.offset
        if offsets and not dry_run:
            await reader.commit(offsets)
        return count
    finally:
        await reader.stop()
