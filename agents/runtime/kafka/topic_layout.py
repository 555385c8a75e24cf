"""The topics of a fleet: creates missing ones, and finds configurations that would refuse or lose events.

A topic with another size limit, cleanup policy or number of replicas than Concord needs refuses events, or loses them,
without an error that anybody reads. So every start of a worker compares all topics, the relay's worker does so again
every minute, and `concord doctor` lists each fault with the command that fixes it. Topics that only Concord writes are
fixed without asking: a limit that is too low, the timestamp type of the changelog, missing partitions of
`relay.position`.
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

from agents.runtime.kafka.alter_configs import alter_configs
from agents.runtime.kafka.client import MAX_RECORD_BYTES, Kafka
from agents.runtime.stage import TableStage
from schemas import topics
from schemas.errors import Misconfigured
from schemas.topics import Topic

log = logging.getLogger(__name__)

#: Kafka's default of `max.message.bytes`, set all the same: a broker may have another default.
EVENT_LIMIT = 1_048_588

DAY_MS = 86_400_000

#: Milliseconds for which events and dead letters are kept.
EVENTS_MS, LETTERS_MS = 7 * DAY_MS, 30 * DAY_MS

#: Seconds between two checks of the topics; and at least, when a check is requested.
CHECK_S, MIN_CHECK_S = 60.0, 2.0


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """A topic as Concord creates it."""

    name: str
    partitions: int
    configs: Mapping[str, str]
    #: Producers outside Concord write to it: its limits are agreed between them and the operator.
    ingress: bool = False
    #: It needs at least `partitions`, and may be given more: no record in it is found by its key.
    growing: bool = False
    #: Another topic, whose number of partitions it must have.
    beside: str | None = None


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as Kafka describes it."""

    name: str
    partitions: int
    #: Of the partition that has the fewest.
    replicas: int
    #: Partitions without a leader at this moment.
    leaderless: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicFault:
    """A property of a topic with which Concord does not work, or only for a while."""

    topic: str
    #: A sentence without its subject, the topic.
    problem: str
    #: The command or action that fixes it.
    advice: str
    #: Whether events are refused or lost, and not only kept for too short a time.
    fatal: bool = True
    #: Configuration that Concord sets without asking, and the number of partitions that it creates without asking.
    repair: Mapping[str, str] = field(default_factory=dict)
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class Ensured:
    """The names of the topics that `ensure` created, and the faults that it did not fix."""

    created: list[str]
    faults: list[TopicFault]


def layout(kafka: Kafka, events: Iterable[Topic], tables: Iterable[TableStage]) -> tuple[TopicLayout, ...]:
    """These topics of events with their dead letters, the changelogs of these tables, and the relay's positions."""
    event_topics = [made for topic in events for made in (_events(topic, kafka), _letters(topic))]
    shards = max(8, kafka.relay_shards)
    position = TopicLayout(topics.RELAY_POSITION, shards, _deleted_after(EVENTS_MS, EVENT_LIMIT), growing=True)
    # Faust names a table's changelog after the app and the table; its partitions must be those of the source topic.
    changelogs = [
        TopicLayout(f"concord.{one.name}-{one.table}-changelog", kafka.partitions, _compacted(), beside=one.topic.name)
        for one in tables
    ]
    return (*event_topics, position, *changelogs)


def _events(topic: Topic, kafka: Kafka) -> TopicLayout:
    configs = _compacted() if topic.compacted else _deleted_after(EVENTS_MS, EVENT_LIMIT)
    return TopicLayout(topic.name, kafka.partitions, configs, ingress=topic.ingress)


def _letters(topic: Topic) -> TopicLayout:
    return TopicLayout(topic.dead_letters, 1, _deleted_after(LETTERS_MS, MAX_RECORD_BYTES))


#: The broker's clock, not the producer's: a record is not refused, nor deleted at once, because the clock of a worker
#: or a producer is wrong.
_CLOCK = {"message.timestamp.type": "LogAppendTime"}


def _deleted_after(milliseconds: int, limit: int) -> dict[str, str]:
    retention = {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}
    return retention | {"max.message.bytes": str(limit)} | _CLOCK


def _compacted() -> dict[str, str]:
    return {"cleanup.policy": "compact", "max.message.bytes": str(MAX_RECORD_BYTES)} | _CLOCK


def faults(layouts: Sequence[TopicLayout], states: Mapping[str, TopicState]) -> list[TopicFault]:
    """The faults of those of these topics that exist; `states` is by topic name."""
    return [
        fault
        for topic in layouts
        if topic.name in states
        for fault in _faults(topic, states[topic.name], states.get(topic.beside or ""))
    ]


