"""The composition root: from settings to a running fleet. Everything is built here, handed in, and closed in
reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import faust
from aiohttp import web
from aiokafka.errors import KafkaError
from faust.exceptions import ConsistencyError
from prometheus_client import generate_latest

from agents.asr.paid_calls import PaidCalls
from agents.asr.protocols import (
    ChunkedRecognizer,
    LocalRecognizer,
    Recognizer,
    RemoteRecognizer,
    UploadingRecognizer,
)
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.fleet.file_limit import raise_file_limit
from agents.fleet.gauges import WORKER, observe
from agents.fleet.settings import Settings
from agents.llm.adjudicator import SpanAdjudicator
from agents.llm.protocols import Adjudicator
from agents.media.clips import Clips
from agents.media.probe_pool import ProbePool
from agents.media.source.audio_source import AudioSource
from agents.runtime import faust_binding
from agents.runtime.backpressure import Backpressure
from agents.runtime.group_commit import Committer
from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.group_positions import GroupPositions
from agents.runtime.kafka.record_batches import Records
from agents.runtime.kafka.topic_layout import TopicRepair, ensure_topics
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.metrics import Metrics
from agents.runtime.outbox.relay import Relay
from agents.runtime.scratch import temporary_files
from agents.runtime.skips import Skips
from agents.runtime.stage import Stage
from agents.runtime.supervision import Failed, Part
from agents.stages import intake, persist, reconcile, transcribe
from agents.upkeep.retention import DAYS, Retention
from agents.upkeep.sweeper import Sweeper
from schemas.errors import Misconfigured, SettingsError, Unavailable
from sinks import Overdue, Store
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.operations import Operations
from sinks.postgres.reader import Reader
from web.app import make_app
from web.auth import ApiKeys
from web.callbacks import HEADER, Callbacks, token_of
from web.connections import BoundedSite, Bounds
from web.ports import Health, LiveJobs
from web.status_feed import StatusFeeds

if TYPE_CHECKING:
    from schemas.events.job import JobStatus
    from sinks.blobs.fallback import FallbackStore

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
    from sinks.blobs.local import LocalStore

    if settings.s3_bucket is None:
        return LocalStore(settings.storage)
    from sinks.blobs.fallback import FallbackStore
    from sinks.blobs.s3 import S3Store

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
    from agents.asr.whisper import Whisper
    from agents.embedded.weights import model_path

    model = name.removeprefix("whisper-")
    return Whisper(name, lambda: model_path(model, settings.whisper_dir, settings.cache))


def _scripted(name: str, settings: Settings) -> Recognizer:
    from agents.asr.scripted import Scripted

    return Scripted(name, settings.scripted_url)


def _google(name: str, settings: Settings) -> Recognizer:
    from agents.asr.google.speech import Speech

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
        from agents.asr.google.recognize import Google

        return Google(speech)
    from agents.asr.google.batch_recognize import GoogleBatch
    from agents.asr.google.storage import Bucket

    return GoogleBatch(speech, Bucket(name, settings.google_bucket, endpoint=settings.google_storage, credentials=key))


def _assemblyai(name: str, settings: Settings) -> Recognizer:
    from agents.asr.assemblyai import AssemblyAI, Callback

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
    recognizer = opener(name, settings)
    if isinstance(recognizer, RemoteRecognizer):
        recognizer.settles_s = settings.settles.get(name, recognizer.settles_s)
    return recognizer


def abilities(settings: Settings) -> dict[str, frozenset[str]]:
    """What each recognizer carries out of an upload's options. By name: intake has no keys to open them with."""
    google = {"diarize"} if settings.google_bucket else set()
    able = {"assemblyai": {"diarize", "redact_pii"}, "google": google}
    return {name: frozenset(able.get(name, ())) for name in settings.recognizers}


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
    from agents.llm.gemini import Gemini

    return Gemini(settings.gemini_key.get_secret_value(), settings.gemini_model, settings.gemini_url)


