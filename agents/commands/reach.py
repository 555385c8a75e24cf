"""Connections of commands to Kafka, PostgreSQL, the blob store and HTTP, with errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from agents.commands.serve import one_of, with_addresses
from agents.fleet.servers import dsn_of, kafka_of, open_store
from schemas.errors import NotFound, SettingsError, Unavailable
from schemas.ids import EVERY_TENANT
from sinks.postgres.connection.connect import connect
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.operations import PostgresOperations
from sinks.postgres.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka
    from schemas.jobs.rows import Job
    from sinks.ports.blobs import Store

#: Advice about a server that does not answer.
ADVICE = "`concord up` starts a fleet on this machine; `concord doctor` says what is wrong with a configured one."


def addressed(settings: Settings) -> Settings:
    """The settings with the servers of a `concord up` on this machine. Also reduces logging to warnings, unless
    CONCORD_LOG_LEVEL is set.
    """
    if "log_level" not in settings.model_fields_set:
        logging.getLogger().setLevel(logging.WARNING)
        # aiokafka logs every refused connection; the command prints one sentence instead.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return with_addresses(settings)


def kafka(settings: Settings) -> Kafka:
    """The connection settings of Kafka. Raises SettingsError when KAFKA_BOOTSTRAP_SERVERS is not set."""
    if settings.kafka_servers is None:
        raise SettingsError(f"no Kafka is configured: KAFKA_BOOTSTRAP_SERVERS is not set. {ADVICE}")
    return kafka_of(settings)


@contextlib.contextmanager
def kafka_explained(where: Kafka) -> Iterator[None]:
    """Translate errors of aiokafka to Unavailable, with the address and advice."""
    try:
        yield
    except KafkaConnectionError as exc:
        raise Unavailable(f"Kafka at {where.bootstrap_servers} does not answer. {ADVICE}") from exc
    except (KafkaError, TimeoutError) as exc:
        reason = f"{type(exc).__name__}: {exc}"[:200] if str(exc) else type(exc).__name__
        raise Unavailable(f"Kafka at {where.bootstrap_servers} fails ({reason}). {ADVICE}") from exc


@contextlib.asynccontextmanager
async def started(where: Kafka, client: Any) -> AsyncIterator[Any]:
    """Start a producer or consumer for the duration of the context. Raises Unavailable for any error of Kafka in it."""
    with kafka_explained(where):
        try:
            await client.start()
            # Its own tasks must have started: aiokafka's `stop` raises CancelledError for one that has not.
            await asyncio.sleep(0)
            yield client
        finally:
            await client.stop()


async def partitions(where: Kafka) -> dict[str, list[int]]:
    """The partitions of every topic that this login may see. Raises Unavailable."""
    client = AIOKafkaClient(**where.client(), request_timeout_ms=10_000)
    with kafka_explained(where):
        try:
            await client.bootstrap()
            cluster = await client.fetch_all_metadata()
            return {name: sorted(cluster.partitions_for_topic(name) or ()) for name in sorted(cluster.topics())}
        finally:
            await client.close()


async def partitions_of(where: Kafka, *names: str) -> list[TopicPartition]:
    """All partitions of these topics.

    Raises:
        NotFound: one of the topics does not exist.
        Unavailable: Kafka does not answer.
    """
    existing = await partitions(where)
    for name in names:
        if not existing.get(name):
            raise NotFound(
                f"Kafka at {where.bootstrap_servers} has no topic {name!r}: the first worker creates it. {ADVICE}"
            )
    return [TopicPartition(name, number) for name in names for number in existing[name]]


@contextlib.contextmanager
def postgres_explained() -> Iterator[None]:
    """Translate asyncpg's errors of a wrong configuration to SettingsError; outages are Unavailable already."""
    try:
        yield
    except (asyncpg.PostgresError, Unavailable) as exc:
        cause = exc.__cause__ if isinstance(exc, Unavailable) else exc
        match cause:
            case _ if isinstance(exc, SettingsError):
                raise
            case asyncpg.InvalidAuthorizationSpecificationError():
                raise SettingsError(f"PostgreSQL refuses the login in DATABASE_URL: {cause}") from exc
            case asyncpg.InvalidCatalogNameError():
                raise SettingsError(f"DATABASE_URL names a database that does not exist: {cause}") from exc
            case asyncpg.UndefinedTableError() | asyncpg.InvalidParameterValueError():
                raise SettingsError(f"the database has no schema of Concord ({cause}): run `concord migrate`") from exc
            case _ if isinstance(exc, Unavailable):
                raise Unavailable(f"{str(exc).partition('; the work')[0].rstrip('.')}. {ADVICE}") from exc
        raise


@contextlib.asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    if settings.database_url is None:
        raise SettingsError(f"no PostgreSQL is configured: DATABASE_URL is not set. {ADVICE}")
    with postgres_explained():
        pool = await connect_pool(dsn_of(settings), size=2)
        try:
            yield pool
        finally:
            await Postgres(pool).close()


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Postgres]:
    """The database's write side, for the duration of the context. Raises SettingsError and Unavailable."""
    async with _pool(settings) as pool:
        yield Postgres(pool)


@contextlib.asynccontextmanager
async def operations(settings: Settings) -> AsyncIterator[PostgresOperations]:
    """The tables for skips and reported failures, for the duration of the context. Raises as `database`."""
    async with _pool(settings) as pool:
        yield PostgresOperations(pool)


@contextlib.asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[Reader]:
    """The database's read side, for the duration of the context. Raises as `database`."""
    async with _pool(settings) as pool:
        yield Reader(pool)


@contextlib.asynccontextmanager
async def both(settings: Settings) -> AsyncIterator[tuple[Postgres, Reader]]:
    """The database's write and read side on one pool. Raises as `database`."""
    async with _pool(settings) as pool:
        yield Postgres(pool), Reader(pool)


async def job_named(name: str, tenant: str | None, reader: Reader) -> Job | None:
    """The job with this id or reference; None if there is none.

    Raises:
        Ambiguous: no tenant is given, and several tenants have such a job.
    """
    return one_of(name, await reader.find(tenant or EVERY_TENANT, name))


async def answering(settings: Settings) -> None:
    """Check that Kafka and PostgreSQL answer; neither needs to have topics or tables yet.

    Raises SettingsError and Unavailable, with advice.
    """
    await partitions(kafka(settings))
    with postgres_explained():
        connection = await connect(dsn_of(settings), {})
        await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Store]:
    """The blob store, for the duration of the context."""
    opened = open_store(settings)
    try:
        yield opened
    finally:
        await opened.close()


def listening(settings: Settings) -> socket.socket:
    """A socket bound to the HTTP port, which reserves it. Raises OSError when another program has it."""
    return socket.create_server((settings.http_host, settings.http_port))


def console(settings: Settings) -> str:
    """The URL of the HTTP service for a browser on this machine."""
    host = "127.0.0.1" if settings.http_host in ("0.0.0.0", "") else settings.http_host  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.http_port}/"


async def serves(settings: Settings) -> bool:
    """Whether a `track` worker answers on CONCORD_HTTP."""
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{console(settings)}openapi.json") as response,
        ):
            document = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(document, dict) and "concord" in str(document.get("info", {}).get("title", "")).lower()
