"""Every way out of `runtime.stage.step`: whatever a handler does, there is a step to commit, or a server is away."""

from __future__ import annotations

import asyncio
import errno
import time
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.stage import RETRIES, WAITS, Stage, backoff_s, step
from schemas import topics
from schemas.envelope import Record
from schemas.errors import InvalidInput, NotFound, ProviderError, RefusedMedia, Transient, Unavailable
from schemas.events.asr import AsrResult
from schemas.events.job import JobFailed
from schemas.jobs.outcome import NOTHING, Outcome
from sinks.blobs.local import LocalStore
from sinks.coalesce import Coalesce
from sinks.postgres.connection.errors import unavailable

RESULT = {"tenant_id": "t", "job_id": "j", "run": 2, "provider": "a", "status": "ok"}


def failing(stage_name: str = "reconcile"):
    from agents.runtime.stage import failed_job

    return lambda envelope, failure: failed_job(stage_name, envelope, failure)


def stage(handle, give_up=None, limit_s: float = 20.0) -> Stage:
    async def handled(envelope):
        return await handle() if asyncio.iscoroutinefunction(handle) else handle()

    return Stage("reconcile", (topics.RESULTS,), topics.RECONCILE_DUE, handled, give_up or failing(), limit_s)


def raising(exc: BaseException):
    def handle():
        raise exc

    return handle


def record(attempt: int = 0, waits: int = 0, headers=(), value: bytes | None = None) -> Record:
    counts = (("ce_attempt", b"%d" % attempt), ("ce_waits", b"%d" % waits), ("ce_type", b"asr.results"))
    return Record("reconcile.due", 1, 7, b"j", value or orjson.dumps(RESULT), (*counts, *headers))


def ended(outcome: Outcome) -> JobFailed:
    """The terminal event of an outcome that fails the run; there is exactly one."""
    [event] = [later.data for later in outcome.later if isinstance(later.data, JobFailed)]
    assert outcome.progress is not None
    assert (outcome.progress.status, outcome.progress.run, event.run) == ("failed", 2, 2)
    assert [m.topic for m, _ in outcome.raw] == ["reconcile.due.dlq"]
    return event


