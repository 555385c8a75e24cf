"""Connection settings for Kafka, and the producers and consumers that Concord creates from them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

import aiokafka

from agents.runtime.kafka import record_batches
from schemas.envelope import Flaw, Record

#: Largest record, in bytes: a dead letter is the original record with some headers more.
MAX_RECORD_BYTES = 4 << 20


@dataclass(frozen=True)
class Kafka:
    """Addresses and credentials of the brokers, and how topics are created."""

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
        """Arguments for the constructor of any aiokafka client. Raises OSError for a CA file that cannot be read."""
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
        """The credentials as Faust takes them; None without any. Raises OSError as `client`."""
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


def producer(kafka: Kafka, **more: Any) -> aiokafka.AIOKafkaProducer:
    """An idempotent producer that waits for all in-sync replicas. `more` are further arguments of aiokafka's."""
    return aiokafka.AIOKafkaProducer(
        **kafka.client(), enable_idempotence=True, acks="all", max_request_size=MAX_RECORD_BYTES, **more
    )


def consumer(kafka: Kafka, *names: str, **more: Any) -> aiokafka.AIOKafkaConsumer:
    """A consumer with isolation level `read_committed`, without automatic commits, that reads from the earliest offset.

    `more` are further arguments of aiokafka's, and override these defaults. Replaces aiokafka's record parser in this
    process (`record_batches.install`).
    """
    record_batches.install()
    arguments: dict[str, Any] = {
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
    }
    return aiokafka.AIOKafkaConsumer(*names, **kafka.client(), **(arguments | more))


def record_of(raw: Any) -> Record:
    """A `ConsumerRecord` of `record_batches` as Concord's record."""
    flaw = raw.checksum if isinstance(raw.checksum, Flaw) else None
    return Record(
        raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers), raw.timestamp or 0, flaw
    )
