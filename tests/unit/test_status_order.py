"""A status never goes backwards, whichever workers are asked in whatever order, and whatever their tables have.

Requests are stepped by hand: between a worker's look at its table and PostgreSQL's answer anything may happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from schemas.errors import NotFound
from schemas.jobs.rows import Job
from schemas.jobs.status import status_of, status_version
from tests.examples import examples
from web.live.statuses import Statuses
from web.memory import MemoryJobs

BEGUN = datetime(2026, 5, 1, tzinfo=UTC)
KEY = ("acme", "j")
WORKERS = strategies.integers(0, 2)


def row(version, life=0):
    """The job's row; with each life it was deleted and made again."""
    at = BEGUN + timedelta(hours=life)
    named = {"tenant_id": KEY[0], "job_id": KEY[1], "filename": "a.wav", "audio_uri": "s3://b/a"}
    return Job(**named, version=version, created_at=at, updated_at=at + timedelta(seconds=version))


class Question:
    """Waits in a coroutine until PostgreSQL answers."""

    def __await__(self):
        return (yield self)


@dataclass
class PostgreSQL:
    """One job's row, as what has been committed."""

    job: Job | None = None

    async def status_version(self, *_):
        await Question()
        return status_version(status_of(self.job)) if self.job else None

    async def find(self, *_):
        await Question()
        return [self.job] if self.job else []

    async def job_of(self, *_):
        await Question()
        return self.job


class Reads:
    """`sinks.ports.reads.Reads` over it."""

    def __init__(self, database):
        self.status_version, self.find, self.job = database.status_version, database.find, database.job_of


@dataclass
class Request:
    """Somebody asks a worker; `before` is the newest that anybody had been shown by then."""

    steps: object
    before: tuple
    answer: object = None
    is_over: bool = False

    def go_on(self):
        try:
            self.steps.send(None)
        except StopIteration as end:
            self.answer, self.is_over = end.value, True
        except NotFound:
            self.is_over = True


@dataclass
class Worker:
    database: PostgreSQL
    table: MemoryJobs = field(default_factory=MemoryJobs)

    def __post_init__(self):
        self.statuses = Statuses(self.table, Reads(self.database))


class Fleet(RuleBasedStateMachine):
    """Three workers whose tables have any row that ever was, one job, and watchers and askers."""

    requests = Bundle("requests")

    @initialize()
    def begin(self):
        self.database = PostgreSQL()
        self.history = [None]
        self.workers = [Worker(self.database) for _ in range(3)]
        self.newest = (datetime.min.replace(tzinfo=UTC), 0)
        self.lives = -1
        self.broken = []
        self.coroutines = []

    @rule(what=strategies.integers(0, 9))
    def commit(self, what):
        """A step moves the job on; or it is deleted, and begins again."""
        if self.database.job is None:
            self.lives += 1
            self.database.job = row(1, self.lives)
        else:
            self.database.job = row(self.database.job.version + 1, self.lives) if what else None
        self.history.append(self.database.job)

    @rule(worker=WORKERS, age=strategies.integers(0, 3))
    def tabled(self, worker, age):
        """A worker's table takes a row: from Kafka, or an older one after a restart or a rebalance, or none."""
        job = self.history[max(len(self.history) - 1 - age, 0)]
        rows = self.workers[worker].table.rows
        if job is None:
            rows.clear()
        else:
            rows[KEY] = status_of(job)

    @rule(worker=WORKERS)
    def restart(self, worker):
        self.workers[worker] = Worker(self.database, self.workers[worker].table)

    @rule(worker=WORKERS)
    def ask(self, worker):
        """With nothing in between."""
        request = self.begun(worker)
        while not request.is_over:
            request.go_on()
        self.shown(request)

    @rule(target=requests, worker=WORKERS)
    def begin_to_ask(self, worker):
        return self.begun(worker)

    @rule(target=requests, worker=WORKERS)
    def begin_to_look_for_watchers(self, worker):
        return self.asking(self.workers[worker].statuses.newer(KEY, self.newest))

    @rule(target=requests, request=consumes(requests))
    def proceed(self, request):
        request.go_on()
        if not request.is_over:
            return request
        self.shown(request)
        return multiple()

    def begun(self, worker):
        return self.asking(self.workers[worker].statuses.newest(*KEY))

    def asking(self, coroutine):
        self.coroutines.append(coroutine)
        return Request(coroutine, self.newest)

    def shown(self, request):
        if request.answer is not None:
            shown = status_version(request.answer.status)
            if shown < request.before:
                self.broken.append(f"{shown} after {request.before}")
            self.newest = max(self.newest, shown)

    def teardown(self):
        for coroutine in self.coroutines:
            coroutine.close()

    @invariant()
    def never_backwards(self):
        assert getattr(self, "broken", []) == []


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=examples(100), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
