"""The topics of a fleet: how they are made, and what is wrong with those that somebody else made.

A topic with another limit, cleanup policy or number of replicas than Concord needs refuses events, or loses them, and
says so to nobody. So every start compares them all, the relay's worker does so again all the time, and `concord doctor`
shows what it finds with the command that mends it. What only Concord writes is mended without asking: a limit that is
too low, the clock of the changelog, and partitions that `relay.position` lacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

from agents.runtime.kafka.client import MAX_RECORD_BYTES, Kafka
from agents.runtime.stage import TableStage
from schemas import topics
from schemas.errors import Misconfigured
from schemas.topics import Topic

log = logging.getLogger(__name__)

#: Kafka's own limit, set all the same: a broker may have another default.
EVENT_LIMIT = 1_048_588

DAY_MS = 86_400_000

#: Milliseconds for which events and dead letters are kept.
EVENTS_MS, LETTERS_MS = 7 * DAY_MS, 30 * DAY_MS

#: Seconds between looks at the topics, and between two of which the second was asked for.
LOOK_S, SOONEST_S = 60.0, 2.0


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """A topic as Concord makes it."""

    name: str
    partitions: int
    configs: Mapping[str, str]
    #: Strangers write there: its limits are a matter between them and whoever made it.
    ingress: bool = False
    #: It needs all of its partitions, and may be given them: nothing is found by its key.
    growing: bool = False
    #: Another topic, whose number of partitions it must have.
    beside: str | None = None


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is."""

    name: str
    partitions: int
    #: Of the partition that has the fewest.
    replicas: int
    #: Partitions that nobody leads at this moment.
    leaderless: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicFault:
    """Something about a topic that Concord cannot work with, or only for a while."""

    topic: str
    said: str
    #: What to do about it.
    advice: str
    #: Whether events are refused or lost as it is, and not only kept for too short.
    fatal: bool = True
    #: Configuration that Concord may set without asking, and the number of partitions that it may then give it.
    mend: Mapping[str, str] = field(default_factory=dict)
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class Ensured:
    """What `ensure` did, and what it found and cannot mend."""

    created: list[str]
    faults: list[TopicFault]


def layout(kafka: Kafka, events: Iterable[Topic], tables: Iterable[TableStage]) -> tuple[TopicLayout, ...]:
    """These topics of events with their dead letters, the changelogs of these tables, and the relay's positions."""
    every = [made for topic in events for made in (_events(topic, kafka), _letters(topic))]
    shards = max(8, kafka.relay_shards)
    position = TopicLayout(topics.RELAY_POSITION, shards, _kept(EVENT_LIMIT, EVENTS_MS), growing=True)
    # Faust names a table's changelog after the app and the table; its partitions must be those of the source topic.
    changelogs = [
        TopicLayout(f"concord.{one.name}-{one.table}-changelog", kafka.partitions, _compacted(), beside=one.topic.name)
        for one in tables
    ]
    return (*every, position, *changelogs)


def _events(topic: Topic, kafka: Kafka) -> TopicLayout:
    configs = _compacted() if topic.compacted else _kept(EVENT_LIMIT, EVENTS_MS)
    return TopicLayout(topic.name, kafka.partitions, configs, ingress=topic.ingress)


def _letters(topic: Topic) -> TopicLayout:
    return TopicLayout(topic.dead_letters, 1, _kept(MAX_RECORD_BYTES, LETTERS_MS))


#: The broker's clock, not that of whoever writes: a record is not refused, nor deleted at once, for the clock of a
#: worker or a producer.
_CLOCK = {"message.timestamp.type": "LogAppendTime"}


def _kept(limit: int, milliseconds: int) -> dict[str, str]:
    kept = {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}
    return kept | {"max.message.bytes": str(limit)} | _CLOCK


def _compacted() -> dict[str, str]:
    return {"cleanup.policy": "compact", "max.message.bytes": str(MAX_RECORD_BYTES)} | _CLOCK


def faults(wanted: Sequence[TopicLayout], there: Mapping[str, TopicState]) -> list[TopicFault]:
    """What is wrong with the topics that are there."""
    return [
        fault
        for topic in wanted
        if topic.name in there
        for fault in _faults(topic, there[topic.name], there.get(topic.beside or ""))
    ]


def _faults(topic: TopicLayout, state: TopicState, beside: TopicState | None) -> Iterator[TopicFault]:
    yield from _limit(topic, state)
    yield from _cleanup(topic, state)
    yield from _replicas(state)
    yield from _time(topic, state)
    yield from _partitions(topic, state, beside)


