"""The tables of `sinks.postgres.sql.tables`, compared with the catalogue of a migrated database."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sinks.postgres.sql.tables import TABLES, Table

COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type
FROM pg_attribute a WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped"""

#: Whether an INSERT may put a value of one type into a column of another.
ASSIGNABLE = """
SELECT $1::text::regtype = $2::text::regtype OR EXISTS (
    SELECT FROM pg_cast
    WHERE (castsource, casttarget) = ($1::text::regtype, $2::text::regtype) AND castcontext IN ('a', 'i'))"""


async def disagreements(db, table: Table) -> list[str]:
    """What a table's definition and the catalogue do not agree on, in sentences."""
    columns = {row["name"]: row["type"] for row in await db.fetch(COLUMNS, table.name)}
    row, fields = table.row.__name__, set(table.fields)
    faults = [f"{row}.{name} has no column in {table.name}" for name in fields - columns.keys()]
    faults += [f"{table.name}.{name} has no field in {row}" for name in columns.keys() - fields - table.sql_only]
    faults += [f"{table.name} has no column {name} for statements to write" for name in table.sql_only - columns.keys()]
    for name, kind in table.written.items():
        if name in columns and not await db.fetchval(ASSIGNABLE, kind, columns[name]):
            faults.append(f"{row}.{name} is written as {kind}, but {table.name}.{name} is {columns[name]}")
    return sorted(faults)


async def test_every_field_has_its_column_and_every_column_its_field(db):
    assert [fault for table in TABLES.values() for fault in await disagreements(db, table)] == []


@dataclass
class Note:
    """A row of a scratch table."""

    job_id: str
    words: int
    text: str | None = None


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ("job_id text, words bigint", "Note.text has no column in notes"),
        ("job_id text, words smallint, text text, at timestamptz", "notes.at has no field in Note"),
        ("job_id text, words jsonb, text text", "Note.words is written as bigint, but notes.words is jsonb"),
    ],
)
async def test_a_field_without_a_column_or_a_column_without_a_field_is_named(db, columns, fault):
    await db.execute(f"CREATE TABLE notes ({columns})")

    assert await disagreements(db, Table("notes", Note, ("job_id",))) == [fault]


async def test_a_column_that_statements_write_must_exist(db):
    await db.execute("CREATE TABLE notes (job_id text, words integer, text text)")
    table = Table("notes", Note, ("job_id",), sql_only=frozenset({"at"}))

    assert await disagreements(db, table) == ["notes has no column at for statements to write"]
