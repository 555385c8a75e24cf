"""Checks of Kafka: connection, login, topics, transactions and clock."""

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
from agents.fleet.servers import kafka_of
from agents.runtime.kafka import client as clients
from agents.runtime.kafka import topic_layout
from agents.stages import registry
from schemas import topics

if TYPE_CHECKING:
    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka


async def kafka(settings: Settings, *, quick: bool, remembered: bool) -> list[Finding]:
    """All checks of Kafka; `quick` omits transactions. `remembered`: its address was left by an earlier `concord up`.

    Raises KafkaError when Kafka fails between two checks.
    """
    if settings.kafka_servers is None:
        return [Finding("Kafka", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    where = kafka_of(settings)
    findings = [await _broker(server.strip(), where) for server in where.bootstrap_servers.split(",")]
    if all(finding.level == "fail" for finding in findings):
        return [stale(findings[0])] if remembered else findings
    return findings + await _cluster(where, settings, quick=quick)


async def _broker(server: str, where: Kafka) -> Finding:
    """Whether a connection to one bootstrap server succeeds, with TLS and login."""
    subject = f"Kafka {server}"
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        return Finding(subject, "fail", "is not host:port", "KAFKA_BOOTSTRAP_SERVERS is a comma list of host:port")
    security = {name: value for name, value in where.client().items() if name != "bootstrap_servers"}
    began = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await conn.create_conn(host, int(port), request_timeout_ms=int(CONNECT_S * 1000), **security)
        connection.close()
    except (OSError, kafka_errors.KafkaError) as exc:
        return Finding(subject, "fail", *connection_error(exc, where.security_protocol))
    return Finding(subject, "ok", f"answers in {(time.monotonic() - began) * 1000:.0f} ms ({where.security_protocol})")


def connection_error(exc: BaseException, protocol: str) -> tuple[str, str]:
    """The result and the advice of a finding about a failed connection."""
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
                f"the TLS handshake fails ({exc.reason or exc})",
                f"KAFKA_SECURITY_PROTOCOL is {protocol}: does that listener use TLS?",
            )
        case TimeoutError():
            return (
                f"timed out: no answer in {CONNECT_S:.0f} s",
                "is it Kafka, is it overloaded, does a firewall drop packets?",
            )
        case kafka_errors.AuthenticationFailedError() | kafka_errors.SaslAuthenticationFailed():
            return "authentication failed", "correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        case kafka_errors.UnsupportedSaslMechanismError() | kafka_errors.IllegalSaslStateError():
            return (
                "authentication failed: it does not support this mechanism",
                "correct KAFKA_SASL_MECHANISM and KAFKA_SECURITY_PROTOCOL",
            )
        case kafka_errors.KafkaConnectionError():
            return (
                "closed the connection",
                f"KAFKA_SECURITY_PROTOCOL is {protocol}: does that listener require TLS or a login?",
            )
        case _:
            return f"{type(exc).__name__}: {exc}", "look at the broker's log"


async def _cluster(where: Kafka, settings: Settings, *, quick: bool) -> list[Finding]:
    client = AIOKafkaClient(**where.client(), request_timeout_ms=int(CONNECT_S * 1000))
    try:
        await client.bootstrap()
        cluster = await client.fetch_all_metadata()
        brokers, existing = cluster.brokers(), cluster.topics()
    except kafka_errors.KafkaError as exc:
        return [Finding("Kafka cluster", "fail", f"no metadata ({exc})", "look at the broker's log")]
    finally:
        await client.close()
    findings = [await _advertised(brokers), *await _topics(where, settings)]
    return findings if quick else [*findings, *await _transactions(where, existing)]


async def _advertised(brokers: Any) -> Finding:
    """Whether the addresses that brokers advertise to clients can be reached: often `advertised.listeners` is wrong."""
    addresses = [(broker.host, broker.port) for broker in brokers]
    unreachable = [f"{host}:{port}" for host, port in addresses if not await _listens(host, port)]
    if unreachable:
        result = f"brokers advertise {', '.join(unreachable)}, where nothing answers"
        advice = "correct advertised.listeners, or make that address reachable from here"
        return Finding("Kafka cluster", "fail", result, advice)
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
    layouts = registry.layouts(where, settings.recognizers)
    async with topic_layout.admin_client(where) as admin:
        states = await topic_layout.topic_states(admin, [topic.name for topic in layouts])
    findings = [_fault(fault) for fault in topic_layout.faults(layouts, states)]
    missing = [topic.name for topic in layouts if topic.name not in states]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        result = f"{len(missing)} of {len(layouts)} are missing: {names}"
        advice = "the first worker creates them; producers must wait for that"
        findings.append(Finding("Kafka topics", "warn", result, advice))
    return findings or [Finding("Kafka topics", "ok", f"all {len(layouts)} exist and are configured as needed")]


def _fault(fault: topic_layout.TopicFault) -> Finding:
    command = fault.advice.replace("kafka-configs ", "kafka-configs --bootstrap-server ... ")
    level: Level = "fail" if fault.fatal else "warn"
    return Finding(f"Kafka topic {fault.topic}", level, fault.problem, command)


async def _transactions(where: Kafka, existing: set[str]) -> list[Finding]:
    """Whether transactions work, and how Kafka's clock differs: one is begun as the relay does it, and aborted."""
    producer = clients.producer(where, transactional_id=f"concord.doctor.{socket.gethostname()}")
    clock: list[Finding] = []
    try:
        await producer.start()
        await producer.begin_transaction()
        if topics.RELAY_POSITION in existing:
            await producer.send_offsets_to_transaction({TopicPartition(topics.RELAY_POSITION, 0): 0}, "concord.doctor")
            clock = await _clock(producer)
        await producer.abort_transaction()
    except kafka_errors.KafkaError as exc:
        advice = "the login needs Write and Describe on transactional ids, and the transaction log needs its replicas"
        return [Finding("Kafka transactions", "fail", f"do not work ({type(exc).__name__}: {exc})", advice)]
    finally:
        await producer.stop()
    return [Finding("Kafka transactions", "ok", "work"), *clock]


#: The timestamp type of a record that has the time of the broker's append.
LOG_APPEND_TIME = 1


async def _clock(producer: Any) -> list[Finding]:
    """Compare Kafka's clock with this machine's, by the timestamp of a record in the transaction; nothing if the login
    may not write, or the broker does not set timestamps.
    """
    before = time.time()
    try:
        written = await producer.send_and_wait(topics.RELAY_POSITION, b"doctor", partition=0)
    except kafka_errors.KafkaError:
        return []
    if written.timestamp_type != LOG_APPEND_TIME:
        return []
    return [_clock_finding(written.timestamp / 1000 - (before + time.time()) / 2)]


def _clock_finding(difference_s: float) -> Finding:
    result = f"Kafka's is {abs(difference_s):.3f} s {'ahead' if difference_s > 0 else 'behind'}"
    if abs(difference_s) > CLOCK_S:
        advice = "synchronise all machines by NTP: Kafka refuses records of producers whose clock is an hour ahead"
        return Finding("clock of Kafka", "warn", result, advice)
    return Finding("clock of Kafka", "ok", result)
