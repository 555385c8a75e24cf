"""The statement that lists a tenant's jobs, composed for what is looked for: a condition that may be switched off could
use no index. Whatever people send is an argument; the parts are texts of this module.

Jobs come from one index in the order of the list, and stop at the page's end. What no index knows is checked job by
job, of a limited number of jobs: a page may be short, and the next begins where this one stopped looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sinks.ports.reads import Cursor, JobFilter
from sinks.postgres.sql.tables import LISTED_JOBS

#: Jobs that one page looks at: where their rows have to be read, and where the index has all that is looked for.
#: Measured with a million jobs, on two cores with nine times as much to do: 5,000 rows in 90 to 180 ms, by what is
#: checked, and 20,000 entries in 37 to 67. A page is to take less than 50.
SCANNED_ROWS, SCANNED_ENTRIES = 1_000, 10_000

#: Jobs of a rare reference or time that are sorted, rather than looking for them in the order of the list.
FEW: Final = 1_000


class JobListQuery:
    """The statement for a page, its arguments, and the number of jobs that it looks at.

    `candidates` are ids among which all wanted jobs are, where they are few.
    """

    def __init__(
        self, wanted: JobFilter, limit: int, before: Cursor | None, candidates: Sequence[str] | None = None
    ) -> None:
        self._wanted, self._before, self._candidates = wanted, before, candidates
        self._order = "created_at, job_id DESC" if wanted.oldest_first else "created_at DESC, job_id"
        self.arguments: list[Any] = []
        self._by_metadata = bool(wanted.metadata) and not wanted.statuses and candidates is None
        of_entry = [] if self._by_metadata else self._conditions_on_filename()
        of_row = (self._conditions_on_filename() if self._by_metadata else []) + self._conditions_on_rows()
        self.scanned = self._most_scanned(limit, bool(of_row), bool(of_entry))
        at_end = f"n = {self.scanned}"  # returned in any case: from there, the next page looks on
        # Reads rows one by one, in the order of the entries, until the page is full.
        self.sql = f"""
SELECT entry.n, j.is_wanted, {LISTED_JOBS.columns("j")}
FROM (SELECT * FROM (SELECT created_at, job_id, filename, row_number() OVER (ORDER BY {self._order}) AS n
                     FROM ({self._source()}) AS source) AS numbered
      WHERE {_all(of_entry)} OR {at_end}) AS entry
CROSS JOIN LATERAL (SELECT {LISTED_JOBS.columns()}, {_all([*of_entry, *of_row])} AS is_wanted
                    FROM jobs AS job WHERE job.job_id = entry.job_id LIMIT 1) AS j
WHERE j.is_wanted OR {at_end}
ORDER BY {self._order_of("entry")} LIMIT {limit + 1}"""

    def _argument(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def _order_of(self, alias: str) -> str:
        return ", ".join(f"{alias}.{column}" for column in self._order.split(", "))

    def _most_scanned(self, limit: int, checks_rows: bool, checks_entries: bool) -> int:
        if self._candidates is not None:
            return FEW + 1
        if checks_rows or (checks_entries and self._wanted.statuses):  # the index by status has no filenames
            return SCANNED_ROWS
        return SCANNED_ENTRIES if checks_entries else limit + 1

    def _source(self) -> str:
        """Entries in the order of the list, of one index."""
        place, end = self._place(), f"ORDER BY {self._order} LIMIT {self.scanned}"
        entries = "SELECT created_at, job_id, filename FROM jobs"
        if self._candidates is not None:
            return f"{entries} WHERE job_id = ANY({self._argument(self._candidates)}::text[]) AND {place} {end}"
        if self._wanted.statuses:
            of_status = [
                f"({entries} WHERE status = {self._argument(status)} AND {place} {end})"
                for status in sorted(self._wanted.statuses)
            ]
            return f"SELECT * FROM ({' UNION ALL '.join(of_status)}) AS of_status {end}"
        if self._by_metadata:
            of_pair = f"pair = {self._pair(*self._pairs[0])} AND {place}"
            return f"SELECT created_at, job_id, NULL AS filename FROM job_metadata WHERE {of_pair} {end}"
        return f"{entries} WHERE {place} {end}"

    def _place(self) -> str:
        """Where in the order of the list: behind the page before, and within the time that is asked for."""
        wanted, before = self._wanted, self._before
        conditions = []
        if wanted.created_from:
            conditions.append(f"created_at >= {self._argument(wanted.created_from)}")
        if end := min(filter(None, (wanted.created_to, wanted.completed_to)), default=None):
            conditions.append(f"created_at < {self._argument(end)}")
        if before:
            at, job_id = self._argument(before.created_at), self._argument(before.job_id)
            towards, same = (">", "<") if wanted.oldest_first else ("<", ">")
            conditions += [f"created_at {towards}= {at}", f"(created_at {towards} {at} OR job_id {same} {job_id})"]
        return _all(conditions)

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        return sorted(self._wanted.metadata)

    def _pair(self, key: str, value: str) -> str:
        return f"metadata_pair({self._argument(key)}, {self._argument(value)})"

    def _conditions_on_filename(self) -> list[str]:
        name = self._wanted.filename
        return [f"strpos(lower(filename), lower({self._argument(name)})) > 0"] if name else []

    def _conditions_on_rows(self) -> list[str]:
        """What only a job's row tells, and the rows that belong to it."""
        wanted, conditions = self._wanted, []
        if wanted.statuses and self._candidates is not None:  # without candidates, the source knows them
            conditions.append(f"status = ANY({self._argument(sorted(wanted.statuses))}::text[])")
        if wanted.completed_from:
            conditions.append(f"completed_at >= {self._argument(wanted.completed_from)}")
        if wanted.completed_to:
            conditions.append(f"completed_at < {self._argument(wanted.completed_to)}")
        if wanted.reference_prefix:
            conditions.append(f"starts_with(reference, {self._argument(wanted.reference_prefix)})")
        if wanted.reference:  # the list of candidates is then of this one
            conditions.append(f"reference = {self._argument(wanted.reference)}")
        if wanted.language:
            conditions.append(f"starts_with(lower({_LANGUAGE}) || '-', {self._argument(wanted.language)} || '-')")
        others = self._pairs[self._by_metadata :]  # the source has the first
        return conditions + [_HAS_PAIR.format(pair=self._pair(*pair)) for pair in others]


_HAS_PAIR: Final = """EXISTS (SELECT FROM job_metadata m WHERE m.pair = {pair}
    AND (m.tenant_id, m.created_at, m.job_id) = (job.tenant_id, job.created_at, job.job_id))"""

_LANGUAGE: Final = """coalesce((SELECT t.language FROM transcripts t
    WHERE (t.tenant_id, t.job_id) = (job.tenant_id, job.job_id) ORDER BY t.run DESC LIMIT 1), job.language)"""


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions) or "true"


def following_prefix(prefix: str) -> str:
    """The first text, in the order of code points, behind all those that begin with `prefix`."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return prefix + "\U0010ffff" * 255
    point = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if point == 0xD800 else point)  # no text has a surrogate