class LiveTable:
    """The table of the `track` app that runs now. While none does, every status comes from PostgreSQL."""

    def __init__(self) -> None:
        self._table: LiveJobs | None = None

    def use(self, table: LiveJobs | None) -> None:
        """From now on this one, or none."""
        self._table = table

    def get(self, tenant_id: str, job_id: str) -> JobStatus | None:
        """What the table says."""
        return self._table.get(tenant_id, job_id) if self._table else None


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
    operations: Operations
    skips: Skips
    #: What keeps running: the stages first, then what goes on beside them.
    parts: list[Part] = field(default_factory=list)
    #: Of the stages that run at the moment.
    apps: dict[str, faust.App] = field(default_factory=dict)
    drivers: dict[str, faust_binding.Driver] = field(default_factory=dict)
    committer: Committer | None = None
    limiters: list[ProviderLimiter] = field(default_factory=list)
    #: What else goes on for a stage, by what it is called.
    beside: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    paid: PaidCalls = field(default_factory=PaidCalls)
    table: LiveTable = field(default_factory=LiveTable)
    feeds: StatusFeeds = field(default_factory=StatusFeeds)
    #: What is due and not published, at the last look.
    backlog: list[Overdue] = field(default_factory=list)

    @property
    def stages(self) -> tuple[str, ...]:
        """The roles that are stages."""
        return tuple(role for role in self.roles if role != "relay")

    def failure(self) -> str | None:
        """What keeps failing, or None."""
        return next((f"{part.name} {part.state}" for part in self.parts if part.looping or part.hung), None)

    def hung(self) -> str | None:
        """What failed and does not end, so that it cannot be started again in this process, or None."""
        return next((f"{part.name} {part.state}" for part in self.parts if part.hung), None)

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
        return {name: self._takes_events(name) for name in self.stages}

    def _takes_events(self, name: str) -> bool:
        app = self.apps.get(name)
        return app is not None and bool(app.started and not app.rebalancing and not app.in_recovery)

    async def health(self) -> Health:
        """What probes are told."""
        details = {name: "ready" if ready else "joining" for name, ready in self.ready.items()}
        try:
            async with asyncio.timeout(2):
                await self.database.now()
            details["postgresql"] = "ready"
        except (Unavailable, TimeoutError):
            details["postgresql"] = "away"
        details |= {part.name: f"crash-looping: {part.state}" for part in self.parts if part.looping}
        details |= {part.name: f"hung: {part.state}" for part in self.parts if part.hung}
        ready = all(state == "ready" for state in details.values()) and not self.stuck
        details |= {f"outbox {late.shard} {late.topic}": str(late) for late in self.backlog[:10]}
        return Health(self.hung() is None, ready, details)

    @property
    def stuck(self) -> bool:
        """Whether this worker's relay publishes nothing, or too little. A single topic or event that Kafka does not
        take is told, too, but is no reason to send a worker away: the others go on.
        """
        return "relay" in self.roles and not all(late.apart for late in self.backlog)


