"""What a filter asks of passages, as conditions of a statement and its arguments."""

from __future__ import annotations

from typing import Any, Final

from schemas.ids import canonical_uuid
from sinks.ports.search.reads import ChunkFilter

#: By its id, before by its reference.
_OF_JOB: Final = """c.job_id = (SELECT job_id FROM jobs
    WHERE tenant_id = $1 AND (job_id IN ({name}, {id}) OR reference = {name})
    ORDER BY job_id IN ({name}, {id}) DESC LIMIT 1)"""

_HAS_ENTITY: Final = """(c.job_id, c.run) IN (SELECT job_id, run FROM summary_items
    WHERE tenant_id = $1 AND kind = 'entity' AND lookup = {})"""

_HAS_SENTIMENT: Final = """EXISTS (SELECT FROM enrichments e
    WHERE (e.tenant_id, e.job_id, e.run, e.kind) = (c.tenant_id, c.job_id, c.run, 'summary')
    AND e.result->>'sentiment' = {})"""

_HAS_PAIR: Final = """EXISTS (SELECT FROM job_metadata m WHERE m.pair = metadata_pair({key}, {value})
    AND (m.tenant_id, m.created_at, m.job_id) = (c.tenant_id, c.created_at, c.job_id))"""


class Conditions:
    """The conditions, on the alias c of `chunks`; `arguments` begins with the tenant, as $1."""

    def __init__(self, tenant: str, which: ChunkFilter) -> None:
        self.arguments: list[Any] = [tenant]
        self.texts = [
            text.format(self.argument(value))
            for text, value in (
                ("c.created_at >= {}", which.created_from),
                ("c.created_at < {}", which.created_to),
                ("c.job_id = (SELECT job_id FROM jobs WHERE tenant_id = $1 AND reference = {})", which.reference),
                ("c.speakers ? {}::text", which.speaker),
                ("c.recognizers ? {}::text", which.recognizer),
                (_HAS_ENTITY, which.entity),
                (_HAS_SENTIMENT, which.sentiment),
            )
            if value is not None
        ]
        if which.job is not None:
            id = canonical_uuid(which.job) or which.job
            self.texts.append(_OF_JOB.format(name=self.argument(which.job), id=self.argument(id)))
        self.texts += [
            _HAS_PAIR.format(key=self.argument(key), value=self.argument(value))
            for key, value in sorted(which.metadata)
        ]

    def argument(self, value: Any) -> str:
        """The placeholder of a value."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"
