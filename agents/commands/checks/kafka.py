"""What `concord doctor` finds out about Kafka: reachable, let in, complete, and able to do transactions."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition, conn
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient

from agents.commands.checks.finding import CLOCK_S, CONNECT_S, Finding, Level, stale
from agents.fleet.build import kafka_of
from agents.runtime.kafka import client as clients
from agents.runtime.kafka import topic_layout
from schemas import topics

if TYPE_CHECKING:
    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka


async def kafka(settings: Settings, *, quick: bool, remembered: bool) -> list[Finding]:
    if settings.kafka_servers is None:
        return [Finding("Kafka", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    where = kafka_of(settings)
    findings = [await _broker(server.strip(), where) for server in where.bootstrap_servers.split(",")]
    if all(finding.level == "fail" for finding in findings):
        return [stale(findings[0])] if remembered else findings
    return findings + await _cluster(where, settings, quick=quick)


async def _broker(server: str, where: Kafka) -> Finding:
    """Whether one bootstrap server can be talked to, by the first thing that goes wrong."""
    what = f"Kafka {server}"
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        return Finding(what, "fail", "is not host:port", "KAFKA_BOOTSTRAP_SERVERS is a comma list of host:port")
    given = {name: value for name, value in where.client().items() if name != "bootstrap_servers"}
    began = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await conn.create_conn(host, int(port), request_timeout_ms=int(CONNECT_S * 1000), **given)
        connection.close()
    except (OSError, kafka_errors.KafkaError) as exc:
        return Finding(what, "fail", *trouble(exc, where.security_protocol))
    return Finding(what, "ok", f"answers in {(time.monotonic() - began) * 1000:.0f} ms ({where.security_protocol})")


def trouble(exc: BaseException, protocol: str) -> tuple[str, str]:
    """What a failed connection means, and what to do."""
    match exc:
        case ConnectionRefusedError():
            return "refused: nothing listens there", "start Kafka (`concord up` starts one), or correct the port"
        case socket.gaierror():
            return f"unknown host ({exc.strerror})", "correct the host in KAFKA_BOOTSTRAP_SERVERS"
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted ({exc.verify_message})",
                "name the CA's PEM file in KAFKA_SSL_CAFILE",
            )
        case ssl.SSLError():
            return (
                f"no TLS spoken there ({exc.reason or exc})",
                f"KAFKA_SECURITY_PROTOCOL is {protocol}: does that listener use TLS?",
            )
        case TimeoutError():
            return (
                f"timed out: no answer in {CONNECT_S:.0f} s",
                "is it Kafka, is it overloaded, does a firewall swallow packets?",
            )
        case kafka_errors.AuthenticationFailedError() | kafka_errors.SaslAuthenticationFailed():
            return "authentication failed", "correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        case kafka_errors.UnsupportedSaslMechanismError() | kafka_errors.IllegalSaslStateError():
            return (
                "authentication failed: it does not offer this",
                "correct KAFKA_SASL_MECHANISM and KAFKA_SECURITY_PROTOCOL",
            )
        case kafka_errors.KafkaConnectionError():
            return (
                "closed the connection",
                f"KAFKA_SECURITY_PROTOCOL is {protocol}: does that listener ask for TLS or a login?",
            )
        case _:
            return f"{type(exc).__name__}: {exc}", "look at the broker's log"


async def _cluster(where: Kafka, settings: Settings, *, quick: bool) -> list[Finding]:
    client = AIOKafkaClient(**where.client(), request_timeout_ms=int(CONNECT_S * 1000))
    try:
        await client.bootstrap()
        cluster = await client.fetch_all_metadata()
        brokers, there = cluster.brokers(), cluster.topics()
    except kafka_errors.KafkaError as exc:
        return [Finding("Kafka cluster", "fail", f"no metadata ({exc})", "look at the broker's log")]
    finally:
        await client.close()
    findings = [await _advertised(brokers), *await _topics(where, settings)]
    return findings if quick else [*findings, *await _transactions(where, there)]


async def _advertised(brokers: Any) -> Finding:
    """Clients go where the brokers say they are: a wrong advertised listener is the classic trap."""
    lost = [f"{broker.host}:{broker.port}" for broker in brokers if not await _listens(broker.host, broker.port)]
    if lost:
        advice = "correct advertised.listeners, or make that address reachable from here"
        return Finding(
            "Kafka cluster", "fail", f"brokers say they are at {', '.join(lost)}, where nothing answers", advice
        )
    return Finding("Kafka cluster", "ok", f"{len(brokers)} broker{'s' if len(brokers) != 1 else ''}")


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def _topics(where: Kafka, settings: Settings) -> list[Finding]:
    wanted = topic_layout.layout(where, settings.recognizers)
    async with topic_layout.admin_client(where) as admin:
        there = await topic_layout.topic_states(admin, [topic.name for topic in wanted])
    found = [_fault(fault) for fault in topic_layout.faults(wanted, there)]
    missing = [topic.name for topic in wanted if topic.name not in there]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        said = f"{len(missing)} of {len(wanted)} are missing: {names}"
        found.append(Finding("Kafka topics", "warn", said, "the first worker makes them; producers must wait for that"))
    return found or [Finding("Kafka topics", "ok", f"all {len(wanted)} are there, as Concord needs them")]


def _fault(fault: topic_layout.TopicFault) -> Finding:
    command = fault.advice.replace("kafka-configs ", "kafka-configs --bootstrap-server ... ")
    level: Level = "fail" if fault.fatal else "warn"
    return Finding(f"Kafka topic {fault.topic}", level, fault.problem, command)


async def _transactions(where: Kafka, there: set[str]) -> list[Finding]:
    """Begin one as the relay does, and take it back: nothing is committed."""
    producer = _doctors_producer(where)
    try:
        await producer.start()
        await producer.begin_transaction()
        if topics.RELAY_POSITION in there:
            await producer.send_offsets_to_transaction({TopicPartition(topics.RELAY_POSITION, 0): 0}, "concord.doctor")
        await producer.abort_transaction()
    except kafka_errors.KafkaError as exc:
        advice = (
            "the login needs Write and Describe on transactional ids, and the cluster its transaction log's replicas"
        )
        return [Finding("Kafka transactions", "fail", f"do not work ({type(exc).__name__}: {exc})", advice)]
    finally:
        await producer.stop()
    clock = [await _clock(where)] if topics.RELAY_POSITION in there else []
    return [Finding("Kafka transactions", "ok", "work"), *(finding for finding in clock if finding)]


def _doctors_producer(where: Kafka) -> Any:
    return clients.producer(where, transactional_id=f"concord.doctor.{socket.gethostname()}")


#: A record's time was given by the broker.
BROKERS_TIME = 1


async def _clock(where: Kafka) -> Finding | None:
    """How far Kafka's clock is from ours, by the time of a record in a transaction that is taken back; None where it
    does not say, or does not let us write.
    """
    producer = _doctors_producer(where)
    try:
        await producer.start()
        await producer.begin_transaction()
        before = time.time()
        written = await producer.send_and_wait(topics.RELAY_POSITION, b"doctor", partition=0)
        after = time.time()
        await producer.abort_transaction()
    except kafka_errors.KafkaError:
        return None
    finally:
        await producer.stop()
    if written.timestamp_type != BROKERS_TIME:
        return None
    return _apart(written.timestamp / 1000 - (before + after) / 2)


def _apart(apart_s: float) -> Finding:
    said = f"Kafka's is {abs(apart_s):.3f} s {'ahead' if apart_s > 0 else 'behind'}"
    if abs(apart_s) > CLOCK_S:
        advice = "let all machines follow NTP: Kafka refuses records of producers whose clock is an hour ahead"
        return Finding("clock of Kafka", "warn", said, advice)
    return Finding("clock of Kafka", "ok", said)
