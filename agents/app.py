"""The composition root: from settings to a running fleet. Everything is built here, handed in, and closed in
reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import faust
from aiohttp import web
from aiokafka.errors import KafkaError
from prometheus_client import generate_latest

from agents import bind, intake, persist, reconcile, transcribe
from agents.admission import Admission
from agents.committer import Committer
from agents.excerpts import Excerpts
from agents.file_limit import raise_file_limit
from agents.judge import Judge
from agents.kafka import Kafka
from agents.locations import Locations
from agents.metrics import Metrics
from agents.observe import observe
from agents.pace import Pace
from agents.prober import Prober
from agents.providers import (
    Adjudicator,
    LocalRecognizer,
    PiecewiseRecognizer,
    Recognizer,
    RemoteRecognizer,
    UploadingRecognizer,
)
from agents.relay import Relay
from agents.settings import Settings
from agents.stage import Stage
from agents.tiebreak import Tiebreak
from agents.topic_layout import TopicKeeper, ensure_topics
from agents.work import LongWork
from schemas.errors import Misconfigured, SettingsError, Unavailable
from sinks import Store
from sinks.migrate import migrate
from sinks.postgres import Postgres, connect_pool
from sinks.reader import Reader
from web.app import make_app
from web.auth import ApiKeys
from web.callbacks import HEADER, Callbacks, token_of
from web.changes import Changes
from web.connections import BoundedSite, Bounds
from web.ports import Health, LiveJobs

if TYPE_CHECKING:
    from sinks.fallback import FallbackStore

log = logging.getLogger(__name__)

#: Seconds that stopping may take, before what is still in flight is left to be delivered again.
STOP_S = 8.0


def roles(recognizers: Sequence[str]) -> tuple[str, ...]:
    """Everything that `concord worker` can be; `concord up` is all of it."""
    return ("intake", *(f"transcribe.{name}" for name in recognizers), "reconcile", "persist", "track", "relay")


def kafka_of(settings: Settings) -> Kafka:
    """How to reach Kafka."""
    if settings.kafka_servers is None:
        raise SettingsError("KAFKA_BOOTSTRAP_SERVERS is not set, and no `concord up` runs on this CONCORD_DATA")
    return Kafka(
        settings.kafka_servers,
        settings.kafka_security,
        settings.kafka_mechanism,
        settings.kafka_username,
        settings.kafka_password.get_secret_value() if settings.kafka_password else None,
        settings.kafka_cafile,
        settings.kafka_partitions,
        settings.kafka_replication,
        settings.relay_shards,
    )


def dsn_of(settings: Settings) -> str:
    """Where PostgreSQL is."""
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL is not set, and no `concord up` runs on this CONCORD_DATA")
    return settings.database_url.get_secret_value()


def open_store(settings: Settings) -> Store:
    """The blob store that the settings ask for."""
    from sinks.local import LocalStore

    if settings.s3_bucket is None:
        return LocalStore(settings.storage)
    from sinks.fallback import FallbackStore
    from sinks.s3 import S3Store

    bucket = S3Store(
        settings.s3_bucket,
        prefix=settings.s3_prefix,
        region=settings.s3_region,
        endpoint_url=settings.s3_endpoint,
        access_key=settings.aws_key,
        secret_key=settings.aws_secret.get_secret_value() if settings.aws_secret else None,
        session_token=settings.aws_token.get_secret_value() if settings.aws_token else None,
        sse=settings.s3_encryption,
    )
    # A dot, so that nothing in it is a blob of a local store that was here before.
    return FallbackStore(bucket, LocalStore(settings.storage / ".fallback")) if settings.storage_fallback else bucket


def _whisper(name: str, settings: Settings) -> Recognizer:
    from agents.embedded.weights import model_path
    from agents.providers.whisper import Whisper

    model = name.removeprefix("whisper-")
    return Whisper(name, lambda: model_path(model, settings.whisper_dir, settings.cache))


def _scripted(name: str, settings: Settings) -> Recognizer:
    from agents.providers.scripted import Scripted

    return Scripted(name, settings.scripted_url)


def _google(name: str, settings: Settings) -> Recognizer:
    from agents.providers.google_speech import Speech

    key = settings.google_credentials
    speech = Speech(
        name,
        project=settings.google_project or "",
        location=settings.google_location,
        model=settings.google_model,
        languages=settings.google_languages,
        endpoint=settings.google_endpoint,
        credentials=key,
    )
    if settings.google_bucket is None:
        from agents.providers.google import Google

        return Google(speech)
    from agents.providers.google_batch import GoogleBatch
    from agents.providers.google_storage import Bucket

    return GoogleBatch(speech, Bucket(name, settings.google_bucket, endpoint=settings.google_storage, credentials=key))


def _assemblyai(name: str, settings: Settings) -> Recognizer:
    from agents.providers.assemblyai import AssemblyAI, Callback

    if settings.assemblyai_key is None:
        raise SettingsError("ASSEMBLYAI_API_KEY is not set")
    callback = None
    if settings.public_url and name in (tokens := callback_tokens(settings)):
        callback = Callback(f"{settings.public_url.rstrip('/')}/webhooks/{name}", HEADER, tokens[name])
    return AssemblyAI(name, settings.assemblyai_key.get_secret_value(), settings.assemblyai_url, callback=callback)


#: How a recognizer is opened, by its name; where that ends in `-`, by the beginning of it.
OPENERS: dict[str, Callable[[str, Settings], Recognizer]] = {
    "whisper-": _whisper,
    "scripted-": _scripted,
    "assemblyai": _assemblyai,
    "google": _google,
}

#: Recognizers that call back, if they are told where.
CALLING = frozenset({"assemblyai"})


def open_recognizer(name: str, settings: Settings, variable: str = "CONCORD_RECOGNIZERS") -> Recognizer:
    """The recognizer of that name, which is from that variable."""
    opener = OPENERS.get(name) or OPENERS.get(name.partition("-")[0] + "-")
    if opener is None:
        raise SettingsError(
            f"{variable}: there is no recognizer {name!r}; "
            "there are whisper-tiny.en, whisper-base, assemblyai, google and scripted-*"
        )
    return opener(name, settings)


def callback_tokens(settings: Settings) -> dict[str, str]:
    """What each recognizer shows when it calls back; none without WEBHOOK_SECRET."""
    if settings.webhook_secret is None:
        return {}
    secret = settings.webhook_secret.get_secret_value()
    return {name: token_of(secret, name) for name in settings.recognizers if name in CALLING}


def open_adjudicator(settings: Settings) -> Adjudicator | None:
    """Who is asked about disputed words; None if nobody is configured."""
    if settings.gemini_key is None:
        return None
    from agents.providers.gemini import Gemini

    return Gemini(settings.gemini_key.get_secret_value(), settings.gemini_model, settings.gemini_url)


class NoTable:
    """`LiveJobs` of a worker that does not track: every status comes from PostgreSQL."""

    epoch = 0

    def get(self, tenant_id: str, job_id: str) -> None:
        """Nothing is known here."""

    def owner(self, tenant_id: str, job_id: str) -> None:
        """Nobody is asked."""


@dataclass
class Fleet:
    """The parts of a fleet that run in this process."""

    settings: Settings
    roles: tuple[str, ...]
    metrics: Metrics
    database: Postgres
    store: Store
    reader: Reader
    url: str
    apps: dict[str, faust.App] = field(default_factory=dict)
    drivers: list[bind.Driver] = field(default_factory=list)
    committer: Committer | None = None
    paces: list[Pace] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    table: LiveJobs = field(default_factory=NoTable)
    changes: Changes = field(default_factory=Changes)

    def failure(self) -> str | None:
        """What has stopped although it should run, or None."""
        for name, app in self.apps.items():
            if app.crashed or app.should_stop:
                return f"{name} stopped: {app.crash_reason!r}"
        for task in self.tasks:
            if task.done():
                return f"{task.get_name()} stopped: {None if task.cancelled() else task.exception()!r}"
        return None

    async def drained(self) -> bool:
        """Whether every topic is read to its end, nothing is in flight, no run is open and nothing is due soon."""
        for app in self.apps.values():
            consumer = app.consumer
            if not consumer.offsets.idle:
                return False
            for tp in [tp for tp in consumer.assignment() if app.topics.acks_enabled_for(tp.topic)]:
                position, end = await consumer.position(tp), consumer.highwater(tp)
                if position is None or end is None or position < end:  # the end is known after the first fetch
                    return False
        return await self.database.idle()

    @property
    def ready(self) -> dict[str, bool]:
        """Which stages have joined their groups and take events. (A spare worker without partitions is ready, too.)"""
        return {
            name: bool(app.started and not app.rebalancing and not app.in_recovery) for name, app in self.apps.items()
        }

    async def health(self) -> Health:
        """What probes are told."""
        failure = self.failure()
        details = {name: "ready" if ready else "joining" for name, ready in self.ready.items()}
        try:
            async with asyncio.timeout(2):
                await self.database.now()
            details["postgresql"] = "ready"
        except (Unavailable, TimeoutError):
            details["postgresql"] = "away"
        ready = failure is None and all(state == "ready" for state in details.values())
        return Health(failure is None, ready, details | ({"failure": failure} if failure else {}))


@contextlib.asynccontextmanager
async def running(settings: Settings, wanted: Sequence[str]) -> AsyncIterator[Fleet]:
    """Build the wanted roles, start them, and at the end stop them: what is in flight finishes or is handed back."""
    unknown = [role for role in wanted if role not in roles(settings.recognizers)]
    if unknown:
        raise SettingsError(f"no role {', '.join(unknown)}; there are {', '.join(roles(settings.recognizers))}")
    kafka, dsn = kafka_of(settings), dsn_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(_listen(settings, must="track" in wanted))
        await migrate(dsn)
        try:
            ensured = await ensure_topics(kafka, settings.recognizers)
        except KafkaError as exc:
            raise Unavailable(f"Kafka at {kafka.bootstrap_servers} does not answer ({type(exc).__name__})") from exc
        if ensured.created:
            log.info("created %d topics", len(ensured.created))
        for fault in ensured.faults:
            log.warning("the topic %s %s: %s", fault.topic, fault.said, fault.advice)
        pool = await connect_pool(dsn)
        database = Postgres(pool, shards=settings.relay_shards)
        stack.push_async_callback(database.close)
        store = open_store(settings)
        stack.push_async_callback(store.close)
        if set(wanted) - {"relay"}:  # which has no use for it
            await _answers(store)
        # A pool of their own: however much people read, it never keeps a stage waiting.
        reading = await connect_pool(dsn)
        stack.callback(reading.terminate)
        fleet = Fleet(
            settings,
            tuple(wanted),
            Metrics(settings.prices),
            database,
            store,
            Reader(reading),
            _url(settings, listening),
        )
        committer = fleet.committer = Committer(database, fleet.metrics.abandoned)
        stack.push_async_callback(committer.close)
        await _add_stages(fleet, kafka, committer, stack)
        stack.push_async_callback(_stop, fleet)
        await _serve(fleet, listening, stack)
        # What is there by now stays: collections need not look at it again, which took 100 ms at a time. Not later than
        # this: Faust relies on a collection to close the tables' files.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        await bind.run_apps(list(fleet.apps.values()))
        await _add_tasks(fleet, kafka, dsn)
        yield fleet


async def _answers(store: Store) -> None:
    """Raises SettingsError for a store that somebody has to set up; one that is away is waited for."""
    try:
        await store.check()
    except Misconfigured:
        raise
    except Unavailable as exc:
        log.warning("work that needs the store waits for it: %s", exc)


def _listen(settings: Settings, *, must: bool) -> socket.socket:
    """The HTTP socket, bound first: its port goes into what other workers are told. Workers that serve no API take any
    port.
    """
    address = (settings.http_host, settings.http_port)
    try:
        return socket.create_server(address, reuse_port=False)
    except OSError as exc:
        if must:
            hint = "set CONCORD_HTTP=host:port (port 0: any that is free)"
            raise SettingsError(f"CONCORD_HTTP: cannot listen on {settings.http} ({exc.strerror}); {hint}") from exc
        return socket.create_server((settings.http_host, 0))


def _url(settings: Settings, listening: socket.socket) -> str:
    host = settings.http_host if settings.http_host != "0.0.0.0" else socket.gethostname()  # noqa: S104 - a comparison
    return settings.advertise or f"http://{host}:{listening.getsockname()[1]}"


async def _serve(fleet: Fleet, listening: socket.socket, stack: contextlib.AsyncExitStack) -> None:
    """HTTP: health and metrics on every worker, and the API, which a `track` worker answers from its table."""
    secret = fleet.settings.api_keys
    tokens = callback_tokens(fleet.settings)
    bounds = Bounds.within(fleet.settings.http_connections, raise_file_limit())
    service = make_app(
        live=fleet.table,
        reader=fleet.reader,
        store=fleet.store,
        metrics=lambda: generate_latest(fleet.metrics.registry),
        health=fleet.health,
        keys=ApiKeys.parse(secret.get_secret_value() if secret else None),
        changes=fleet.changes,
        callbacks=Callbacks(fleet.database, tokens) if tokens else None,
        bounds=bounds,
    )
    # Cancelled: whoever has hung up keeps no query and no recording going.
    runner = web.AppRunner(service, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await BoundedSite(runner, listening, bounds).start()
    log.info("HTTP on %s", fleet.url)


async def _add_tasks(fleet: Fleet, kafka: Kafka, dsn: str) -> None:
    fleet.tasks.append(asyncio.create_task(observe(fleet), name="observing"))
    for pace in fleet.paces:
        seen = partial(fleet.metrics.traffic, pace.provider)
        fleet.tasks.append(asyncio.create_task(pace.run(seen), name=f"pace of {pace.provider}"))
    if fleet.settings.storage_fallback:
        fleet.tasks.append(asyncio.create_task(cast("FallbackStore", fleet.store).move(), name="moving blobs"))
    if "relay" in fleet.roles:
        keeper = TopicKeeper(kafka, fleet.settings.recognizers)
        fleet.tasks.append(asyncio.create_task(keeper.run(), name="looking after topics"))
        # Rows of a shard beyond ours are there if CONCORD_RELAY_SHARDS was larger once; they too are published.
        shards = max(fleet.settings.relay_shards, await fleet.database.highest_shard() + 1)
        relays = (Relay(dsn, kafka, shard, fleet.metrics) for shard in range(shards))
        fleet.tasks += [asyncio.create_task(relay.run(), name=f"relay {n}") for n, relay in enumerate(relays)]


async def _stop(fleet: Fleet) -> None:
    await bind.stop_apps(list(fleet.apps.values()), STOP_S)
    for driver in fleet.drivers:
        await driver.close()
    for task in fleet.tasks:
        task.cancel()
    await asyncio.gather(*fleet.tasks, return_exceptions=True)


async def _add_stages(fleet: Fleet, kafka: Kafka, committer: Committer, stack: contextlib.AsyncExitStack) -> None:
    data, admission = fleet.settings.data, Admission()
    for role in fleet.roles:
        more = _membership(role, fleet)
        if role == "track":
            changed = fleet.changes.publish
            fleet.apps[role], fleet.table = bind.track_app(
                kafka, data, fleet.url, committer, fleet.metrics, changed, **more
            )
            stack.callback(fleet.table.close)
        elif role != "relay":
            driver = bind.Driver(await _stage(role, fleet, stack), committer, fleet.metrics, admission)
            fleet.apps[role] = bind.faust_app(role, kafka, data, **more)
            driver.attach(fleet.apps[role])
            fleet.drivers.append(driver)


async def _stage(role: str, fleet: Fleet, stack: contextlib.AsyncExitStack) -> Stage:
    settings, database, store = fleet.settings, fleet.database, fleet.store
    holder = f"{socket.gethostname()}/{os.getpid()}/{role}"

    def long_work(limit: int) -> LongWork:
        work = LongWork(database, holder, limit)
        stack.push_async_callback(work.close)
        return work

    match role.partition("."):
        case ("intake", _, _):
            return intake.stage(
                intake.Intake(
                    database, await _locations(fleet, stack), long_work(64), settings.recognizers, settings.deadline_s
                )
            )
        case ("transcribe", _, name):
            recognizer = open_recognizer(name, settings)
            work = long_work(16 if isinstance(recognizer, UploadingRecognizer) else 2)
            stack.push_async_callback(recognizer.close)  # before its work: it finishes what it has paid for
            return transcribe.stage(transcribe.Transcribe(recognizer, database, store, work, _pace(recognizer, fleet)))
        case ("reconcile", _, _):
            judge = await _judge(fleet, stack)
            work = long_work(16)  # it only waits
            tiebreak = _tiebreak(fleet, stack)  # closed before its work: it finishes what it has paid for
            return reconcile.stage(reconcile.Reconcile(database, store, judge, work, tiebreak))
        case _:
            return persist.stage(persist.Persist(database, store))


def _pace(recognizer: Recognizer, fleet: Fleet) -> Pace:
    """The recognizer's limits; what goes on at one that others provide is looked at all the time."""
    name, settings = recognizer.name, fleet.settings
    rate = settings.rates.get(name)
    pace = Pace(fleet.database, name, settings.slots.get(name), 1 / rate if rate else 0.0)
    if not isinstance(recognizer, LocalRecognizer):
        fleet.paces.append(pace)
    return pace