def _limit(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    wanted = topic.configs["max.message.bytes"]
    there = state.configs.get("max.message.bytes", wanted)
    if int(there) < int(wanted) and not topic.ingress:
        said = f"takes records of at most {there} bytes, and events may have {wanted}"
        mend = {"max.message.bytes": wanted}
        yield TopicFault(topic.name, said, set_configs(topic.name, mend), mend=mend)


def _cleanup(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    wanted, there = topic.configs["cleanup.policy"], state.configs.get("cleanup.policy", "")
    advice = set_configs(topic.name, {"cleanup.policy": wanted})
    if wanted == "delete" and "compact" in there:
        said = "is compacted: events with the same key are thrown away, those without a key refused"
        yield TopicFault(topic.name, said, advice)
    if wanted == "compact" and "delete" in there:
        yield TopicFault(topic.name, "is not only compacted: old jobs vanish from it", advice, fatal=False)
    least = DAY_MS if topic.ingress else int(topic.configs.get("retention.ms", 0))
    kept = int(state.configs.get("retention.ms", -1))
    if "delete" in there and wanted == "delete" and 0 <= kept < least:
        said = f"keeps records for {kept / DAY_MS:.3g} days, and should for {least / DAY_MS:.3g}"
        advice = set_configs(topic.name, {"retention.ms": str(least)})
        yield TopicFault(topic.name, said, advice, fatal=kept < DAY_MS)


def _replicas(state: TopicState) -> Iterator[TopicFault]:
    in_sync = int(state.configs.get("min.insync.replicas", 1))
    if in_sync > state.replicas:
        said = f"has {state.replicas} replicas and min.insync.replicas {in_sync}: an older Kafka takes nothing then"
        advice = set_configs(state.name, {"min.insync.replicas": str(state.replicas)})
        yield TopicFault(state.name, said, advice, fatal=False)


def _time(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    """Faust writes the changelog with its worker's clock; the relay knows what to do about a clock by itself."""
    if topic.beside is not None and state.configs.get("message.timestamp.type", "CreateTime") == "CreateTime":
        said = "refuses what workers write whose clocks are ahead"
        yield TopicFault(topic.name, said, set_configs(topic.name, _CLOCK), fatal=False, mend=_CLOCK)


def _partitions(topic: TopicLayout, state: TopicState, beside: TopicState | None) -> Iterator[TopicFault]:
    if state.leaderless:
        said = f"has no leader for {state.leaderless} of its {state.partitions} partitions"
        yield TopicFault(topic.name, said, "start the brokers that are away, or see their logs")
    if topic.growing and state.partitions < topic.partitions:
        said = f"has {state.partitions} partitions, and needs {topic.partitions}"
        advice = f"kafka-topics --alter --topic {topic.name} --partitions {topic.partitions}"
        yield TopicFault(topic.name, said, advice, partitions=topic.partitions)
    if beside is not None and state.partitions != beside.partitions:
        said = f"has {state.partitions} partitions, and {beside.name} has {beside.partitions}: they must be the same"
        yield TopicFault(topic.name, said, "stop the workers of `track`, delete this topic, and start them again")


def set_configs(topic: str, configs: Mapping[str, str]) -> str:
    """The command that sets a topic's configuration."""
    pairs = ",".join(f"{name}={value}" for name, value in configs.items())
    return f"kafka-configs --alter --entity-type topics --entity-name {topic} --add-config {pairs}"


async def ensure(kafka: Kafka, wanted: Sequence[TopicLayout]) -> Ensured:
    """Create what is missing, mend what may be mended without asking (`TopicFault.mend`), and tell what else is wrong.

    Raises Misconfigured for a topic that is missing and cannot be made, KafkaError when Kafka does not answer.
    """
    async with admin_client(kafka) as admin:
        created = await _create(admin, wanted, kafka)
        try:
            found = faults(wanted, await topic_states(admin, [topic.name for topic in wanted]))
            left = [fault for fault in found if not await _mended(admin, fault)]
        except kafka_errors.KafkaError as exc:
            log.warning("the topics cannot be compared with what is needed (%s)", type(exc).__name__)
            left = []
    return Ensured(created, left)


@contextlib.asynccontextmanager
async def admin_client(kafka: Kafka, timeout_ms: int = 20_000) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that may look at topics and groups and change them, for as long as the context lasts."""
    admin = AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=timeout_ms)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, wanted: Sequence[TopicLayout], kafka: Kafka) -> list[str]:
    there = set(await admin.list_topics())
    missing = [topic for topic in wanted if topic.name not in there]
    if not missing:
        return []
    replication = kafka.replication or min(3, len((await admin.describe_cluster())["brokers"]))
    # With three replicas, an acknowledged record is on two at least, so that no single broker's end loses it.
    durable = {"min.insync.replicas": "2"} if replication >= 3 else {}
    new = [NewTopic(t.name, t.partitions, replication, topic_configs={**t.configs, **durable}) for t in missing]
    created = []
    for name, code, *said in (await admin.create_topics(new, timeout_ms=15_000)).topic_errors:
        error = kafka_errors.for_code(code)
        if error is kafka_errors.NoError:
            created.append(name)
        elif error is not kafka_errors.TopicAlreadyExistsError:  # made by another worker, at the same moment
            _cannot_create(name, error, said)
    return created


def _cannot_create(name: str, error: type[kafka_errors.KafkaError], said: Sequence[str | None]) -> None:
    reason = f"{error.__name__}: {said[0]}" if said and said[0] else error.__name__
    if error.retriable:
        raise error(reason)
    raise Misconfigured(f"Kafka does not make the topic {name} ({reason}); make it, or let this login make topics")


async def topic_states(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, TopicState]:
    """How those of the topics are that are there."""
    described = {topic["topic"]: topic for topic in await admin.describe_topics() if topic["topic"] in set(names)}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in described]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources) if resources else []:
        for resource in answer.to_object()["resources"]:
            entries = resource["config_entries"]
            configs[resource["resource_name"]] = {e["config_names"]: e["config_value"] for e in entries}
    return {name: _state(topic, configs.get(name, {})) for name, topic in described.items()}


def _state(topic: Mapping[str, Any], configs: Mapping[str, str]) -> TopicState:
    partitions = topic["partitions"]
    return TopicState(
        topic["topic"],
        len(partitions),
        min((len(p["replicas"]) for p in partitions), default=0),
        sum(p["leader"] < 0 for p in partitions),
        configs,
    )


async def _mended(admin: AIOKafkaAdminClient, fault: TopicFault) -> bool:
    """Whether this was something that may be mended without asking, and now is."""
    try:
        if fault.mend:
            await _alter(admin, fault.topic, fault.mend)
        elif fault.partitions is not None:
            await admin.create_partitions({fault.topic: NewPartitions(fault.partitions)})
        else:
            return False
    except kafka_errors.KafkaError as exc:
        log.warning("the topic %s %s, and cannot be changed (%s)", fault.topic, fault.said, type(exc).__name__)
        return False
    log.warning("the topic %s was changed, because it %s", fault.topic, fault.said)
    return True


async def _alter(admin: AIOKafkaAdminClient, topic: str, configs: Mapping[str, str]) -> None:
    client = admin._client  # noqa: SLF001 - the admin client knows only the request that forgets all other settings
    answer = await client.send(client.get_random_node(), IncrementalAlterConfigsRequest(topic, configs))
    for code, said, *_ in answer.responses:
        if code:
            raise kafka_errors.for_code(code)(said)


class IncrementalAlterConfigsResponse(Response):  # type: ignore[misc]
    """KIP-339; aiokafka has no such request."""

    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class IncrementalAlterConfigsRequest_v0(RequestStruct):  # type: ignore[misc] # noqa: N801 - aiokafka's style
    """As it is sent."""

    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("config_operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class IncrementalAlterConfigsRequest(Request[IncrementalAlterConfigsRequest_v0]):  # type: ignore[misc]
    """Sets some of a topic's configuration and leaves the rest as it is."""

    API_KEY = 44

    def __init__(self, topic: str, configs: Mapping[str, str]) -> None:
        self._topic = topic
        self._configs = configs

    def build(self, request_struct_class: type[IncrementalAlterConfigsRequest_v0]) -> IncrementalAlterConfigsRequest_v0:
        """The request; operation 0 is "set"."""
        pairs = [(name, 0, value) for name, value in self._configs.items()]
        return request_struct_class([(ConfigResourceType.TOPIC, self._topic, pairs)], False)


class TopicRepair:
    """Looks at the topics all the time: one that was deleted while the fleet runs is made again."""

    def __init__(self, kafka: Kafka, topics: Sequence[TopicLayout]) -> None:
        self._kafka = kafka
        self._topics = topics
        self._asked = asyncio.Event()

    def look(self) -> None:
        """Look soon: a topic is missing."""
        self._asked.set()

    async def run(self) -> None:
        """Never returns by itself."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            self._asked.clear()
            try:
                done = await ensure(self._kafka, self._topics)
            except (kafka_errors.KafkaError, Misconfigured, OSError, TimeoutError) as exc:
                log.warning("the topics were not looked at: %s", exc or type(exc).__name__)
            else:
                for name in done.created:
                    log.warning("the topic %s was missing and is made again", name)
            await asyncio.sleep(SOONEST_S)
