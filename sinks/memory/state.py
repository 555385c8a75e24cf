"""The rows that several doubles share, in dictionaries. Rows are kept as JSON, so that a value which PostgreSQL cannot
store fails here too, and a row that was read can be changed without changing what is stored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from schemas.accounts.api_usage import UsedRoute
from schemas.errors import StorageRefused
from schemas.ids import Key
from schemas.jobs.deletion import Deletion
from schemas.jobs.rows import Adjudication, AuditEntry, Enrichment, File, Job, ProviderRequest, Transcript, Usage
from schemas.mail.rows import Mail
from schemas.messages import Message
from schemas.summaries import SummaryItem
from sinks.ports.api.direct_uploads import DirectUpload
from sinks.ports.api.idempotency import KnownKey
from sinks.ports.clock import Clock

JOB = TypeAdapter(Job)
REQUEST = TypeAdapter(ProviderRequest)

#: When a blob became an orphan that is one at once, and when one lapses that an event needs.
ORPHANED = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)

#: A NUL in JSON, behind an even number of backslashes.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def dump(kind: TypeAdapter[Any], value: object) -> bytes:
    """The value as JSON. Raises StorageRefused for what PostgreSQL does not store either."""
    try:
        data = kind.dump_json(value)
    except PydanticSerializationError as exc:  # a lone surrogate
        raise StorageRefused(f"the database does not store this ({type(exc).__name__})") from exc
    if _NUL.search(data):
        raise StorageRefused("the database does not store this (NUL)")
    return data


class Intent(NamedTuple):
    """A blob that is about to be written for a job, since when, and from when on it is an orphan if it is held."""

    key: Key
    at: datetime
    lapses_at: datetime | None = None


@dataclass
class MemoryState(Clock):
    """Rows of this process, by key. `outbox` is what a relay would publish, with due times."""

    #: The database's clock.
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    outbox: list[tuple[datetime, Message]] = field(default_factory=list)
    transcripts: dict[tuple[str, str, int], Transcript] = field(default_factory=dict)
    #: When each was written first.
    transcribed_at: dict[tuple[str, str, int], datetime] = field(default_factory=dict)
    enrichments: dict[tuple[str, str, int, str], Enrichment] = field(default_factory=dict)
    summary_items: list[SummaryItem] = field(default_factory=list)
    files: dict[tuple[str, str, int, str], File] = field(default_factory=dict)
    #: By number: what was written, and when.
    audit: dict[int, tuple[AuditEntry, datetime]] = field(default_factory=dict)
    _jobs: dict[Key, bytes] = field(default_factory=dict)
    _metadata: dict[Key, bytes] = field(default_factory=dict)
    #: By (tenant, reference).
    _references: dict[tuple[str, str], Key] = field(default_factory=dict)
    #: By (tenant, job, run), then provider.
    _requests: dict[tuple[str, str, int], dict[str, bytes]] = field(default_factory=dict)
    #: By their key: what was used up, and when it was written.
    _usage: dict[tuple[str, str, int, str, str, str], tuple[Usage, datetime]] = field(default_factory=dict)
    #: By URI: blobs that are about to be written.
    _intents: dict[str, Intent] = field(default_factory=dict)
    #: By stage and event: when it was handled.
    _inbox: dict[tuple[str, UUID], datetime] = field(default_factory=dict)
    #: By key: the holder, and until when.
    _leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    #: By tenant and question: the answer, and when it was kept.
    _adjudications: dict[tuple[str, str], tuple[Adjudication, datetime]] = field(default_factory=dict)
    #: By tenant and idempotency key: what is known of it, and until when the claim holds.
    _idempotency: dict[tuple[str, str], tuple[KnownKey, datetime]] = field(default_factory=dict)
    #: By id: direct uploads, and when they were begun.
    _direct: dict[UUID, tuple[DirectUpload, datetime]] = field(default_factory=dict)
    #: Requests over HTTP.
    api_usage: Counter[UsedRoute] = field(default_factory=Counter)

    #: By (tenant, job, run).
    sent_mails: dict[tuple[str, str, int], Mail] = field(default_factory=dict)

    #: By id.
    deletions: dict[str, Deletion] = field(default_factory=dict)

    async def now(self) -> datetime:
        """The clock's time."""
        return self.clock()

    def all_jobs(self) -> list[Job]:
        """Every job's row, without its metadata, in the order of creation."""
        return [JOB.validate_json(data) for data in self._jobs.values()]

    def _load(self, tenant_id: str, job_id: str) -> Job | None:
        data = self._jobs.get((tenant_id, job_id))
        return JOB.validate_json(data) if data else None

    def _deletion_of(self, key: Key) -> Deletion | None:
        """The newest deletion of a job with this id."""
        of_job = [d for d in self.deletions.values() if d.key == key and d.scope == "job"]
        return max(of_job, key=lambda deletion: deletion.run, default=None)

    def _of_run(self, tenant_id: str, job_id: str, run: int) -> dict[str, ProviderRequest]:
        rows = self._requests.get((tenant_id, job_id, run), {})
        return {provider: REQUEST.validate_json(data) for provider, data in rows.items()}

    def _all_requests(self) -> list[ProviderRequest]:
        return [REQUEST.validate_json(data) for run in self._requests.values() for data in run.values()]

    def _write(self, row: ProviderRequest) -> None:
        self._requests[row.tenant_id, row.job_id, row.run][row.provider] = REQUEST.dump_json(row)

    def _note(self, entry: AuditEntry) -> None:
        self.audit[next(reversed(self.audit), 0) + 1] = (entry, self.clock())

    def _make_due(self, topic: str, jobs: Collection[tuple[str | None, str | None]]) -> list[UUID]:
        """Make the events of these jobs on a topic due that were put off; their ids."""
        now = self.clock()
        waiting = [m.id for due, m in self.outbox if m.topic == topic and (m.tenant_id, m.job_id) in jobs and due > now]
        self.outbox = [(now if m.id in waiting else due, m) for due, m in self.outbox]
        return waiting
