"""Tables whose rows are dataclasses: column lists, INSERTs, arguments and rows read back all follow from the fields, so
that a new column needs a migration, a field, and the stage that sets it.

`tests/contract/databases/test_tables.py` compares each table with the columns of a migrated database.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from schemas.accounts.keys import ApiKey
from schemas.accounts.schedules import Schedule
from schemas.corrections.rows import ReviewChoice, ReviewItem, TranscriptVersion
from schemas.corrections.voices import SpeakerVoice
from schemas.events.job import EnrichmentStatus, StepState
from schemas.jobs.deletion import Deletion
from schemas.jobs.rows import Adjudication, AuditEntry, Enrichment, File, Job, ProviderRequest, Transcript, Usage
from schemas.mail.rows import Mail
from schemas.search.chunks import Chunk
from schemas.summaries import SummaryItem
from schemas.webhooks.rows import Delivery, Endpoint
from sinks.ports.api.direct_uploads import DirectUpload
from sinks.ports.providers.strays import Stray

Row = TypeVar("Row")

#: PostgreSQL's types for fields. A narrower column (integer, smallint) takes a bigint if the value fits.
_TYPES: Final[Mapping[Any, str]] = {
    str: "text",
    bool: "bool",
    int: "bigint",
    float: "float8",
    datetime: "timestamptz",
    UUID: "uuid",
    bytes: "bytea",
    dict: "jsonb",
    list: "jsonb",
    tuple: "jsonb",
}


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A table, and the dataclass of its rows. Column order is the order of the fields."""

    name: str
    row: type[Row]
    key: tuple[str, ...]
    #: Fields that are not read, with the value that a row has instead.
    unread: Mapping[str, Any] = field(default_factory=dict)
    #: Columns that only statements write, not rows: fields that are read, and columns without a field.
    sql_only: frozenset[str] = frozenset()
    #: Fields that keep their value when a row is written again.
    fixed: frozenset[str] = frozenset()
    #: What turns a column's JSON into the field's value.
    parse: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """All fields, in order."""
        return tuple(f.name for f in fields(self.row))  # type: ignore[arg-type]

    @cached_property
    def written(self) -> Mapping[str, str]:
        """The fields that are written with a row, in order, with PostgreSQL's type of their values."""
        hints = get_type_hints(self.row)
        return {name: _type(hints[name]) for name in self.fields if name not in self.sql_only}

    @cached_property
    def _read(self) -> tuple[str, ...]:
        return tuple(name for name in self.fields if name not in self.unread)

    def columns(self, alias: str | None = None) -> str:
        """The columns that are read, for SELECT and RETURNING."""
        return ", ".join(f"{alias}.{name}" if alias else name for name in self._read)

    def insert(self) -> str:
        """INSERT of many rows, whose arguments are `arguments(rows)`; WHERE and ON CONFLICT may follow."""
        arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(self.written.values(), 1))
        return f"INSERT INTO {self.name} ({', '.join(self.written)})\nSELECT * FROM unnest({arrays})"

    def insert_one(self) -> str:
        """INSERT of one row, whose arguments are an element of `values(rows)`. For rows of megabytes: as arrays they
        would all be in memory at the same time.
        """
        values = ", ".join(f"${n}" for n, _ in enumerate(self.written, 1))
        return f"INSERT INTO {self.name} ({', '.join(self.written)})\nVALUES ({values})"

    def update(self) -> str:
        """ON CONFLICT of an INSERT, up to and with the columns that are replaced: all but `key` and `fixed`."""
        names = [name for name in self.written if name not in self.key and name not in self.fixed]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names)
        return f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET\n    {changes}"

    def arguments(self, rows: Iterable[Row]) -> list[list[Any]]:
        """The rows as one list per column, for `insert`."""
        rows = list(rows)
        return [[_element(getattr(row, name)) for row in rows] for name in self.written]

    def values(self, rows: Iterable[Row]) -> list[tuple[Any, ...]]:
        """The rows as tuples, for `insert_one`."""
        return [tuple(_value(getattr(row, name)) for name in self.written) for row in rows]

    def read(self, record: Mapping[str, Any]) -> Row:
        """A row from a record that has the columns of `columns`, and maybe more."""
        values = {name: record[name] for name in self._read}
        for name in self.parse.keys() & values.keys():
            values[name] = self.parse[name](values[name])
        return self.row(**values, **self.unread)


