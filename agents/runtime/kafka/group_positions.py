"""Whether consumer groups have read everything that was in their topics at some moment. Asks Kafka; joins no group."""

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

#: For each topic and partition the offset of the next record.
Ends = Mapping[Any, int]

#: Seconds that Kafka has for saying whether there are records between two offsets.
LOOK_S = 2.0

#: Milliseconds that Kafka has for an answer about a group.
ADMIN_MS = 15_000


class GroupPositions:
    """Positions of groups in topics. Raises KafkaError and TimeoutError when Kafka does not answer."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def ends(self, topics: Collection[str]) -> dict[Any, int]:
        """The ends of these topics now; topics that are not there are left out."""
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
        """Whether each group has committed past `ends` in each of its topics.

        The last record of a transaction is followed by a marker, which nobody reads and which counts as an offset: a
        group that is said to be behind is so only if there is a record.
        """
        behind: dict[Any, int] = {}
        async with admin_client(self._kafka, ADMIN_MS) as admin:
            for group, topics in groups.items():
                committed = await _committed(admin, group)
                for partition, end in ends.items():
                    if partition.topic in topics:
                        known = committed.get(partition)
                        begin = known.offset if known is not None and known.offset > 0 else 0
                        if begin < end:
                            behind[partition] = min(begin, behind.get(partition, end))
        return not behind or not await self._records(behind, ends)

    async def _records(self, begins: Ends, ends: Ends) -> bool:
        """Whether any partition has a record at or after `begins` and before `ends`."""
        async with self._reader() as reader:
            first = await reader.beginning_offsets(list(begins))
            for partition, begin in begins.items():
                if max(begin, first[partition]) >= ends[partition]:
                    continue
                reader.assign([partition])
                reader.seek(partition, max(begin, first[partition]))
                if await self._record_before(reader, partition, ends[partition]):
                    return True
        return False

    @staticmethod
    async def _record_before(reader: Any, partition: Any, end: int) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                while await reader.position(partition) < end:
                    found = await reader.getmany(partition, timeout_ms=200, max_records=1)
                    if any(record.offset < end for record in found.get(partition, ())):
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
    """The group's offsets. Coordinators take a moment at Kafka's start and after one of its nodes is lost."""
    for pause_s in (0.2, 0.4, 0.8, 1.6, 3.2):
        with contextlib.suppress(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            return dict(await admin.list_consumer_group_offsets(group))
        await asyncio.sleep(pause_s)
    return dict(await admin.list_consumer_group_offsets(group))
