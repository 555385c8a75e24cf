"""Compares the committed offsets of consumer groups with the ends of their topics, without joining a group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from agents.runtime.kafka import client as clients
from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.topic_layout import admin_client

#: By `TopicPartition`, the offset that the next record will have.
Ends = Mapping[Any, int]

#: Seconds for reading a record between two offsets, if there is one.
READ_S = 2.0

#: Timeout of an admin request, in milliseconds.
ADMIN_MS = 15_000


class GroupPositions:
    """Reads topic ends and committed offsets. Methods raise KafkaError or TimeoutError when Kafka does not answer."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def ends(self, topics: Collection[str]) -> dict[Any, int]:
        """The end of each partition of these topics now; topics that do not exist are left out."""
        async with admin_client(self._kafka, ADMIN_MS) as admin:
            described = await admin.describe_topics(list(topics))
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            if topic["error_code"] == 0
            for partition in topic["partitions"]
        ]
        async with self._reader() as reader:
            return dict(await reader.end_offsets(partitions)) if partitions else {}

    async def passed(self, groups: Mapping[str, Collection[str]], ends: Ends) -> bool:
        """Whether each group has committed past `ends` in each of its topics; `groups` maps a group to its topics.

        The last record of a transaction is followed by a marker, which has an offset and is delivered to no consumer:
        so a group whose committed offset is below the end is behind only if there is a record between the two.
        """
        behind: dict[Any, int] = {}
        async with admin_client(self._kafka, ADMIN_MS) as admin:
            for group, topics in groups.items():
                committed = await _committed(admin, group)
                for partition, end in ends.items():
                    if partition.topic in topics:
                        position = committed.get(partition)
                        begin = position.offset if position is not None and position.offset > 0 else 0
                        if begin < end:
                            behind[partition] = min(begin, behind.get(partition, end))
        return not behind or not await self._has_records(behind, ends)

    async def _has_records(self, begins: Ends, ends: Ends) -> bool:
        """Whether any partition has a record at or after `begins` and before `ends`."""
        async with self._reader() as reader:
            first = await reader.beginning_offsets(list(begins))
            for partition, begin in begins.items():
                if max(begin, first[partition]) >= ends[partition]:
                    continue
                reader.assign([partition])
                reader.seek(partition, max(begin, first[partition]))
                if await self._has_record_before(reader, partition, ends[partition]):
                    return True
        return False

    @staticmethod
    async def _has_record_before(reader: Any, partition: Any, end: int) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                while await reader.position(partition) < end:
                    records = await reader.getmany(partition, timeout_ms=200, max_records=1)
                    if any(record.offset < end for record in records.get(partition, ())):
                        return True
        return bool(await reader.position(partition) < end)

    @contextlib.asynccontextmanager
    async def _reader(self) -> AsyncIterator[Any]:
        reader = clients.consumer(self._kafka)
        await reader.start()
        try:
            yield reader
        finally:
            await reader.stop()


async def _committed(admin: Any, group: str) -> dict[Any, Any]:
    """The group's committed offsets, after retries: at Kafka's start, and after the loss of a broker, a group has no
    coordinator for some seconds.
    """
    for pause_s in (0.2, 0.4, 0.8, 1.6, 3.2):
        with contextlib.suppress(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            return dict(await admin.list_consumer_group_offsets(group))
        await asyncio.sleep(pause_s)
    return dict(await admin.list_consumer_group_offsets(group))