class Unspeakable(Exception):
    """Cannot even be described."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (InvalidInput("no"), "invalid_input"),
        (RefusedMedia("no\x00audio \ud83d" + "x" * 5000), "refused_media"),
        (ProviderError("\x1b[31mno"), "provider_refused"),
        (InvalidInput(), "invalid_input"),
    ],
)
async def test_what_is_final_ends_the_run_at_once(exc, code):
    done = await step(stage(raising(exc)), record())

    event = ended(done.outcome)
    assert event.code == code
    assert event.error.replace("\ufffd", "").replace("…", "").isprintable()
    assert 0 < len(event.error) <= 2000


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (Transient("busy \udc00"), "retries_exhausted"),
        (NotFound("gone"), "not_found"),
        (ValueError("a bug"), "internal_error"),
        (RecursionError("deep"), "internal_error"),
        (MemoryError(), "internal_error"),
        (asyncio.CancelledError(), "internal_error"),
        (ExceptionGroup("two", [ValueError(), KeyError()]), "internal_error"),
        (Unspeakable(), "internal_error"),
    ],
    ids=lambda p: type(p).__name__ if isinstance(p, BaseException) else "",
)
async def test_what_may_pass_comes_back_three_times_and_then_ends_the_run(exc, code):
    for attempt in range(RETRIES):
        done = await step(stage(raising(exc)), record(attempt))
        [(again, seconds)] = done.outcome.raw
        assert (again.topic, dict(again.headers)["ce_attempt"]) == ("reconcile.due", b"%d" % (attempt + 1))
        assert seconds >= 0.7 * 2**attempt

    assert ended((await step(stage(raising(exc)), record(RETRIES))).outcome).code == code


async def test_a_handler_that_is_late_comes_back_for_an_hour_without_that_being_a_try():
    async def slow():
        await asyncio.sleep(5)

    late = stage(slow, limit_s=0.01)
    done = await step(late, record(attempt=2, waits=1))
    [(again, _)] = done.outcome.raw
    headers = dict(again.headers)

    assert (headers["ce_attempt"], headers["ce_waits"]) == (b"2", b"2")
    assert sum(backoff_s(n) for n in range(WAITS)) > 1800
    assert ended((await step(late, record(waits=WAITS))).outcome).code == "stuck"


@pytest.mark.parametrize("away", [Unavailable("away"), ExceptionGroup("g", [ValueError(), Unavailable("away")])])
async def test_when_a_server_of_ours_is_unavailable_the_driver_sees_the_error(away):
    with pytest.raises(Unavailable, match="away"):
        await step(stage(raising(away)), record())


async def test_a_step_that_is_cancelled_ends():
    async def waits():
        await asyncio.sleep(60)

    task = asyncio.create_task(step(stage(waits), record()))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stage_that_fails_at_giving_up_still_ends_the_run():
    def broken(envelope, failure):
        raise KeyError(failure.code)

    done = await step(stage(raising(InvalidInput("no")), broken), record())

    assert ended(done.outcome).code == "invalid_input"


async def test_each_step_has_a_simpler_replacement_and_the_last_is_the_dead_letter_alone():
    first = await step(stage(lambda: NOTHING), record())
    refused = ValueError("numbers \ud800 out of range")
    given_up = first.otherwise(refused)
    bare = given_up.otherwise(refused)
    unlogged = bare.otherwise(refused)
    letter = unlogged.otherwise(refused)

    assert "numbers" in ended(given_up.outcome).error
    assert "numbers" not in ended(bare.outcome).error
    assert (bare.outcome.audit, unlogged.outcome.audit) == ("failed", "")
    assert ended(unlogged.outcome) == ended(bare.outcome)
    assert letter.outcome.job_id is None
    assert [m.topic for m, _ in letter.outcome.raw] == ["reconcile.due.dlq"]
    assert letter.otherwise is None
    assert {first.event_id, given_up.event_id, bare.event_id, letter.event_id} == {first.event_id}


@pytest.mark.parametrize(
    "origin", ["audio.uploaded/\u00b2/3", "audio.uploaded/1/" + "9" * 5000, "a\x00b/1/2", "///", "x/\u0663/1"]
)
async def test_an_origin_that_is_no_valid_position_is_ignored(origin):
    asked = record(headers=(("concord-origin", origin.encode()),), value=b"{}")
    done = await step(stage(lambda: NOTHING), asked)

    [(letter, _)] = done.outcome.raw
    assert letter.topic == "reconcile.due.dlq"


_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_source", "ce_type", "ce_attempt", "ce_replay", "concord-origin", "dlq-x", "x"]),
        st.none() | st.binary(max_size=40),
    ),
    max_size=6,
)


@given(st.none() | st.binary(max_size=200), _HEADERS)
def test_any_bytes_become_a_step(value, headers):
    anything = Record("asr.results", 0, 3, b"k", value, tuple(headers))
    done = asyncio.run(step(stage(lambda: NOTHING), anything))

    assert isinstance(done.event_id, UUID)
    assert done.outcome is NOTHING or done.outcome.raw


def test_our_own_events_take_any_text():
    nasty = "a\x00b\ud800c\x1b[31m" + "d" * 3000

    assert AsrResult(**RESULT, error=nasty).error.startswith("ab\ufffdc[31md")
    assert len(JobFailed(tenant_id="t", job_id="j", stage="s", error=nasty, attempts=1).error) == 2000


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE", "ENOMEM", "EIO", "EROFS"])
async def test_a_machine_of_ours_that_cannot_go_on_is_waited_for(number):
    with pytest.raises(Unavailable, match="this machine cannot go on now"):
        await step(stage(raising(OSError(getattr(errno, number), "said by the system"))), record(attempt=RETRIES))


async def test_another_error_of_the_system_is_a_bug():
    done = await step(stage(raising(OSError(errno.EBADF, "said by the system"))), record())

    assert done.outcome.error == "internal error: OSError"


@asynccontextmanager
async def slow_disk(tmp_path, seconds: float = 0.15):
    """A store each of whose calls waits for a disk that is busy with something else."""
    store = LocalStore(tmp_path, threads=1)
    blob = await store.put("t/j/a.json", b"{}", "application/json")

    async def get() -> bytes:
        async with asyncio.TaskGroup() as group:
            group.create_task(store._hop(time.sleep, seconds))
            await asyncio.sleep(0)
            return await group.create_task(store.get(blob.uri))

    yield get
    await store.close()


async def test_a_slow_store_of_ours_costs_an_event_neither_a_try_nor_a_wait(tmp_path):
    """Four calls, each shorter than the limit, together longer: at 7 s a call nothing would ever be persisted."""
    async with slow_disk(tmp_path) as get:

        async def handle():
            for _ in range(4):
                await get()
            return NOTHING

        done = await step(stage(handle, limit_s=0.3), record())
    assert done.outcome == NOTHING


async def test_a_slow_database_of_ours_costs_an_event_neither_a_try_nor_a_wait():
    async def ask(keys):
        with unavailable():
            await asyncio.sleep(0.15)
        return keys

    shared = Coalesce(ask)

    async def handle():
        await ask(["alone"])
        await asyncio.gather(*(shared(n) for n in range(3)))
        await shared(1)
        return NOTHING

    assert (await step(stage(handle, limit_s=0.2), record())).outcome == NOTHING


async def test_time_for_a_slow_store_does_not_count_towards_the_limit_of_other_servers(tmp_path):
    async with slow_disk(tmp_path) as get:

        async def handle():
            await get()
            await asyncio.sleep(0.1)
            await get()
            await asyncio.sleep(30)

        started = time.monotonic()
        done = await step(stage(handle, limit_s=0.2), record())
        took = time.monotonic() - started

    assert done.outcome.error == "not done within 0 s"
    assert 0.45 <= took < 10


async def test_work_that_goes_on_after_its_event_is_not_disturbed(tmp_path):
    tasks = []
    async with slow_disk(tmp_path) as get:

        async def handle():
            tasks.append(asyncio.create_task(get()))
            await asyncio.sleep(0.05)
            return NOTHING

        assert (await step(stage(handle, limit_s=0.3), record())).outcome == NOTHING
        assert await tasks[0] == b"{}"
