"""The addresses of Kafka, PostgreSQL and the blob store, from the settings."""

from __future__ import annotations

from agents.fleet.settings import Settings
from agents.runtime.kafka.client import Kafka
from schemas.errors import SettingsError
from sinks.ports.blobs import Store


def kafka_of(settings: Settings) -> Kafka:
    """How to connect to Kafka.

    Raises:
        SettingsError: It is not configured.
    """
    if settings.kafka_servers is None:
        raise SettingsError("KAFKA_BOOTSTRAP_SERVERS is not set, and no `concord up` runs on this CONCORD_DATA")
    return Kafka(
        settings.kafka_servers,
        settings.kafka_security,
        settings.kafka_mechanism,
        settings.kafka_username,
        settings.kafka_password.get_secret_value() if settings.kafka_password else None,
        settings.kafka_cafile,
        settings.kafka_partitions,
        settings.kafka_replication,
        settings.relay_shards,
    )


def dsn_of(settings: Settings) -> str:
    """The connection string of PostgreSQL.

    Raises:
        SettingsError: It is not configured.
    """
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL is not set, and no `concord up` runs on this CONCORD_DATA")
    return settings.database_url.get_secret_value()


def open_store(settings: Settings) -> Store:
    """The configured blob store."""
    from sinks.blobs.local import LocalStore

    if settings.s3_bucket is None:
        return LocalStore(settings.storage)
    from sinks.blobs.fallback import FallbackStore
    from sinks.blobs.s3 import S3Store

    bucket = S3Store(
        settings.s3_bucket,
        prefix=settings.s3_prefix,
        region=settings.s3_region,
        endpoint_url=settings.s3_endpoint,
        public_endpoint_url=settings.s3_public_endpoint,
        access_key=settings.aws_key,
        secret_key=settings.aws_secret.get_secret_value() if settings.aws_secret else None,
        session_token=settings.aws_token.get_secret_value() if settings.aws_token else None,
        sse=settings.s3_encryption,
    )
    # The name starts with a dot, so that it cannot contain blobs of a local store that was in this folder before.
    return FallbackStore(bucket, LocalStore(settings.storage / ".fallback")) if settings.storage_fallback else bucket