@contextlib.asynccontextmanager
async def running(settings: Settings, wanted: Sequence[str]) -> AsyncIterator[Fleet]:
    """Build the wanted roles, start them, and at the end stop them: what is in flight finishes or is handed back."""
    unknown = [role for role in wanted if role not in roles(settings.recognizers)]
    if unknown:
        raise SettingsError(f"no role {', '.join(unknown)}; there are {', '.join(roles(settings.recognizers))}")
    kafka, dsn = kafka_of(settings), dsn_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(temporary_files())
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
        operations = Operations(pool)
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
            operations,
            Skips(operations),
        )
        stack.push_async_callback(fleet.paid.close)
        await fleet.skips.look()
        Records.avoid = fleet.skips
        committer = fleet.committer = Committer(database, fleet.metrics.abandoned)
        stack.push_async_callback(committer.close)
        await _add_stages(fleet, kafka, committer, stack)
        await _serve(fleet, listening, stack)
        # What is there by now stays: collections need not look at it again, which took 100 ms at a time. Not later than
        # this: Faust relies on a collection to close the tables' files.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        async with _kept(fleet.parts):
            # A stage that fails at its start comes later: the others need not wait for it.
            await asyncio.gather(*(part.begun.wait() for part in fleet.parts))
            beside = await _beside(fleet, kafka, dsn)
            fleet.parts += beside
            async with _kept(beside):
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
    """The HTTP socket, bound first: where it cannot be, nothing else need be started. Workers that serve no API take
    any port.
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
    return f"http://{host}:{listening.getsockname()[1]}"


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
        feeds=fleet.feeds,
        callbacks=Callbacks(fleet.database, tokens) if tokens else None,
        bounds=bounds,
    )
    # Cancelled: whoever has hung up keeps no query and no recording going.
    runner = web.AppRunner(service, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await BoundedSite(runner, listening, bounds).start()
    log.info("HTTP on %s", fleet.url)


@contextlib.asynccontextmanager
async def _kept(parts: Sequence[Part]) -> AsyncIterator[None]:
    """Keep the parts running, and at the end stop them, all at once."""
    tasks = [asyncio.create_task(part.keep(), name=part.name) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _beside(fleet: Fleet, kafka: Kafka, dsn: str) -> list[Part]:
    """What goes on beside the stages."""
    runs: dict[str, Callable[[], Awaitable[None]]] = {
        "observing": partial(observe, fleet),
        "looking for skips": fleet.skips.run,
        **fleet.beside,
    }
    for limiter in fleet.limiters:
        runs[f"pace of {limiter.provider}"] = partial(limiter.run, partial(fleet.metrics.traffic, limiter.provider))
    if fleet.settings.storage_fallback:
        runs["moving blobs"] = cast("FallbackStore", fleet.store).move
    if "relay" in fleet.roles and fleet.committer is not None:
        runs["sweeping"] = Sweeper(
            fleet.database,
            fleet.database,
            fleet.committer,
            fleet.store,
            GroupPositions(kafka),
            fleet.settings.recognizers,
            fleet.settings.deadline_s,
            WORKER,
        ).run
    if "relay" in fleet.roles:
        days = {**DAYS, "audit_log": fleet.settings.audit_days}
        runs["forgetting old rows"] = Retention(fleet.database, days).run
        keeper = TopicRepair(kafka, fleet.settings.recognizers)
        runs["looking after topics"] = keeper.run
        # Rows of a shard beyond ours are there if CONCORD_RELAY_SHARDS was larger once; they too are published.
        shards = max(fleet.settings.relay_shards, await fleet.database.highest_shard() + 1)
        relay = partial(Relay, dsn, kafka, metrics=fleet.metrics, database=fleet.database, look_at_topics=keeper.look)
        runs |= {f"relay {shard}": relay(shard=shard).run for shard in range(shards)}
    return [_part(fleet, name, partial(_run, run)) for name, run in runs.items()]


async def _run(run: Callable[[], Awaitable[None]], started: Callable[[], None]) -> None:
    started()
    await run()


def _part(fleet: Fleet, name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> Part:
    return Part(name, run, fleet.metrics.restarts.labels(name).inc)


#: A stage's app, with what runs its events and the table that it owns, if any.
_Built = tuple[faust.App, faust_binding.Driver | None, faust_binding.FaustTable | None]


async def _add_stages(fleet: Fleet, kafka: Kafka, committer: Committer, stack: contextlib.AsyncExitStack) -> None:
    backpressure = Backpressure()
    for role in fleet.stages:
        if role == "track":
            build = partial(_build_track, fleet, kafka, committer)
        else:
            build = partial(
                _build, fleet, kafka, committer, backpressure, await _stage(role, fleet, backpressure, stack)
            )
        # Built the first time here, so that it is there when what is there is frozen.
        fleet.parts.append(_part(fleet, role, partial(_run_stage, fleet, role, chain([build()], iter(build, None)))))


def _build(fleet: Fleet, kafka: Kafka, committer: Committer, backpressure: Backpressure, stage: Stage) -> _Built:
    app = faust_binding.faust_app(stage.name, kafka, fleet.settings.data, **_membership(stage.name, fleet))
    driver = faust_binding.Driver(stage, committer, fleet.metrics, backpressure, fleet.skips)
    driver.attach(app)
    return app, driver, None


def _build_track(fleet: Fleet, kafka: Kafka, committer: Committer) -> _Built:
    more = _membership("track", fleet)
    changed = fleet.feeds.publish
    app, table = faust_binding.track_app(
        kafka, fleet.settings.data, committer, fleet.metrics, changed, fleet.skips, **more
    )
    return app, None, table


async def _run_stage(fleet: Fleet, role: str, built: Iterator[_Built], started: Callable[[], None]) -> None:
    """Run the stage's app until it fails; the next time it is another one."""
    app, driver, table = next(built)
    with contextlib.suppress(Unavailable):
        await fleet.skips.look()

    def up() -> None:
        fleet.apps[role] = app
        if driver is not None:
            fleet.drivers[role] = driver
        if table is not None:
            fleet.table.use(table)
        started()

    stale = False
    try:
        await faust_binding.run_app(app, up, STOP_S)
    except Failed as exc:
        stale = table is not None and isinstance(exc.__cause__, ConsistencyError)
        raise
    finally:
        fleet.apps.pop(role, None)
        fleet.drivers.pop(role, None)
        if driver is not None:
            await driver.close()
        if table is not None:
            fleet.table.use(None)
            table.close()
        if stale:
            # Kafka is younger than the files: another one, or restored. What they hold is in PostgreSQL as well.
            log.warning("the files of %s's table are newer than its changelog: they are removed and read anew", role)
            await asyncio.to_thread(shutil.rmtree, fleet.settings.data / "tables" / role, ignore_errors=True)