def _type(annotation: Any) -> str:
    """Raises TypeError for an annotation that has no type in PostgreSQL."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not types.NoneType)
    origin = str if get_origin(annotation) is Literal else get_origin(annotation) or annotation
    if origin not in _TYPES:
        raise TypeError(f"{annotation} has no column type in sinks/postgres/sql/tables.py")
    return _TYPES[origin]


def _value(value: Any) -> Any:
    if isinstance(value, dict) and any(isinstance(v, StepState | EnrichmentStatus) for v in value.values()):
        return {name: step.model_dump(mode="json", exclude_none=True) for name, step in value.items()}
    return value


def _element(value: Any) -> Any:
    """A value in a list: there asyncpg takes another list apart, as a second dimension, but not a tuple."""
    return tuple(value) if isinstance(value, list) else _value(value)


def _steps(value: Mapping[str, Any]) -> dict[str, StepState]:
    return {name: StepState.model_validate(step) for name, step in value.items()}


def _enrichment(value: Mapping[str, Any]) -> dict[str, EnrichmentStatus]:
    return {kind: EnrichmentStatus.model_validate(status) for kind, status in value.items()}


def _urls(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


_JOB = ("tenant_id", "job_id")
_RUN = (*_JOB, "run")

JOBS: Final = Table(
    "jobs",
    Job,
    _JOB,
    #: Metadata may be 850 kB a job: with them a list of 500 took 4 s, without 10 ms. `PostgresJobs.metadata` has them.
    unread={"metadata": None},
    fixed=frozenset({"reference", "filename", "audio_uri", "priority", "metadata", "created_at"}),
    parse={"steps": _steps, "enrichment": _enrichment},
)

#: Jobs of a list, of which no more is read than is shown.
LISTED_JOBS: Final = replace(
    JOBS,
    unread={
        "metadata": None,
        "audio_uri": "",
        "original_uri": None,
        "content_type": None,
        "duration_ms": None,
        "language": "auto",
        "priority": 5,
        "options": {},
        "queued_at": None,
    },
)

PROVIDER_REQUESTS: Final = Table(
    "provider_requests",
    ProviderRequest,
    (*_RUN, "provider"),
    #: The queue for slots: its statements run beside steps, which must not write over them.
    sql_only=frozenset({"queued_at", "admitted_at", "urgency"}),
    fixed=frozenset({"marker"}),
)

TRANSCRIPTS: Final = Table("transcripts", Transcript, _RUN, sql_only=frozenset({"created_at"}))

ENRICHMENTS: Final = Table(
    "enrichments",
    Enrichment,
    (*_RUN, "kind"),
    #: The sweeper's, which steps must not write over.
    sql_only=frozenset({"revivals", "revived_at"}),
    fixed=frozenset({"created_at"}),
)

FILES: Final = Table("files", File, (*_RUN, "kind"), sql_only=frozenset({"created_at"}))

USAGE: Final = Table("usage", Usage, (*_RUN, "provider", "unit", "ref"), sql_only=frozenset({"at"}))

ADJUDICATIONS: Final = Table("adjudications", Adjudication, ("tenant_id", "question"), sql_only=frozenset({"at"}))

AUDIT_LOG: Final = Table("audit_log", AuditEntry, ("id",), sql_only=frozenset({"id", "at"}))

DIRECT_UPLOADS: Final = Table("direct_uploads", DirectUpload, ("upload_id",), sql_only=frozenset({"created_at"}))
SCHEDULES: Final = Table(
    "schedules",
    Schedule,
    ("schedule_id",),
    #: What workers write as a tick goes on.
    sql_only=frozenset(
        {
            "created_at",
            "after_created_at",
            "after_job",
            "asked",
            "turn_at",
            "token",
            "last_tick_at",
            "last_asked",
            "last_error",
        }
    ),
)
TRANSCRIPT_VERSIONS: Final = Table("transcript_versions", TranscriptVersion, (*_RUN, "version"))

#: Versions of a list: 15,000 words are 1 MB each.
LISTED_VERSIONS: Final = replace(TRANSCRIPT_VERSIONS, unread={"words": []})

REVIEW_ITEMS: Final = Table("review_items", ReviewItem, ("tenant_id", "id"), sql_only=frozenset({"created_at"}))

REVIEW_CHOICES: Final = Table("review_choices", ReviewChoice, ("tenant_id", "item", "reviewer"))

VOICE_PRINTS: Final = Table("voice_prints", SpeakerVoice, (*_RUN, "speaker"), sql_only=frozenset({"created_at"}))

SUMMARY_ITEMS: Final = Table(
    "summary_items", SummaryItem, (*_RUN, "kind", "number"), sql_only=frozenset({"created_at"})
)
CHUNKS: Final = Table("chunks", Chunk, (*_RUN, "number"), sql_only=frozenset({"lexemes"}))

DELETIONS: Final = Table("deletions", Deletion, ("id",))

STRAYS: Final = Table("strays", Stray, ("provider", "provider_id"), parse={"urls": _urls})

WEBHOOKS: Final = Table(
    "webhooks",
    Endpoint,
    ("webhook_id",),
    sql_only=frozenset({"created_at", "failing_since", "paused_at", "paused_reason"}),
)

WEBHOOK_DELIVERIES: Final = Table(
    "webhook_deliveries",
    Delivery,
    ("id",),
    sql_only=frozenset({"id", "state", "failures", "due_at", "created_at", "delivered_at", "token"}),
)

MAILS: Final = Table("mails", Mail, _RUN, sql_only=frozenset({"created_at", "updated_at"}))

API_KEYS: Final = Table(
    "api_keys",
    ApiKey,
    ("id",),
    sql_only=frozenset({"created_at", "last_used_at", "revoked_at", "revoked_by"}),
    parse={"scopes": tuple},
)

#: By the name that placeholders in `.sql` files use.
TABLES: Final[Mapping[str, Table[Any]]] = {
    "jobs": JOBS,
    "listed_jobs": LISTED_JOBS,
    "provider_requests": PROVIDER_REQUESTS,
    "transcripts": TRANSCRIPTS,
    "enrichments": ENRICHMENTS,
    "files": FILES,
    "usage": USAGE,
    "adjudications": ADJUDICATIONS,
    "audit_log": AUDIT_LOG,
    "summary_items": SUMMARY_ITEMS,
    "chunks": CHUNKS,
    "deletions": DELETIONS,
    "strays": STRAYS,
    "webhooks": WEBHOOKS,
    "webhook_deliveries": WEBHOOK_DELIVERIES,
    "api_keys": API_KEYS,
    "direct_uploads": DIRECT_UPLOADS,
    "schedules": SCHEDULES,
    "transcript_versions": TRANSCRIPT_VERSIONS,
    "listed_versions": LISTED_VERSIONS,
    "review_items": REVIEW_ITEMS,
    "review_choices": REVIEW_CHOICES,
    "voice_prints": VOICE_PRINTS,
    "mails": MAILS,
}

_PLACEHOLDER = re.compile(r"\{(\w+)\.(columns|insert|insert_one|update)(?: as (\w+))?\}")


def fill(sql: str) -> str:
    """The text with its placeholders replaced: `{jobs.columns}`, `{jobs.columns as j}` (qualified by an alias),
    `{jobs.insert}`, `{jobs.insert_one}`, `{jobs.update}`. Raises KeyError for a table that is not in `TABLES`.
    """
    return _PLACEHOLDER.sub(_filled, sql)


def _filled(placeholder: re.Match[str]) -> str:
    name, part, alias = placeholder.groups()
    text: str = getattr(TABLES[name], part)(*filter(None, [alias]))
    return text