def open_tiebreaker(settings: Settings) -> LocalRecognizer | PiecewiseRecognizer | None:
    """Who hears again what others disagree about; None if nobody is configured."""
    if settings.tiebreaker is None or not settings.tiebreaker_s:
        return None
    pieces = settings.model_copy(update={"google_bucket": None})  # what it hears is short
    recognizer = open_recognizer(settings.tiebreaker, pieces, "CONCORD_TIEBREAKER")
    if isinstance(recognizer, RemoteRecognizer):
        raise SettingsError(
            f"CONCORD_TIEBREAKER: {settings.tiebreaker} takes whole recordings only; name whisper-* or google"
        )
    return recognizer


def _tiebreak(fleet: Fleet, stack: contextlib.AsyncExitStack) -> Tiebreak | None:
    settings = fleet.settings
    recognizer = open_tiebreaker(settings)
    if recognizer is None:
        return None
    excerpts = Excerpts()
    stack.push_async_callback(recognizer.close)
    stack.push_async_callback(excerpts.close)
    pace = _pace(recognizer, fleet)
    return Tiebreak(recognizer, fleet.database, fleet.store, excerpts, pace, settings.tiebreaker_s, fleet.metrics)


async def _judge(fleet: Fleet, stack: contextlib.AsyncExitStack) -> Judge | None:
    adjudicator = open_adjudicator(fleet.settings)
    if adjudicator is None or not fleet.settings.gemini_spans:
        return None
    stack.push_async_callback(adjudicator.close)
    await adjudicator.prepare()
    return Judge(adjudicator, fleet.database, fleet.settings.gemini_spans, fleet.metrics)


async def _locations(fleet: Fleet, stack: contextlib.AsyncExitStack) -> Locations:
    settings = fleet.settings
    prober = Prober(max_duration_ms=int(settings.max_audio_hours * 3_600_000))
    stack.push_async_callback(prober.close)
    locations = Locations(
        fleet.store,
        prober,
        settings.roots,
        settings.allow_hosts,
        settings.max_audio_mb << 20,
        (settings.storage, *(settings.data / server for server in ("kafka", "postgres", "tables"))),
    )
    stack.push_async_callback(locations.close)
    return locations


def _membership(role: str, fleet: Fleet) -> dict[str, Any]:
    """Static membership lets a restarted worker take its place back at once; it needs a name that no other worker
    has.
    """
    if not fleet.settings.instance:
        return {}
    name = f"{fleet.settings.instance}.{role}"
    if role == "track":
        # The place comes back with the URL in it that the worker had. With another one (CONCORD_HTTP with port 0)
        # Faust's assignor would refuse its own assignment, for ever: then it is another worker, which waits for the
        # dead one.
        name += "." + re.sub(r"[^A-Za-z0-9._-]", "-", fleet.url)
    return {"consumer_group_instance_id": name}
