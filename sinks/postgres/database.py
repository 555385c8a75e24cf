"""All ports on one PostgreSQL pool, and how that pool is made."""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg
import orjson

from sinks.postgres.accounts.api_usage import PostgresApiUsage
from sinks.postgres.accounts.keys import PostgresKeys
from sinks.postgres.accounts.settings import PostgresSettings
from sinks.postgres.api.direct_uploads import PostgresDirectUploads
from sinks.postgres.api.idempotency import PostgresIdempotency
from sinks.postgres.api.schedules import PostgresSchedules
from sinks.postgres.connection.connect import acts_as, connecting, worker_session
from sinks.postgres.connection.errors import AWAY
from sinks.postgres.conversations.agents import PostgresConversationAgents
from sinks.postgres.conversations.issued_urls import PostgresIssuedUrls
from sinks.postgres.corrections.review import PostgresReview
from sinks.postgres.corrections.voices import PostgresVoicePrints
from sinks.postgres.jobs import PostgresJobs
from sinks.postgres.leases import PostgresLeases
from sinks.postgres.mail.ledger import PostgresMailLedger
from sinks.postgres.outbox import PostgresOutbox
from sinks.postgres.providers.adjudications import PostgresAdjudications
from sinks.postgres.providers.limits import PostgresLimits
from sinks.postgres.providers.requests import PostgresRequests
from sinks.postgres.providers.slots import PostgresSlots
from sinks.postgres.providers.strays import PostgresStrays
from sinks.postgres.providers.usage import PostgresUsage
from sinks.postgres.search.embedding import PostgresEmbedding
from sinks.postgres.steps import PostgresSteps
from sinks.postgres.upkeep.blob_intents import PostgresBlobIntents
from sinks.postgres.upkeep.deletions import PostgresDeletions
from sinks.postgres.upkeep.earlier_transcripts import PostgresEarlierTranscripts
from sinks.postgres.upkeep.job_metadata import PostgresJobMetadata
from sinks.postgres.upkeep.retention import PostgresRetention
from sinks.postgres.upkeep.stuck_jobs import PostgresStuckJobs
from sinks.postgres.upkeep.verification import PostgresVerification
from sinks.postgres.uploads import PostgresUploads
from sinks.postgres.webhooks.endpoints import PostgresWebhookEndpoints
from sinks.postgres.webhooks.queue import PostgresWebhookQueue
from sinks.postgres.webhooks.secrets import PostgresStoredSecrets

#: Seconds that a connection, and any one statement, may take before it counts as an outage.
CONNECT_S, STATEMENT_S = 10.0, 15.0


class Postgres(
    PostgresSteps,
    PostgresJobs,
    PostgresUploads,
    PostgresLeases,
    PostgresOutbox,
    PostgresStuckJobs,
    PostgresBlobIntents,
    PostgresDeletions,
    PostgresRetention,
    PostgresVerification,
    PostgresJobMetadata,
    PostgresEarlierTranscripts,
    PostgresRequests,
    PostgresStrays,
    PostgresSlots,
    PostgresLimits,
    PostgresUsage,
    PostgresAdjudications,
    PostgresWebhookEndpoints,
    PostgresWebhookQueue,
    PostgresStoredSecrets,
    PostgresKeys,
    PostgresSettings,
    PostgresApiUsage,
    PostgresIdempotency,
    PostgresDirectUploads,
    PostgresSchedules,
    PostgresReview,
    PostgresVoicePrints,
    PostgresEmbedding,
    PostgresMailLedger,
    PostgresIssuedUrls,
    PostgresConversationAgents,
):
    """Every port that a worker needs, on a pool of `connect_pool`."""

    async def close(self) -> None:
        """Close the pool; after three seconds its connections are terminated."""
        try:
            async with asyncio.timeout(3):
                await self._pool.close()
        except AWAY:
            self._pool.terminate()


async def connect_pool(dsn: str, *, role: str = "concord_worker", size: int = 8) -> asyncpg.Pool[asyncpg.Record]:
    """A pool of at most `size` connections, which act as `role` and read and write `jsonb` as Python values.

    Raises:
        Unavailable: the server cannot be reached.
        Misconfigured: the same (also a SettingsError), where waiting does not help.
    """
    with connecting():
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=CONNECT_S,
            command_timeout=STATEMENT_S,
            init=partial(_prepare, role),
            reset=_nothing_to_reset,
            server_settings=worker_session(role),
        )


async def _prepare(role: str, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await acts_as(connection, role)
    await connection.set_type_codec(
        "jsonb",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
        schema="pg_catalog",
        format="binary",
    )


async def _nothing_to_reset(_: object) -> None:
    """Only transactions change settings here, and a transaction's end restores them: asyncpg's own reset would be an
    unneeded round trip.
    """
