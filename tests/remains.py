"""Looks for what is left of something that was deleted: in every table, every stored file, and every topic."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from agents.commands import reach
from agents.runtime.kafka import client as clients
from agents.runtime.kafka.client import Kafka

COLUMNS = """
SELECT c.relname AS table, a.attname AS column, a.atttypid = 'bytea'::regtype AS is_bytes
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1, 2"""


async def in_database(dsn: str, text: str) -> list[str]:
    """`table.column` of every value that contains the text, once a row; whatever the column's type."""
    connection = await asyncpg.connect(dsn)
    try:
        return [place async for place in _columns_with(connection, text)]
    finally:
        await connection.close()


async def _columns_with(connection: Any, text: str) -> Any:
    for row in await connection.fetch(COLUMNS):
        column = f'"{row["column"]}"'
        found = f"position($1::bytea IN {column}) > 0" if row["is_bytes"] else f"strpos({column}::text, $1) > 0"
        needle = text.encode() if row["is_bytes"] else text
        rows = await connection.fetchval(f'SELECT count(*) FROM "{row["table"]}" WHERE {found}', needle)
        for _ in range(rows):
            yield f"{row['table']}.{row['column']}"


def in_folder(folder: Path, text: str) -> list[str]:
    """Files below the folder whose path or content contains the text."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and (text in str(path.relative_to(folder)) or text.encode() in path.read_bytes())
    ]


async def in_topics(servers: str, text: str) -> set[str]:
    """Topics with records that contain the text. Of a compacted one, only the newest record of each key counts: Kafka
    removes the others at a time of its own choice.
    """
    where = Kafka(servers)
    names = [name for name in await reach.partitions(where) if not name.startswith("__")]
    records: dict[Any, Any] = {}
    async with reach.started(where, clients.consumer(where, *names)) as consumer:
        while read := await consumer.getmany(timeout_ms=1500):
            for partition, batch in read.items():
                records |= {_identity(partition.topic, record): record for record in batch}
    return {key[0] for key, record in records.items() if any(text.encode() in part for part in _parts(record))}


def _identity(topic: str, record: Any) -> tuple[Any, ...]:
    is_compacted = topic == "job.status" or topic.endswith("-changelog")
    return (topic, record.key) if is_compacted else (topic, record.partition, record.offset)


def _parts(record: Any) -> Iterator[bytes]:
    """A record without a value is what its key is deleted with."""
    if record.value is not None:
        yield from (record.key or b"", record.value, *(value or b"" for _, value in record.headers))


async def remains(dsn: str, folder: Path, servers: str, texts: Collection[str]) -> set[str]:
    """Where any of the texts is found."""
    found: set[str] = set()
    for text in texts:
        found.update(await in_database(dsn, text), in_folder(folder, text), await in_topics(servers, text))
    return found
