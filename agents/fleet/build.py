"""The composition root: from settings to a running fleet. Everything is built here, handed in, and closed in
reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ConsistencyError

from agents.fleet.gauges import WORKER, observe
from agents.fleet.resources import StageResources
from agents.fleet.settings import Settings
from agents.runtime import faust_binding
from agents.runtime.backpressure import Backpressure
from agents.runtime.group_commit import Committer
from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.group_positions import GroupPositions
from agents.runtime.kafka.record_batches import PartitionRecords
from agents.runtime.kafka.topic_layout import TopicRepair, ensure
from agents.runtime.metrics import Metrics
from agents.runtime.outbox.relay import Relay
from agents.runtime.scratch import temporary_files
from agents.runtime.skips import Skips
from agents.runtime.stage import Stage, TableStage
from agents.runtime.supervision import StageCrashed, SupervisedTask
from agents.stages import registry
from agents.upkeep.retention import DAYS, Retention
from agents.upkeep.sweeper import Sweeper
from schemas.errors import Misconfigured, SettingsError, Unavailable
from sinks.ports.blobs import Store
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.operations import PostgresOperations
from sinks.postgres.reader import Reader

if TYPE_CHECKING:
    from sinks.blobs.fallback import FallbackStore
from agents.fleet.fleet import Fleet
from agents.fleet.http import listen, serve_http, url_of
from agents.fleet.servers import dsn_of, kafka_of, open_store

log = logging.getLogger(__name__)


#: Seconds that stopping may take, before what is still in flight is left to be delivered again.
STOP_S = 8.0


@contextlib.asynccontextmanager
async def running(settings: Settings, wanted: Sequence[str]) -> AsyncIterator[Fleet]:
    """Build the wanted roles, start them, and at the end stop them: what is in flight finishes or is handed back."""
    wanted = _roles(settings, wanted)
    kafka, dsn = kafka_of(settings), dsn_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(temporary_files())
        listening = stack.enter_context(listen(settings, must="track" in wanted))
        await migrate(dsn)
        try:
            ensured = await ensure(kafka, registry.layouts(kafka, settings.recognizers))
        except KafkaError as exc:
            raise Unavailable(f"Kafka at {kafka.bootstrap_servers} does not answer ({type(exc).__name__})") from exc
        if ensured.created:
            log.info("created %d topics", len(ensured.created))
        for fault in ensured.faults:
            log.warning("the topic %s %s: %s", fault.topic, fault.problem, fault.advice)
        pool = await connect_pool(dsn)
        database = Postgres(pool, shards=settings.relay_shards)
        stack.push_async_callback(database.close)
        operations = PostgresOperations(pool)
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
            url_of(settings, listening),
            operations,
            Skips(operations),
        )
        stack.push_async_callback(fleet.paid.close)
        await fleet.skips.refresh()
        PartitionRecords.skipped = fleet.skips
        committer = fleet.committer = Committer(database, fleet.metrics.abandoned)
        stack.push_async_callback(committer.close)
        await _add_stages(fleet, kafka, committer, stack)
        await serve_http(fleet, listening, stack)
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


def _roles(settings: Settings, wanted: Sequence[str]) -> tuple[str, ...]:
    """These roles, with the one that stands for all enrichments replaced by them.

    Raises:
        SettingsError: there is no such role.
    """
    every = registry.roles(settings.recognizers, settings.enrichments)
    kinds = [spec.name for spec in registry.stages((), settings.enrichments) if spec.enrichment]
    names = [one for role in wanted for one in (kinds if role == registry.ENRICHMENTS else [role])]
    if unknown := [role for role in names if role not in every]:
        there = ", ".join((*every, registry.ENRICHMENTS))
        raise SettingsError(f"no role {', '.join(unknown)}; there are {there}")
    return tuple(dict.fromkeys(names))


async def _answers(store: Store) -> None:
    """Raises SettingsError for a store that somebody has to set up; one that is away is waited for."""
    try:
        await store.check()
    except Misconfigured:
        raise
    except Unavailable as exc:
        log.warning("work that needs the store waits for it: %s", exc)


@contextlib.asynccontextmanager
async def _kept(parts: Sequence[SupervisedTask]) -> AsyncIterator[None]:
    """Keep the parts running, and at the end stop them, all at once."""
    tasks = [asyncio.create_task(part.supervise(), name=part.name) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _beside(fleet: Fleet, kafka: Kafka, dsn: str) -> list[SupervisedTask]:
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
            fleet.settings.enrichments,
        ).run
    if "relay" in fleet.roles:
        days = {**DAYS, "audit_log": fleet.settings.audit_days}
        runs["forgetting old rows"] = Retention(fleet.database, days).run
        keeper = TopicRepair(kafka, registry.layouts(kafka, fleet.settings.recognizers))
        runs["looking after topics"] = keeper.run
        # Rows of a shard beyond ours are there if CONCORD_RELAY_SHARDS was larger once; they too are published.
        shards = max(fleet.settings.relay_shards, await fleet.database.highest_shard() + 1)
        relay = partial(
            Relay,
            dsn,
            kafka,
            metrics=fleet.metrics,
            database=fleet.database,
            refusals=registry.refusals(),
            request_topic_check=keeper.request_check,
        )
        runs |= {f"relay {shard}": relay(shard=shard).run for shard in range(shards)}
    return [_part(fleet, name, partial(_run, run)) for name, run in runs.items()]


async def _run(run: Callable[[], Awaitable[None]], started: Callable[[], None]) -> None:
    started()
    await run()


def _part(fleet: Fleet, name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> SupervisedTask:
    return SupervisedTask(name, run, fleet.metrics.restarts.labels(name).inc)


#: A stage's app, with what runs its events and the table that it owns, if any.
_Built = tuple[faust.App, faust_binding.Driver | None, faust_binding.FaustTable | None]


async def _add_stages(fleet: Fleet, kafka: Kafka, committer: Committer, stack: contextlib.AsyncExitStack) -> None:
    backpressure = Backpressure()
    specs = {spec.name: spec for spec in registry.stages(fleet.settings.recognizers)}
    for role in fleet.stages:
        spec = specs[role]
        if spec.table is not None:
            build = partial(_build_table, fleet, kafka, committer, spec.table)
        else:
            stage = await spec.open(StageResources(role, fleet, backpressure, stack))
            build = partial(_build, fleet, kafka, committer, backpressure, stage)
        # Built the first time here, so that it is there when what is there is frozen.
        fleet.parts.append(_part(fleet, role, partial(_run_stage, fleet, role, chain([build()], iter(build, None)))))


def _build(fleet: Fleet, kafka: Kafka, committer: Committer, backpressure: Backpressure, stage: Stage) -> _Built:
    app = faust_binding.faust_app(stage.name, kafka, fleet.settings.data, **_membership(stage.name, fleet))
    driver = faust_binding.Driver(stage, committer, fleet.metrics, backpressure, fleet.skips)
    driver.attach(app)
    return app, driver, None


def _build_table(fleet: Fleet, kafka: Kafka, committer: Committer, stage: TableStage) -> _Built:
    more = _membership(stage.name, fleet)
    changed = fleet.feeds.publish
    app, table = faust_binding.table_app(
        stage, kafka, fleet.settings.data, committer, fleet.metrics, changed, fleet.skips, **more
    )
    return app, None, table


async def _run_stage(fleet: Fleet, role: str, built: Iterator[_Built], started: Callable[[], None]) -> None:
    """Run the stage's app until it fails; the next time it is another one."""
    app, driver, table = next(built)
    with contextlib.suppress(Unavailable):
        await fleet.skips.refresh()

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
    except StageCrashed as exc:
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


def _membership(role: str, fleet: Fleet) -> dict[str, Any]:
    """Static membership lets a restarted worker take its place back at once; it needs a name that no other worker
    has.
    """
    if not fleet.settings.instance:
        return {}
    return {"consumer_group_instance_id": f"{fleet.settings.instance}.{role}"}
