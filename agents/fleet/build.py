"""The composition root: builds a running fleet from its settings. Everything is constructed here, passed as arguments,
and closed in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ConsistencyError

from agents.fleet.conversations import agent_lists
from agents.fleet.fleet import Fleet
from agents.fleet.gauges import WORKER, observe
from agents.fleet.http import listen, open_accounts, serve_http, url_of
from agents.fleet.recognizers import ProviderCopies
from agents.fleet.resources import StageResources
from agents.fleet.schedules import scheduler
from agents.fleet.servers import dsn_of, kafka_of, open_store
from agents.fleet.settings import Settings
from agents.fleet.webhooks import send_webhooks
from agents.runtime import faust_binding
from agents.runtime.backpressure import Backpressure
from agents.runtime.failpoints import passing
from agents.runtime.group_commit import Committer
from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.group_positions import GroupPositions
from agents.runtime.kafka.record_batches import PartitionRecords
from agents.runtime.kafka.topic_layout import TopicRepair, ensure, retention_s
from agents.runtime.metrics import Metrics
from agents.runtime.outbox.relay import Relay
from agents.runtime.scratch import temporary_files
from agents.runtime.skips import Skips
from agents.runtime.stage import Stage, TableStage
from agents.runtime.supervision import StageCrashed, SupervisedTask
from agents.stages import registry
from agents.upkeep.deleting import Deleter
from agents.upkeep.earlier_transcripts import index_earlier_transcripts
from agents.upkeep.job_metadata import index_earlier_jobs
from agents.upkeep.job_retention import JobRetention, TenantRetentions
from agents.upkeep.retention import DAYS, Retention
from agents.upkeep.sweeper import Sweeper
from agents.webhooks.stored_secrets import encrypt_stored
from schemas.errors import Misconfigured, SettingsError, Unavailable
from schemas.topics import RELAY_POSITION
from sinks.ports.blobs import Store
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.operations import PostgresOperations
from sinks.postgres.reader import Reader

if TYPE_CHECKING:
    from sinks.blobs.fallback import FallbackStore

log = logging.getLogger(__name__)


#: Seconds that stopping may take. Events that are still handled after that are delivered again.
STOP_S = 8.0

#: By name, what a worker runs in the background; none of them returns.
_Background = dict[str, Callable[[], Awaitable[None]]]


@contextlib.asynccontextmanager
async def running(settings: Settings, roles: Sequence[str]) -> AsyncIterator[Fleet]:
    """Build and start the roles; stop them at the end. Events that are being handled then are completed, or are
    delivered again to another worker.

    Raises:
        SettingsError: A role does not exist, or a setting that one of them needs is missing or invalid.
        Unavailable: Kafka or PostgreSQL does not answer.
    """
    roles = _resolved(settings, roles)
    kafka, dsn = kafka_of(settings), dsn_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(temporary_files())
        listening = stack.enter_context(listen(settings, must="track" in roles))
        await migrate(dsn)
        await _ensure_topics(kafka, settings)
        fleet = await _open_fleet(settings, roles, dsn, listening, stack)
        await _add_stages(fleet, kafka, stack)
        await serve_http(fleet, listening, stack)
        # Freeze what exists by now, so that garbage collections do not visit it again, which took 100 ms each. Not
        # later than here, because Faust relies on a collection to close the files of tables.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        async with _supervised(fleet.tasks):
            # A stage that fails at its start is retried; the other stages do not wait for it.
            await asyncio.gather(*(task.begun.wait() for task in fleet.tasks))
            background = [_task(fleet, *item) for item in (await _background(fleet, kafka, dsn, stack)).items()]
            fleet.tasks += background
            async with _supervised(background):
                yield fleet


def _resolved(settings: Settings, roles: Sequence[str]) -> tuple[str, ...]:
    """The roles, where the role that stands for all enrichments is replaced by them.

    Raises:
        SettingsError: There is no such role.
    """
    existing = registry.roles(settings.recognizers, settings.kinds)
    kinds = [spec.name for spec in registry.stages((), settings.kinds) if spec.enrichment]
    names = [name for role in roles for name in (kinds if role == registry.ENRICHMENTS else [role])]
    if disabled := [role for role in names if role in registry.enrichments() and role not in existing]:
        raise SettingsError(f"the role {', '.join(disabled)} makes nothing: CONCORD_ENRICHMENTS does not name it")
    if unknown := [role for role in names if role not in existing]:
        raise SettingsError(f"no role {', '.join(unknown)}; there are {', '.join((*existing, registry.ENRICHMENTS))}")
    return tuple(dict.fromkeys(names))


async def _ensure_topics(kafka: Kafka, settings: Settings) -> None:
    """Create missing topics, and log what is wrong with the others. Raises `Unavailable`."""
    try:
        ensured = await ensure(kafka, registry.layouts(kafka, settings.recognizers))
    except KafkaError as exc:
        raise Unavailable(f"Kafka at {kafka.bootstrap_servers} does not answer ({type(exc).__name__})") from exc
    if ensured.created:
        log.info("created %d topics", len(ensured.created))
    for fault in ensured.faults:
        log.warning("the topic %s %s: %s", fault.topic, fault.problem, fault.advice)


async def _open_fleet(
    settings: Settings, roles: tuple[str, ...], dsn: str, listening: socket.socket, stack: contextlib.AsyncExitStack
) -> Fleet:
    """The fleet without stages: its database, its store, its committer, and the records to be skipped."""
    pool = await connect_pool(dsn)
    database = Postgres(pool, shards=settings.relay_shards)
    stack.push_async_callback(database.close)
    if encrypted := await encrypt_stored(database, settings.seals):
        log.info("encrypted %d secrets of webhooks", encrypted)
    operations = PostgresOperations(pool)
    store = open_store(settings)
    stack.push_async_callback(store.close)
    await _check_store(store)
    # A separate pool, so that queries over HTTP never keep a stage waiting for a connection.
    reading = await connect_pool(dsn)
    stack.callback(reading.terminate)
    metrics, url = Metrics(settings.prices), url_of(settings, listening)
    committer = Committer(database, metrics.abandoned)
    fleet = Fleet(
        settings, roles, metrics, database, store, Reader(reading), url, operations, Skips(operations), committer
    )
    open_accounts(fleet, Postgres(reading), dsn)
    stack.push_async_callback(fleet.paid.close)
    await fleet.skips.refresh()
    PartitionRecords.skipped = fleet.skips
    stack.push_async_callback(committer.close)
    return fleet


async def _check_store(store: Store) -> None:
    """Check that the store can be used; if it is away, events that need it wait.

    Raises:
        Misconfigured: The store has to be set up by an operator first.
    """
    try:
        await store.check()
    except Misconfigured:
        raise
    except Unavailable as exc:
        log.warning("work that needs the store waits for it: %s", exc)


@contextlib.asynccontextmanager
async def _supervised(tasks: Sequence[SupervisedTask]) -> AsyncIterator[None]:
    """Run the tasks under supervision, and cancel them all at the end."""
    supervisors = [asyncio.create_task(task.supervise(), name=task.name) for task in tasks]
    try:
        yield
    finally:
        for supervisor in supervisors:
            supervisor.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)


async def _background(fleet: Fleet, kafka: Kafka, dsn: str, stack: contextlib.AsyncExitStack) -> _Background:
    """What this worker runs besides its stages. `stack` closes what that needs."""
    background: _Background = {
        "observing": partial(observe, fleet),
        "looking for skips": fleet.skips.run,
        **fleet.background,
    }
    if fleet.settings.storage_fallback:
        background["moving blobs"] = cast("FallbackStore", fleet.store).move
    if registry.WEBHOOKS in fleet.roles:
        background["sending webhooks"] = partial(send_webhooks, fleet)
    if registry.RELAY in fleet.roles:
        repair = TopicRepair(kafka, registry.layouts(kafka, fleet.settings.recognizers))
        copies = ProviderCopies(fleet.settings)
        stack.push_async_callback(copies.close)
        background |= _upkeep(fleet, kafka, copies, stack) | {"looking after topics": repair.run}
        background |= await _relays(fleet, kafka, dsn, repair) | agent_lists(fleet, stack)
    for limiter in fleet.limiters:  # those of the looks at lists, too
        report = partial(fleet.metrics.traffic, limiter.provider)
        background[f"limits of {limiter.provider}"] = partial(limiter.run, report)
    return background


def _upkeep(fleet: Fleet, kafka: Kafka, copies: ProviderCopies, stack: contextlib.AsyncExitStack) -> _Background:
    sweeper = Sweeper(
        fleet.database,
        fleet.database,
        fleet.committer,
        fleet.store,
        GroupPositions(kafka),
        fleet.settings.recognizers,
        fleet.settings.deadline_s,
        WORKER,
        fleet.settings.kinds,
    )
    days = {**DAYS, "audit_log": fleet.settings.audit_days, "usage": fleet.settings.usage_days}
    return {
        "sweeping": sweeper.run,
        "sweeping blobs": sweeper.run_blobs,
        "forgetting old rows": Retention(fleet.database, days).run,
        "indexing earlier jobs": partial(index_earlier_jobs, fleet.database),
        "indexing earlier transcripts": partial(index_earlier_transcripts, fleet.database, fleet.settings.enrichments),
        "deleting jobs": _deleter(fleet, kafka, copies).run,
        "carrying out schedules": scheduler(fleet, stack).run,
        "deleting expired jobs": JobRetention(fleet.database, _retentions(fleet), WORKER).run,
    }


def _retentions(fleet: Fleet) -> TenantRetentions:
    settings = fleet.settings
    return TenantRetentions(fleet.accounts, settings.conversation_files_days, settings.conversation_failed_days)


def _deleter(fleet: Fleet, kafka: Kafka, copies: ProviderCopies) -> Deleter:
    layouts = [one for one in registry.layouts(kafka, fleet.settings.recognizers) if one.name != RELAY_POSITION]

    async def retention() -> dict[str, float | None]:
        try:
            return await retention_s(kafka, layouts)
        except (KafkaError, TimeoutError, OSError) as exc:
            raise Unavailable(f"Kafka does not tell for how long it keeps events ({type(exc).__name__})") from exc

    return Deleter(fleet.database, fleet.store, copies, retention, passing)


async def _relays(fleet: Fleet, kafka: Kafka, dsn: str, repair: TopicRepair) -> _Background:
    """One relay per shard, including shards of an earlier, larger CONCORD_RELAY_SHARDS whose rows are unpublished."""
    shards = max(fleet.settings.relay_shards, await fleet.database.highest_shard() + 1)
    relay = partial(
        Relay,
        dsn,
        kafka,
        metrics=fleet.metrics,
        database=fleet.database,
        refusals=registry.refusals(),
        request_topic_check=repair.request_check,
    )
    return {f"relay {shard}": relay(shard=shard).run for shard in range(shards)}


def _task(fleet: Fleet, name: str, run: Callable[[], Awaitable[None]]) -> SupervisedTask:
    async def start(started: Callable[[], None]) -> None:
        started()
        await run()

    return _supervised_task(fleet, name, start)


def _supervised_task(fleet: Fleet, name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> SupervisedTask:
    return SupervisedTask(name, run, fleet.metrics.restarts.labels(name).inc)


#: A stage's app, with the driver of its events or the table that it keeps.
_StageApp = tuple[faust.App, faust_binding.Driver | None, faust_binding.FaustTable | None]


async def _add_stages(fleet: Fleet, kafka: Kafka, stack: contextlib.AsyncExitStack) -> None:
    backpressure = Backpressure()
    specs = {spec.name: spec for spec in registry.stages(fleet.settings.recognizers)}
    for role in fleet.stages:
        spec = specs[role]
        if spec.table is not None:
            build = partial(_build_table, fleet, kafka, spec.table)
        else:
            stage = await spec.open(StageResources(role, fleet, backpressure, stack))
            build = partial(_build, fleet, kafka, backpressure, stage)
        # The first app is built here, so that it exists when existing objects are frozen.
        apps = chain([build()], iter(build, None))
        fleet.tasks.append(_supervised_task(fleet, role, partial(_run_stage, fleet, role, apps)))


def _build(fleet: Fleet, kafka: Kafka, backpressure: Backpressure, stage: Stage) -> _StageApp:
    app = faust_binding.faust_app(stage.name, kafka, fleet.settings.data, **_membership(stage.name, fleet))
    driver = faust_binding.Driver(stage, fleet.committer, fleet.metrics, backpressure, fleet.skips)
    driver.attach(app)
    return app, driver, None


def _build_table(fleet: Fleet, kafka: Kafka, stage: TableStage) -> _StageApp:
    app, table = faust_binding.table_app(
        stage,
        kafka,
        fleet.settings.data,
        fleet.committer,
        fleet.metrics,
        fleet.feeds.publish,
        fleet.skips,
        **_membership(stage.name, fleet),
    )
    return app, None, table


async def _run_stage(fleet: Fleet, role: str, apps: Iterator[_StageApp], started: Callable[[], None]) -> None:
    """Run the stage's next app until it fails; a failed app cannot be started again."""
    app, driver, table = next(apps)
    with contextlib.suppress(Unavailable):
        await fleet.skips.refresh()

    def register() -> None:
        fleet.apps[role] = app
        if driver is not None:
            fleet.drivers[role] = driver
        if table is not None:
            fleet.table.use(table)
        started()

    has_stale_files = False
    try:
        await faust_binding.run_app(app, register, STOP_S)
    except StageCrashed as exc:
        has_stale_files = table is not None and isinstance(exc.__cause__, ConsistencyError)
        raise
    finally:
        fleet.apps.pop(role, None)
        fleet.drivers.pop(role, None)
        if driver is not None:
            await driver.close()
        if table is not None:
            fleet.table.use(None)
            table.close()
        if has_stale_files:
            # Kafka was replaced or restored, and is older than the files. PostgreSQL has all that they contain.
            log.warning("the files of %s's table are newer than its changelog: they are removed and read anew", role)
            await asyncio.to_thread(shutil.rmtree, fleet.settings.data / "tables" / role, ignore_errors=True)


def _membership(role: str, fleet: Fleet) -> dict[str, Any]:
    """Static membership: a restarted worker gets its former partitions at once. It requires a name that no other worker
    has.
    """
    if not fleet.settings.instance:
        return {}
    return {"consumer_group_instance_id": f"{fleet.settings.instance}.{role}"}
