"""How Concord reaches Kafka, and which topics it makes sure exist."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from agents import track
from schemas import topics

#: Largest record, in bytes: a dead letter is a stranger's record with some headers more.
MAX_RECORD_BYTES = 4 << 20


@dataclass(frozen=True)
class Kafka:
    """Where the brokers are, how to speak to them, and how topics are laid out."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    partitions: int = 4
    #: None: three, or as many as there are brokers.
    replication: int | None = None
    relay_shards: int = 1

    def client(self) -> dict[str, Any]:
        """Arguments for aiokafka's clients."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
            "ssl_context": self._ssl(),
        }
        if self.sasl_mechanism:
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return arguments

    def faust_credentials(self) -> Any:
        """The same for Faust."""
        from faust.auth import SASLCredentials, SSLCredentials

        if self.sasl_mechanism:
            return SASLCredentials(
                mechanism=self.sasl_mechanism,
                username=self.sasl_username,
                password=self.sasl_password,
                ssl_context=self._ssl(),
            )
        context = self._ssl()
        return SSLCredentials(context) if context else None

    def _ssl(self) -> ssl.SSLContext | None:
        if not self.security_protocol.endswith("SSL"):
            return None
        return ssl.create_default_context(cafile=self.ssl_cafile)


def _layout(kafka: Kafka, recognizers: tuple[str, ...]) -> Iterable[tuple[str, int, dict[str, str]]]:
    keep = {"cleanup.policy": "compact", "max.message.bytes": str(MAX_RECORD_BYTES)}
    for topic in topics.all_topics(recognizers):
        yield topic.name, kafka.partitions, keep if topic.compacted else {}
        yield topic.dead_letters, 1, {"max.message.bytes": str(MAX_RECORD_BYTES), "retention.ms": str(30 * 86_400_000)}
    yield topics.RELAY_POSITION, max(8, kafka.relay_shards), {}
    # Faust names a table's changelog after the app and the table; its partitions must be those of the source topic.
    yield f"concord.track-{track.TABLE}-changelog", kafka.partitions, keep


async def ensure_topics(kafka: Kafka, recognizers: tuple[str, ...]) -> list[str]:
    """Create what is missing; the names of what was created. What exists is left as it is."""
    admin = AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=20_000)
    await admin.start()
    try:
        there = set(await admin.list_topics())
        brokers = len((await admin.describe_cluster())["brokers"])
        replication = kafka.replication or min(3, brokers)
        missing = [
            NewTopic(name, partitions, replication, topic_configs=configs)
            for name, partitions, configs in _layout(kafka, recognizers)
            if name not in there
        ]
        for new in missing:
            try:
                await admin.create_topics([new], timeout_ms=15_000)
            except TopicAlreadyExistsError:
                continue  # another worker, at the same moment
        return [new.name for new in missing]
    finally:
        await admin.close()


def producer(kafka: Kafka, **more: Any) -> aiokafka.AIOKafkaProducer:
    """An idempotent producer."""
    return aiokafka.AIOKafkaProducer(
        **kafka.client(), enable_idempotence=True, acks="all", max_request_size=MAX_RECORD_BYTES, **more
    )


def consumer(kafka: Kafka, *names: str, **more: Any) -> aiokafka.AIOKafkaConsumer:
    """A consumer that reads what was committed, from the beginning unless told otherwise."""
    arguments: dict[str, Any] = {
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
    }
    return aiokafka.AIOKafkaConsumer(*names, **kafka.client(), **(arguments | more))
