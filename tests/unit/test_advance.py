"""The job's state machine as a table: what each kind of outcome makes of a job in each status."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from schemas import topics
from schemas.events.asr import AsrRequest
from schemas.events.job import Persisted, StepState
from schemas.jobs.outcome import Failure, Later, Outcome, Progress, RequestChange, Step, end_of_failed, failed_upload
from schemas.jobs.rows import TERMINAL, Job, ProviderRequest
from schemas.jobs.transitions import Rows, advance
from schemas.messages import Message

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WHOSE = {"tenant_id": "t", "job_id": "j"}
JOB = Job(**WHOSE, filename="a.wav", audio_uri="file:///a.wav", version=7)
RAW = Message(uuid4(), "asr.results.dlq", b"j", b"{}", ())

#: Status to what follows by each kind of outcome; "-" where it changes nothing.
TABLE = """
             create   refused  begin         transcribing reconciling persisting completed failed step         answer      deadline    poll
none         uploaded failed   -             -            -           -          -         -      -            -           -           -
uploaded     -        -        -             transcribing reconciling persisting completed failed uploaded     -           uploaded    uploaded
transcribing -        -        -             transcribing reconciling persisting completed failed transcribing reconciling reconciling transcribing
reconciling  -        -        -             -            reconciling persisting completed failed reconciling  -           reconciling reconciling
persisting   -        -        -             -            -           persisting completed failed persisting   -           persisting  persisting
completed    -        -        transcribing  -            -           -          -         -      -            -           -           completed
failed       -        -        transcribing  -            -           -          -         -      -            -           -           failed
"""  # noqa: E501
KINDS, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CASES = [(status, kind, after) for status, *row in ROWS for kind, after in zip(KINDS, row, strict=True)]


def request(state: str, run: int = 1) -> ProviderRequest:
    return ProviderRequest(**WHOSE, run=run, provider="a", state=state, token=3)


def rows(status: str) -> Rows:
    if status == "none":
        return Rows(None, {})
    states = {"uploaded": (), "transcribing": ("submitted",)}.get(status, ("done",))
    return Rows(replace(JOB, status=status), {row.provider: row for row in map(request, states)})


def moved(status: str) -> Outcome:
    """What a stage does to bring a job there, with the terminal event if that is one."""
    progress = Progress(run=1, status=status, stage="x", step=StepState(state="done"))
    done = Persisted(
        **WHOSE, raw_transcript_uri="s3://a/b", agent_optimized_uri="s3://a/c", word_count=1, duration_seconds=1,
        completed_at=NOW,
    )  # fmt: skip
    later = (Later(topics.PERSISTED.name, done),) if status == "completed" else ()
    return Outcome(**WHOSE, progress=progress, later=later)


def outcome(kind: str) -> Outcome:
    match kind:
        case "create":
            return Outcome(**WHOSE, create=JOB)
        case "refused":
            return failed_upload(JOB, "intake", Failure("no", "malformed_event"))
        case "begin":
            begun = replace(JOB, run=2, status="transcribing")
            return Outcome(**WHOSE, begin=begun, new_requests=(request("waiting", 2),))
        case "failed":
            return replace(moved("failed"), later=end_of_failed(JOB, "x", Failure("no")))
        case "step":
            progress = Progress(run=1, stage="x", step=StepState(state="retrying", attempts=2))
            return Outcome(**WHOSE, progress=progress)
        case "answer":
            return Outcome(**WHOSE, request=RequestChange(run=1, provider="a", token=3, columns={"state": "done"}))
        case "deadline":
            return Outcome(**WHOSE, run=1, give_up="late")
        case "poll":
            asked = AsrRequest(**WHOSE, provider="a", audio_uri="file:///a.wav")
            return Outcome(**WHOSE, later=(Later("asr.requests.a", asked, 5.0),))
    return moved(kind)


def ends(written) -> list[str]:
    return [m.topic for m, _ in written.messages if m.topic in (topics.PERSISTED.name, topics.FAILED.name)]


@pytest.mark.parametrize(("status", "kind", "after"), CASES)
def test_what_follows(status, kind, after):
    before = rows(status).job
    now = rows(status)
    written = advance(Step("x", uuid4(), replace(outcome(kind), raw=((RAW, 0.0),))), now, NOW)

    changed = now.job != before
    assert written.applied == (after != "-")
    assert (now.job.status if now.job else "none") == (status if after == "-" else after)
    # A run ends once, with one terminal event, and only with a change; its dead letters are never lost.
    assert len(ends(written)) == (after in TERMINAL and status != after)
    assert written.messages[0][0] is RAW
    # Whoever follows is told of each change, by a version of its own.
    assert sum(m.topic == topics.STATUS.name for m, _ in written.messages) == changed
    if changed:
        assert now.job.version == (before.version + 1 if before else 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"create", "refused", "begin", "poll"}])
@pytest.mark.parametrize("status", ["uploaded", "transcribing", "reconciling", "persisting", "completed"])
def test_what_is_about_an_earlier_run_changes_nothing(status, kind):
    now = rows(status)
    now.job = replace(now.job, run=2)
    now.requests = {name: replace(row, run=2) for name, row in now.requests.items()}
    before = now.job
    written = advance(Step("x", uuid4(), outcome(kind)), now, NOW)

    assert not written.applied
    assert now.job == before
    assert written.messages == []


@pytest.mark.parametrize(("run", "unknown"), [(1, False), (2, False), (3, True)])
def test_what_is_about_a_later_run_is_not_done(run, unknown):
    now = rows("transcribing")
    now.job = replace(now.job, run=2)
    written = advance(Step("x", uuid4(), Outcome(**WHOSE, progress=Progress(run=run, status="failed"))), now, NOW)

    assert written.forgotten == unknown


@pytest.mark.parametrize(("token", "fenced"), [(2, True), (3, False), (None, False)])
def test_only_the_newest_claim_may_write(token, fenced):
    now = rows("transcribing")
    change = RequestChange(run=1, provider="a", token=token, columns={"state": "done"})
    written = advance(Step("x", uuid4(), Outcome(**WHOSE, request=change)), now, NOW)

    assert (written.applied, written.forgotten) == (not fenced, fenced)


def test_a_request_is_submitted_when_that_is_stored():
    now = rows("transcribing")
    now.requests["a"] = request("intended")
    change = RequestChange(run=1, provider="a", token=3, columns={"state": "submitted", "provider_id": "p"})
    advance(Step("x", uuid4(), Outcome(**WHOSE, request=change)), now, NOW)

    assert now.requests["a"].submitted_at == NOW
