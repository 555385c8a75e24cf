"""How commands reach the fleet's servers, and what they say when one cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from agents.commands.serve import one_of, with_addresses
from agents.fleet.build import dsn_of, kafka_of, open_store
from schemas.errors import NotFound, SettingsError, Unavailable
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
    from sinks.ports.operations import Operations

#: What to do about a server that does not answer.
ADVICE = "`concord up` starts a fleet on this machine; `concord doctor` says what is wrong with a configured one."


def addressed(settings: Settings) -> Settings:
    """The settings with the servers of a `concord up` that runs here; logging down to what matters to a person."""
    if "log_level" not in settings.model_fields_set:
        logging.getLogger().setLevel(logging.WARNING)
        # It logs every refused connection; the command says it once, in a sentence.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return with_addresses(settings)


def kafka(settings: Settings) -> Kafka:
    """Where Kafka is, or what to do when there is none."""
    if settings.kafka_servers is None:
        raise SettingsError(f"there is no Kafka: KAFKA_BOOTSTRAP_SERVERS is not set. {ADVICE}")
    return kafka_of(settings)


@contextlib.contextmanager
def kafka_explained(where: Kafka) -> Iterator[None]:
    """Turn what aiokafka raises into a sentence that says where and what to do."""
    try:
        yield
    except KafkaConnectionError as exc:
        raise Unavailable(f"Kafka at {where.bootstrap_servers} does not answer. {ADVICE}") from exc
    except (KafkaError, TimeoutError) as exc:
        raise Unavailable(f"Kafka at {where.bootstrap_servers} does not do it ({_said(exc)}). {ADVICE}") from exc


def _said(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"[:200] if str(exc) else type(exc).__name__


@contextlib.asynccontextmanager
async def started(where: Kafka, client: Any) -> AsyncIterator[Any]:
    """A producer or consumer for as long as the context lasts."""
    with kafka_explained(where):
        try:
            await client.start()
            # Its own tasks must have begun: aiokafka's `stop` raises CancelledError for one that has not.
            await asyncio.sleep(0)
            yield client
        finally:
            await client.stop()


async def partitions(where: Kafka) -> dict[str, list[int]]:
    """Every topic that Kafka shows us, with its partitions."""
    client = AIOKafkaClient(**where.client(), request_timeout_ms=10_000)
    with kafka_explained(where):
        try:
            await client.bootstrap()
            cluster = await client.fetch_all_metadata()
            return {name: sorted(cluster.partitions_for_topic(name) or ()) for name in sorted(cluster.topics())}
        finally:
            await client.close()


async def partitions_of(where: Kafka, topic: str) -> list[int]:
    """The partitions of one topic that must be there."""
    found = (await partitions(where)).get(topic)
    if not found:
        raise NotFound(
            f"Kafka at {where.bootstrap_servers} has no topic {topic!r}: the first worker makes it. {ADVICE}"
        )
    return found


@contextlib.contextmanager
def postgres_explained() -> Iterator[None]:
    """Turn what asyncpg raises for a wrong configuration into a sentence; outages are `Unavailable` already."""
    try:
        yield
    except (asyncpg.PostgresError, Unavailable) as exc:
        said = exc.__cause__ if isinstance(exc, Unavailable) else exc
        match said:
            case _ if isinstance(exc, SettingsError):
                raise
            case asyncpg.InvalidAuthorizationSpecificationError():
                raise SettingsError(f"PostgreSQL refuses the login in DATABASE_URL: {said}") from exc
            case asyncpg.InvalidCatalogNameError():
                raise SettingsError(f"DATABASE_URL names a database that is not there: {said}") from exc
            case asyncpg.UndefinedTableError() | asyncpg.InvalidParameterValueError():
                raise SettingsError(f"the database knows nothing of Concord ({said}): run `concord migrate`") from exc
            case _ if isinstance(exc, Unavailable):
                raise Unavailable(f"{str(exc).partition('; the work')[0].rstrip('.')}. {ADVICE}") from exc
        raise


@contextlib.asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    if settings.database_url is None:
        raise SettingsError(f"there is no PostgreSQL: DATABASE_URL is not set. {ADVICE}")
    with postgres_explained():
        pool = await connect_pool(dsn_of(settings), size=2)
        try:
            yield pool
        finally:
            await Postgres(pool).close()


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Postgres]:
    """The truth about jobs, for as long as the context lasts."""
    async with _pool(settings) as pool:
        yield Postgres(pool)


@contextlib.asynccontextmanager
async def operations(settings: Settings) -> AsyncIterator[Operations]:
    """What workers and operators tell each other."""
    async with _pool(settings) as pool:
        yield PostgresOperations(pool)


@contextlib.asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[Reader]:
    """What may be asked about it."""
    async with _pool(settings) as pool:
        yield Reader(pool)


@contextlib.asynccontextmanager
async def both(settings: Settings) -> AsyncIterator[tuple[Postgres, Reader]]:
    """The two of them over the same connections."""
    async with _pool(settings) as pool:
        yield Postgres(pool), Reader(pool)


async def job_named(name: str, tenant: str | None, reader: Reader) -> Job | None:
    """The job that a person means by an id or a reference.

    Raises Ambiguous when it is not said whose job it is, and there are several.
    """
    return one_of(name, await reader.find(tenant, name))


async def answering(settings: Settings) -> None:
    """Raise, saying what to do, unless Kafka and PostgreSQL answer; there need be nothing of Concord in them yet."""
    await partitions(kafka(settings))
    with postgres_explained():
        connection = await connect(dsn_of(settings), {})
        await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Store]:
    """The blob store, for as long as the context lasts."""
    opened = open_store(settings)
    try:
        yield opened
    finally:
        await opened.close()


def listening(settings: Settings) -> socket.socket:
    """The HTTP port, taken for as long as the socket is open."""
    return socket.create_server((settings.http_host, settings.http_port))


def console(settings: Settings) -> str:
    """The address at which a person on this machine finds the HTTP service."""
    host = "127.0.0.1" if settings.http_host in ("0.0.0.0", "") else settings.http_host  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.http_port}/"


async def serves(settings: Settings) -> bool:
    """Whether a `track` worker answers on CONCORD_HTTP."""
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{console(settings)}openapi.json") as answer,
        ):
            found = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(found, dict) and "concord" in str(found.get("info", {}).get("title", "")).lower()