def _faults(topic: TopicLayout, state: TopicState, beside: TopicState | None) -> Iterator[TopicFault]:
    yield from _limit(topic, state)
    yield from _cleanup(topic, state)
    yield from _retention(topic, state)
    yield from _replicas(state)
    yield from _timestamps(topic, state)
    yield from _partitions(topic, state, beside)


def _limit(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    needed = topic.configs["max.message.bytes"]
    limit = state.configs.get("max.message.bytes", needed)
    if int(limit) < int(needed) and not topic.ingress:
        problem = f"takes records of at most {limit} bytes, and events may have {needed}"
        repair = {"max.message.bytes": needed}
        yield TopicFault(topic.name, problem, set_configs(topic.name, repair), repair=repair)


def _cleanup(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    needed, policy = topic.configs["cleanup.policy"], state.configs.get("cleanup.policy", "")
    advice = set_configs(topic.name, {"cleanup.policy": needed})
    if needed == "delete" and "compact" in policy:
        problem = "is compacted: events with the same key are deleted, those without a key are refused"
        yield TopicFault(topic.name, problem, advice)
    if needed == "compact" and "delete" in policy:
        yield TopicFault(topic.name, "is not only compacted: old jobs vanish from it", advice, fatal=False)


def _retention(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    least = DAY_MS if topic.ingress else int(topic.configs.get("retention.ms", 0))
    retention = int(state.configs.get("retention.ms", -1))
    deletes = topic.configs["cleanup.policy"] == "delete" and "delete" in state.configs.get("cleanup.policy", "")
    if deletes and 0 <= retention < least:
        problem = f"keeps records for {retention / DAY_MS:.3g} days, and should for {least / DAY_MS:.3g}"
        advice = set_configs(topic.name, {"retention.ms": str(least)})
        yield TopicFault(topic.name, problem, advice, fatal=retention < DAY_MS)


def _replicas(state: TopicState) -> Iterator[TopicFault]:
    in_sync = int(state.configs.get("min.insync.replicas", 1))
    if in_sync > state.replicas:
        problem = f"has {state.replicas} replicas and min.insync.replicas {in_sync}: an older Kafka then takes nothing"
        advice = set_configs(state.name, {"min.insync.replicas": str(state.replicas)})
        yield TopicFault(state.name, problem, advice, fatal=False)


def _timestamps(topic: TopicLayout, state: TopicState) -> Iterator[TopicFault]:
    """Checks the changelog alone: Faust writes it with its worker's clock, while the relay detects a wrong clock and
    omits timestamps.
    """
    if topic.beside is not None and state.configs.get("message.timestamp.type", "CreateTime") == "CreateTime":
        problem = "refuses records of workers whose clocks are ahead"
        yield TopicFault(topic.name, problem, set_configs(topic.name, _CLOCK), fatal=False, repair=_CLOCK)


def _partitions(topic: TopicLayout, state: TopicState, beside: TopicState | None) -> Iterator[TopicFault]:
    if state.leaderless:
        problem = f"has no leader for {state.leaderless} of its {state.partitions} partitions"
        yield TopicFault(topic.name, problem, "start the brokers that are down, or read their logs")
    if topic.growing and state.partitions < topic.partitions:
        problem = f"has {state.partitions} partitions, and needs {topic.partitions}"
        advice = f"kafka-topics --alter --topic {topic.name} --partitions {topic.partitions}"
        yield TopicFault(topic.name, problem, advice, partitions=topic.partitions)
    if beside is not None and state.partitions != beside.partitions:
        problem = f"has {state.partitions} partitions, and {beside.name} has {beside.partitions}: they must be the same"
        yield TopicFault(topic.name, problem, "stop the workers of `track`, delete this topic, and start them again")


def set_configs(topic: str, configs: Mapping[str, str]) -> str:
    """The shell command that sets these configurations of a topic."""
    pairs = ",".join(f"{name}={value}" for name, value in configs.items())
    return f"kafka-configs --alter --entity-type topics --entity-name {topic} --add-config {pairs}"


async def ensure(kafka: Kafka, layouts: Sequence[TopicLayout]) -> Ensured:
    """Create the topics that are missing, repair those with a `TopicFault.repair`, and return the other faults.

    Raises:
        Misconfigured: Kafka refuses to create a topic.
        KafkaError: Kafka does not answer.
    """
    async with admin_client(kafka) as admin:
        created = await _create(admin, layouts, kafka)
        try:
            remaining = faults(layouts, await topic_states(admin, [topic.name for topic in layouts]))
            remaining = [fault for fault in remaining if not await _repair(admin, fault)]
        except kafka_errors.KafkaError as exc:
            log.warning("the topics' configurations cannot be read or changed (%s)", type(exc).__name__)
            remaining = []
    return Ensured(created, remaining)


@contextlib.asynccontextmanager
async def admin_client(kafka: Kafka, timeout_ms: int = 20_000) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client for the duration of the context. Raises KafkaError when no broker answers."""
    admin = AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=timeout_ms)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, layouts: Sequence[TopicLayout], kafka: Kafka) -> list[str]:
    existing = set(await admin.list_topics())
    missing = [topic for topic in layouts if topic.name not in existing]
    if not missing:
        return []
    replication = kafka.replication or min(3, len((await admin.describe_cluster())["brokers"]))
    # With three replicas, an acknowledged record is on two at least, so that the loss of one broker does not lose it.
    durable = {"min.insync.replicas": "2"} if replication >= 3 else {}
    new = [NewTopic(t.name, t.partitions, replication, topic_configs={**t.configs, **durable}) for t in missing]
    created = []
    for name, code, *message in (await admin.create_topics(new, timeout_ms=15_000)).topic_errors:
        error = kafka_errors.for_code(code)
        if error is kafka_errors.NoError:
            created.append(name)
        elif error is not kafka_errors.TopicAlreadyExistsError:  # created by another worker at the same moment
            _raise_not_created(name, error, message)
    return created


def _raise_not_created(name: str, error: type[kafka_errors.KafkaError], message: Sequence[str | None]) -> None:
    reason = f"{error.__name__}: {message[0]}" if message and message[0] else error.__name__
    if error.retriable:
        raise error(reason)
    raise Misconfigured(
        f"Kafka does not create the topic {name} ({reason}); create it, or let this login create topics"
    )


async def topic_states(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, TopicState]:
    """The states of those of these topics that exist, by name. Raises KafkaError when Kafka does not answer."""
    described = {topic["topic"]: topic for topic in await admin.describe_topics() if topic["topic"] in set(names)}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in described]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources) if resources else []:
        for resource in response.to_object()["resources"]:
            entries = resource["config_entries"]
            configs[resource["resource_name"]] = {e["config_names"]: e["config_value"] for e in entries}
    return {name: _state(topic, configs.get(name, {})) for name, topic in described.items()}


async def retention_s(kafka: Kafka, layouts: Sequence[TopicLayout]) -> dict[str, float | None]:
    """Seconds for which Kafka keeps the records of those of these topics that exist; None for compacted ones, and for
    those that it keeps for ever. Raises KafkaError when Kafka does not answer.
    """
    async with admin_client(kafka) as admin:
        states = await topic_states(admin, [topic.name for topic in layouts])
    kept_ms = {
        name: int(state.configs.get("retention.ms") or -1) if "delete" in state.configs["cleanup.policy"] else -1
        for name, state in states.items()
    }
    return {name: ms / 1000 if ms >= 0 else None for name, ms in kept_ms.items()}


def _state(topic: Mapping[str, Any], configs: Mapping[str, str]) -> TopicState:
    partitions = topic["partitions"]
    return TopicState(
        topic["topic"],
        len(partitions),
        min((len(p["replicas"]) for p in partitions), default=0),
        sum(p["leader"] < 0 for p in partitions),
        configs,
    )


async def _repair(admin: AIOKafkaAdminClient, fault: TopicFault) -> bool:
    """Fix a fault that may be fixed without asking; whether it is fixed."""
    try:
        if fault.repair:
            await alter_configs(admin, fault.topic, fault.repair)
        elif fault.partitions is not None:
            await admin.create_partitions({fault.topic: NewPartitions(fault.partitions)})
        else:
            return False
    except kafka_errors.KafkaError as exc:
        log.warning("the topic %s %s, and cannot be changed (%s)", fault.topic, fault.problem, type(exc).__name__)
        return False
    log.warning("the topic %s was changed, because it %s", fault.topic, fault.problem)
    return True


class TopicRepair:
    """Checks the topics every `CHECK_S` seconds: one that is deleted while the fleet runs is created again."""

    def __init__(self, kafka: Kafka, layouts: Sequence[TopicLayout]) -> None:
        self._kafka = kafka
        self._layouts = layouts
        self._requested = asyncio.Event()

    def request_check(self) -> None:
        """Have the topics checked soon, because one seems to be missing."""
        self._requested.set()

    async def run(self) -> None:
        """Check the topics until cancelled. Errors of Kafka are logged, and the next check tries again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._requested.wait()
            self._requested.clear()
            try:
                result = await ensure(self._kafka, self._layouts)
            except (kafka_errors.KafkaError, Misconfigured, OSError, TimeoutError) as exc:
                log.warning("the topics were not checked: %s", exc or type(exc).__name__)
            else:
                for name in result.created:
                    log.warning("the topic %s was missing and is created again", name)
            await asyncio.sleep(MIN_CHECK_S)
