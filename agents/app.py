"""The composition root: from settings to a running fleet. Everything is built here, handed in, and closed in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import faust

from agents import bind, intake, persist, reconcile, transcribe
from agents.audio import Prober
from agents.committer import Committer
from agents.kafka import Kafka, ensure_topics
from agents.locations import Locations
from agents.metrics import Metrics
from agents.providers import Recognizer
from agents.relay import Relay
from agents.settings import Settings
from agents.stage import Stage
from agents.work import LongWork
from schemas.errors import SettingsError
from sinks import Store
from sinks.migrate import migrate
from sinks.postgres import Postgres, connect_pool

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
    if settings.s3_bucket is None:
        from sinks.local import LocalStore  # noqa: PLC0415 - only the one that is used

        return LocalStore(settings.storage)
    from sinks.s3 import S3Store  # noqa: PLC0415

    return S3Store(
        settings.s3_bucket,
        region=settings.s3_region,
        endpoint_url=settings.s3_endpoint,
        access_key=settings.aws_key,
        secret_key=settings.aws_secret.get_secret_value() if settings.aws_secret else None,
        session_token=settings.aws_token.get_secret_value() if settings.aws_token else None,
    )


def open_recognizer(name: str, settings: Settings) -> Recognizer:
    """The recognizer of that name."""
    if name.startswith("whisper-"):
        from agents.embedded.weights import model_path  # noqa: PLC0415
        from agents.providers.whisper import Whisper  # noqa: PLC0415

        model = name.removeprefix("whisper-")
        return Whisper(name, lambda: model_path(model, settings.whisper_dir, settings.cache))
    if name.startswith("scripted"):
        from agents.providers.scripted import Scripted  # noqa: PLC0415

        return Scripted(name, settings.scripted_url)
    raise SettingsError(f"CONCORD_RECOGNIZERS: there is no recognizer {name!r}; there are whisper-tiny.en, whisper-base and scripted-*")


@dataclass
class Fleet:
    """The parts of a fleet that run in this process."""

    settings: Settings
    roles: tuple[str, ...]
    metrics: Metrics
    database: Postgres
    store: Store
    apps: dict[str, faust.App]
    drivers: list[bind.Driver]
    relays: list[asyncio.Task[None]]
    table: Any = None

    def failure(self) -> str | None:
        """What has stopped although it should run, or None."""
        for name, app in self.apps.items():
            if app.crashed or app.should_stop:
                return f"{name} stopped: {app.crash_reason!r}"
        for task in self.relays:
            if task.done():
                return f"the relay stopped: {task.exception()!r}" if not task.cancelled() else "the relay was cancelled"
        return None

    async def drained(self) -> bool:
        """Whether every topic is read to its end, nothing is in flight, no run is open and nothing is due soon."""
        for app in self.apps.values():
            consumer = app.consumer
            if not consumer.offsets.idle:
                return False
            for tp in [tp for tp in consumer.assignment() if app.topics.acks_enabled_for(tp.topic)]:
                position = await consumer.position(tp)
                if position is None or position < consumer.highwater(tp):
                    return False
        return await self.database.idle()

    @property
    def ready(self) -> dict[str, bool]:
        """Which stages have their partitions and take events."""
        return {name: bool(app.started and not app.rebalancing and not app.unassigned) for name, app in self.apps.items()}


@contextlib.asynccontextmanager
async def running(settings: Settings, wanted: Sequence[str]) -> AsyncIterator[Fleet]:
    """Build the wanted roles, start them, and at the end stop them: what is in flight finishes or is handed back."""
    unknown = [role for role in wanted if role not in roles(settings.recognizers)]
    if unknown:
        raise SettingsError(f"no role {', '.join(unknown)}; there are {', '.join(roles(settings.recognizers))}")
    kafka, dsn = kafka_of(settings), dsn_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        await migrate(dsn)
        created = await ensure_topics(kafka, settings.recognizers)
        if created:
            log.info("created %d topics", len(created))
        pool = await connect_pool(dsn)
        database = Postgres(pool, shards=settings.relay_shards)
        stack.push_async_callback(database.close)
        store = open_store(settings)
        stack.push_async_callback(store.close)
        fleet = Fleet(settings, tuple(wanted), Metrics(), database, store, {}, [], [])
        committer = Committer(database)
        stack.push_async_callback(committer.close)
        await _add_stages(fleet, kafka, committer, stack)
        stack.push_async_callback(_stop, fleet)
        await bind.run_apps(list(fleet.apps.values()))
        if "relay" in wanted:
            fleet.relays += [
                asyncio.create_task(Relay(dsn, kafka, shard, fleet.metrics).run(), name=f"relay.{shard}")
                for shard in range(settings.relay_shards)
            ]
        yield fleet


async def _stop(fleet: Fleet) -> None:
    await bind.stop_apps(list(fleet.apps.values()), STOP_S)
    for driver in fleet.drivers:
        await driver.close()
    for task in fleet.relays:
        task.cancel()
    await asyncio.gather(*fleet.relays, return_exceptions=True)


async def _add_stages(fleet: Fleet, kafka: Kafka, committer: Committer, stack: contextlib.AsyncExitStack) -> None:
    for role in fleet.roles:
        if role == "track":
            fleet.apps[role], fleet.table = bind.track_app(kafka, fleet.settings.data, committer, fleet.metrics, lambda _: None)
        elif role != "relay":
            stage = await _stage(role, fleet, stack)
            driver = bind.Driver(stage, committer, fleet.metrics)
            fleet.apps[role] = bind.faust_app(role, kafka, fleet.settings.data, **_membership(role, fleet.settings))
            driver.attach(fleet.apps[role])
            fleet.drivers.append(driver)


async def _stage(role: str, fleet: Fleet, stack: contextlib.AsyncExitStack) -> Stage:
    settings, database, store = fleet.settings, fleet.database, fleet.store
    holder = f"{socket.gethostname()}/{os.getpid()}/{role}"
    work = LongWork(database, holder, limit=64 if role == "intake" else 2)
    stack.push_async_callback(work.close)
    match role.partition("."):
        case ("intake", _, _):
            return intake.stage(intake.Intake(database, await _locations(fleet, stack), work, settings.recognizers, settings.deadline_s))
        case ("transcribe", _, name):
            recognizer = open_recognizer(name, settings)
            stack.push_async_callback(recognizer.close)
            return transcribe.stage(transcribe.Transcribe(recognizer, database, store, work))
        case ("reconcile", _, _):
            return reconcile.stage(reconcile.Reconcile(database, store))
        case _:
            return persist.stage(persist.Persist(database, store))


async def _locations(fleet: Fleet, stack: contextlib.AsyncExitStack) -> Locations:
    settings = fleet.settings
    prober = Prober(max_duration_ms=int(settings.max_audio_hours * 3_600_000))
    stack.push_async_callback(prober.close)
    return Locations(fleet.store, prober, settings.audio_roots, settings.allow_hosts, settings.max_audio_mb << 20)


def _membership(role: str, settings: Settings) -> dict[str, Any]:
    """Static membership lets a restarted worker take its place back at once; it needs a name that no other worker has."""
    return {"consumer_group_instance_id": f"{settings.instance}.{role}"} if settings.instance else {}