async def _stage(role: str, fleet: Fleet, backpressure: Backpressure, stack: contextlib.AsyncExitStack) -> Stage:
    settings, database, store = fleet.settings, fleet.database, fleet.store
    holder = f"{WORKER}/{role}"

    def leased_tasks(limit: int) -> LeasedTasks:
        work = LeasedTasks(database, holder, limit)
        stack.push_async_callback(work.close)
        return work

    match role.partition("."):
        case ("intake", _, _):
            taking_in = intake.Intake(
                database,
                await _audio_source(fleet, stack),
                leased_tasks(64),
                settings.recognizers,
                settings.deadline_s,
                settings.patience_s,
                abilities(settings),
                lambda: backpressure.behind,
            )
            fleet.beside["uploads that wait"] = taking_in.queue.run
            return intake.stage(taking_in)
        case ("transcribe", _, name):
            recognizer = open_recognizer(name, settings)
            work = leased_tasks(16 if isinstance(recognizer, UploadingRecognizer) else 2)
            stack.push_async_callback(recognizer.close)  # before its work: it finishes what it has paid for
            limiter = _limiter(recognizer, fleet)
            if isinstance(recognizer, LocalRecognizer):
                # As many as are heard here at once, and as many that stand by, so that no moment is lost.
                limiter = ProviderLimiter(database, name, settings.slots.get(name), here=2 * work.limit, holder=holder)
                fleet.limiters.append(limiter)
            transcriber = transcribe.Transcribe(recognizer, database, store, work, limiter, fleet.paid)
            stack.push_async_callback(transcriber.transcoder.close)
            return transcribe.stage(transcriber)
        case ("reconcile", _, _):
            adjudicator = await _span_adjudicator(fleet, stack)
            work = leased_tasks(16)  # it only waits
            tiebreak = _tiebreak(fleet, stack)  # closed before its work: it finishes what it has paid for
            return reconcile.stage(reconcile.Reconcile(database, store, adjudicator, work, tiebreak))
        case _:
            return persist.stage(persist.Persist(database, store))


def _limiter(recognizer: Recognizer, fleet: Fleet) -> ProviderLimiter:
    """The recognizer's limits; what goes on at one that others provide is looked at all the time."""
    name, settings = recognizer.name, fleet.settings
    rate = settings.rates.get(name)
    limiter = ProviderLimiter(fleet.database, name, settings.slots.get(name), 1 / rate if rate else 0.0)
    if not isinstance(recognizer, LocalRecognizer):
        fleet.limiters.append(limiter)
    return limiter


def open_tiebreaker(settings: Settings) -> LocalRecognizer | ChunkedRecognizer | None:
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


def _tiebreak(fleet: Fleet, stack: contextlib.AsyncExitStack) -> Tiebreaker | None:
    settings = fleet.settings
    recognizer = open_tiebreaker(settings)
    if recognizer is None:
        return None
    clips = Clips()
    stack.push_async_callback(recognizer.close)
    stack.push_async_callback(clips.close)
    limiter = _limiter(recognizer, fleet)
    return Tiebreaker(
        recognizer, fleet.database, fleet.store, clips, limiter, settings.tiebreaker_s, fleet.metrics, paid=fleet.paid
    )


async def _span_adjudicator(fleet: Fleet, stack: contextlib.AsyncExitStack) -> SpanAdjudicator | None:
    adjudicator = open_adjudicator(fleet.settings)
    if adjudicator is None or not fleet.settings.gemini_spans:
        return None
    stack.push_async_callback(adjudicator.close)
    await adjudicator.prepare()
    stack.push_async_callback(fleet.paid.close)  # before the adjudicator: what is asked at this moment is answered
    return SpanAdjudicator(adjudicator, fleet.database, fleet.settings.gemini_spans, fleet.metrics, paid=fleet.paid)


async def _audio_source(fleet: Fleet, stack: contextlib.AsyncExitStack) -> AudioSource:
    settings = fleet.settings
    probe_pool = ProbePool(max_duration_ms=int(settings.max_audio_hours * 3_600_000))
    stack.push_async_callback(probe_pool.close)
    audio_source = AudioSource(
        fleet.store,
        probe_pool,
        settings.roots,
        settings.allow_hosts,
        settings.max_audio_mb << 20,
        (settings.storage, *(settings.data / server for server in ("kafka", "postgres", "tables"))),
        fleet.database.intend_blob,
    )
    stack.push_async_callback(audio_source.close)
    return audio_source


def _membership(role: str, fleet: Fleet) -> dict[str, Any]:
    """Static membership lets a restarted worker take its place back at once; it needs a name that no other worker
    has.
    """
    if not fleet.settings.instance:
        return {}
    return {"consumer_group_instance_id": f"{fleet.settings.instance}.{role}"}
