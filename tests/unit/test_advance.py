"""The state machine of a job as a table: what each kind of outcome makes of a job in each state.

A rule of `schemas.jobs.transitions` that changes fails here with the name of the outcome (the test's id) and, in the
comparison, the states of the job whose cells differ.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from schemas import topics
from schemas.events.asr import AsrRequest
from schemas.events.job import JobReprocess, Persisted, StepState
from schemas.jobs.outcome import Failure, Later, Outcome, Progress, RequestChange, Step, end_of_failed, failed_upload
from schemas.jobs.rows import TERMINAL, Job, ProviderRequest, Usage
from schemas.jobs.transitions import Rows, Written, advance
from schemas.messages import Message

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WHOSE = {"tenant_id": "t", "job_id": "j"}
#: The job of the table is in its second run, so that there are outcomes of an earlier and of a later one.
RUN, VERSION, TOKEN = 2, 7, 3
JOB = Job(**WHOSE, filename="a.wav", audio_uri="file:///a.wav", run=RUN, version=VERSION)
RAW = Message(uuid4(), "asr.results.dlq", b"j", b"{}", ())
USAGE = Usage(**WHOSE, run=RUN, provider="a", unit="requests", ref="r", quantity=1.0)
ENDS = (topics.PERSISTED.name, topics.FAILED.name)

#: States of the job: "none" is no row; in "transcribing" recognizers a and b have not answered, in "last" only a has
#: not; otherwise the name of the status.
#: Cells: "-" not applied, and the event is done; "?" not applied, and the event may come again; "=" applied, and the
#: job's row stays as it is; a status: applied, and the job's row is another, with that status. "+1": so many results
#: of recognizers are announced. "!": the terminal event of the run is published.
TABLE = """
outcome                none      uploaded      transcribing   last           reconciling  persisting  completed     failed
create                 uploaded  -             -              -              -            -           -             -
create_failed          failed!   -             -              -              -            -           -             -
create_large           failed!   -             -              -              -            -           -             -
begin_same_run         ?         -             -              -              -            -           -             -
begin_next_run         ?         -             -              -              -            -           transcribing  transcribing
begin_failed           ?         -             -              -              -            -           failed!       failed!
begin_run_after_next   ?         -             -              -              -            -           -             -
to_uploaded            ?         uploaded      -              -              -            -           -             -
to_transcribing        ?         transcribing  transcribing   transcribing   -            -           -             -
to_reconciling         ?         reconciling   reconciling    reconciling    reconciling  -           -             -
to_persisting          ?         persisting    persisting     persisting     persisting   persisting  -             -
to_completed           ?         completed!    completed!     completed!     completed!   completed!  -             -
to_failed              ?         failed!       failed!        failed!        failed!      failed!     -             -
new_requests           ?         transcribing  -              -              -            -           -             -
retrying               ?         uploaded      transcribing   transcribing   reconciling  persisting  -             -
columns                ?         uploaded      transcribing   transcribing   reconciling  persisting  -             -
same_columns           ?         =             =              =              =            =           -             -
answer                 ?         -             transcribing+1 reconciling+1  -            -           -             -
answer_failed          ?         -             transcribing+1 reconciling+1  -            -           -             -
answer_without_token   ?         -             transcribing+1 reconciling+1  -            -           -             -
answer_older_token     ?         -             ?              ?              -            -           -             -
answer_newer_token     ?         -             -              -              -            -           -             -
answer_not_asked       ?         -             -              -              -            -           -             -
submitted              ?         -             =              =              -            -           -             -
deadline               ?         =             reconciling+2  reconciling+1  =            =           -             -
poll                   ?         =             =              =              =            =           =             =
poll_of_run            ?         =             =              =              =            =           -             -
poll_large             ?         failed!       failed!        failed!        failed!      failed!     -             -
answer_large           ?         -             failed!        failed!        -            -           -             -
usage                  ?         =             =              =              =            =           =             =
usage_of_run           ?         =             =              =              =            =           -             -
"""  # noqa: E501
STATES, *LINES = [line.split() for line in TABLE.strip().splitlines()]
CELLS = {kind: dict(zip(STATES[1:], cells, strict=True)) for kind, *cells in LINES}
MAKES_RUN = {kind for kind in CELLS if kind.startswith(("create", "begin"))}
#: Outcomes that name the run that they are about.
OF_RUN = sorted(CELLS.keys() - MAKES_RUN - {"poll", "poll_large", "usage"})


def request(provider: str, state: str, run: int = RUN) -> ProviderRequest:
    return ProviderRequest(**WHOSE, run=run, provider=provider, state=state, token=TOKEN)


def rows(state: str) -> Rows:
    """The rows of a job in this state."""
    if state == "none":
        return Rows(None, {})
    requests = {
        "uploaded": (),
        "transcribing": (request("a", "submitted"), request("b", "waiting")),
        "last": (request("a", "submitted"), request("b", "done")),
    }.get(state, (request("a", "done"), request("b", "failed")))
    status = "transcribing" if state == "last" else state
    return Rows(replace(JOB, status=status), {row.provider: row for row in requests})


def asked(provider: str = "a", chars: int = 0) -> Later:
    """A look at a request in 5 s, as an event with so many characters more than it needs."""
    event = AsrRequest.model_construct(**WHOSE, run=RUN, provider=provider, audio_uri="file:///a" + "x" * chars)
    return Later(topics.requests(provider).name, event, 5.0)


def moved(status: str, run: int) -> Outcome:
    """What a stage does to bring a job there, with the terminal event if that is one."""
    if status == "failed":
        return Outcome(
            **WHOSE,
            progress=Progress(run=run, status="failed", stage="x", step=StepState(state="failed"), reason="no"),
            later=end_of_failed(replace(JOB, run=run), "x", Failure("no")),
        )
    done = Persisted(
        **WHOSE, run=run, raw_transcript_uri="s3://a/b", agent_optimized_uri="s3://a/c", word_count=1,
        duration_seconds=1, completed_at=NOW,
    )  # fmt: skip
    progress = Progress(run=run, status=status, stage="x", step=StepState(state="done"))
    later = (Later(topics.PERSISTED.name, done),) if status == "completed" else ()
    return Outcome(**WHOSE, progress=progress, later=later)


def begun(run: int) -> Outcome:
    """A run with other recognizers than the run before, of which c has answered in it already."""
    requests = (request("a", "waiting", run), request("c", "done", run), request("d", "waiting", run))
    return Outcome(**WHOSE, begin=replace(JOB, run=run, version=1, status="transcribing"), new_requests=requests)


def changed(run: int, token: int | None = TOKEN, provider: str = "a", **columns) -> Outcome:
    change = RequestChange(run=run, provider=provider, token=token, columns={"state": "done"} | columns)
    return Outcome(**WHOSE, request=change)


def outcome(kind: str, run: int = RUN) -> Outcome:
    """An outcome of this kind about this run."""
    large = Later(topics.RECONCILED.name, JobReprocess.model_construct(**WHOSE, run=run, reason="x" * 2_000_000))
    upload = replace(JOB, run=1, version=1)
    kinds = {
        "create": lambda: Outcome(**WHOSE, create=upload),
        "create_failed": lambda: failed_upload(upload, "intake", Failure("no", "malformed_event")),
        "create_large": lambda: Outcome(**WHOSE, create=upload, later=(large,)),
        "begin_same_run": lambda: begun(run),
        "begin_next_run": lambda: begun(run + 1),
        "begin_run_after_next": lambda: begun(run + 2),
        "begin_failed": lambda: Outcome(
            **WHOSE,
            begin=replace(JOB, run=run + 1, status="failed"),
            later=end_of_failed(replace(JOB, run=run + 1), "x", Failure("no")),
        ),
        "new_requests": lambda: replace(
            moved("transcribing", run), new_requests=tuple(request(name, "waiting", run) for name in "ab")
        ),
        "retrying": lambda: Outcome(
            **WHOSE, progress=Progress(run=run, stage="x", step=StepState(state="retrying", attempts=2))
        ),
        "columns": lambda: Outcome(**WHOSE, progress=Progress(run=run, columns={"duration_ms": 5000})),
        "same_columns": lambda: Outcome(**WHOSE, progress=Progress(run=run, columns={"priority": JOB.priority})),
        "answer": lambda: changed(run),
        "answer_failed": lambda: changed(run, state="failed", error="no speech"),
        "answer_without_token": lambda: changed(run, None),
        "answer_older_token": lambda: changed(run, TOKEN - 1),
        "answer_newer_token": lambda: changed(run, TOKEN + 1),
        "answer_not_asked": lambda: changed(run, provider="c"),
        "answer_large": lambda: replace(changed(run), later=(large,)),
        "submitted": lambda: changed(run, state="submitted", provider_id="p"),
        "deadline": lambda: Outcome(**WHOSE, run=run, give_up="too late"),
        "poll": lambda: Outcome(**WHOSE, later=(asked(),)),
        "poll_of_run": lambda: Outcome(**WHOSE, run=run, later=(asked(),)),
        "poll_large": lambda: Outcome(**WHOSE, later=(large,)),
        "usage": lambda: Outcome(**WHOSE, usage=(USAGE,)),
        "usage_of_run": lambda: Outcome(**WHOSE, run=run, usage=(USAGE,)),
    }
    return kinds[kind]() if kind in kinds else moved(kind.removeprefix("to_"), run)


def applied(one: Outcome, state: str) -> tuple[Rows, Written]:
    here = rows(state)
    return here, advance(Step("x", uuid4(), one), here, NOW)


def cell(one: Outcome, state: str) -> str:
    """What the outcome comes to, in the notation of the table; what holds of every cell is checked here."""
    before, (after, written) = rows(state), applied(one, state)
    sent = [message.topic for message, _ in written.messages]
    ends, results = sum(map(sent.count, ENDS)), sent.count(topics.RESULTS.name)
    if not written.applied:
        assert (after, sent) == (before, []), "what is not applied writes nothing"
        assert written == Written(applied=False, forgotten=written.forgotten)
        return "?" if written.forgotten else "-"
    assert written.usage == one.usage
    assert sent.count(topics.STATUS.name) == (after.job != before.job), "each change of the row is announced, once"
    if after.job == before.job:
        assert ends == results == 0
        return "="
    assert after.job.version == (before.job.version + 1 if before.job else 1)
    assert not after.job.ended or all(row.ended for row in after.requests.values()), "no request outlives its run"
    assert all(row.run == after.job.run for row in after.requests.values()), "a run has requests of its own"
    assert ends <= (after.job.status in TERMINAL), "a terminal event is that of a run that ends"
    return after.job.status + (f"+{results}" if results else "") + "!" * ends


def test_the_table_names_every_state():
    assert STATES[1:] == [
        "none",
        "uploaded",
        "transcribing",
        "last",
        "reconciling",
        "persisting",
        "completed",
        "failed",
    ]


@pytest.mark.parametrize("kind", CELLS)
def test_what_an_outcome_makes_of_a_job_in_each_state(kind):
    assert {state: cell(outcome(kind), state) for state in STATES[1:]} == CELLS[kind]


@pytest.mark.parametrize("kind", OF_RUN)
def test_an_outcome_about_an_earlier_run_is_done_and_one_about_a_later_run_comes_again(kind):
    earlier = {state: cell(outcome(kind, RUN - 1), state) for state in STATES[1:]}
    later = {state: cell(outcome(kind, RUN + 1), state) for state in STATES[1:]}

    assert earlier == dict.fromkeys(STATES[1:], "-") | {"none": "?"}
    assert later == dict.fromkeys(STATES[1:], "?")


@pytest.mark.parametrize("kind", CELLS)
def test_dead_letters_and_retries_are_published_whether_the_rest_is_applied_or_not(kind):
    """What is published all the same is not published again, so the event does not come again for it."""
    for state in STATES[1:]:
        _, alone = applied(outcome(kind), state)
        _, written = applied(replace(outcome(kind), raw=((RAW, 7.0),)), state)
        topics_sent = [message.topic for message, _ in written.messages]

        assert written.messages[0] == (RAW, 7.0), state
        assert topics_sent[1:] == [message.topic for message, _ in alone.messages], state
        assert written.applied == alone.applied, state
        assert not written.forgotten or kind == "answer_older_token", state


def test_a_run_begins_with_the_steps_of_its_recognizers_and_keeps_what_belongs_to_the_job():
    created = datetime(2025, 12, 1, tzinfo=UTC)
    here = Rows(replace(JOB, status="failed", created_at=created), {})
    advance(Step("x", uuid4(), begun(RUN + 1)), here, NOW)

    assert (here.job.version, here.job.created_at) == (VERSION + 1, created)
    assert {name: state.state for name, state in here.job.steps.items()} == {
        "transcribe.a": "waiting",
        "transcribe.c": "done",
        "transcribe.d": "waiting",
    }


def test_an_ended_job_takes_no_answer_even_if_a_request_was_left_open():
    here = Rows(replace(JOB, status="failed"), {"a": request("a", "submitted")})
    written = advance(Step("x", uuid4(), changed(RUN)), here, NOW)

    assert written == Written(applied=False)


@pytest.mark.parametrize("progress", ["persisting", "failed"])
def test_the_last_answer_takes_no_job_back_from_where_its_own_step_brings_it(progress):
    here = rows("last")
    advance(Step("x", uuid4(), replace(outcome("answer"), progress=moved(progress, RUN).progress)), here, NOW)

    assert here.job.status == progress


@pytest.mark.parametrize("kind", ["to_completed", "to_failed"])
def test_the_terminal_event_of_a_run_has_the_same_id_whatever_step_makes_it(kind):
    ids = {
        message.id
        for _ in range(2)
        for message, _ in applied(outcome(kind), "persisting")[1].messages
        if message.topic in ENDS
    }

    assert len(ids) == 1


def test_an_outcome_about_no_job_publishes_and_changes_nothing():
    one = Outcome(raw=((RAW, 0.0),), later=(asked(),))
    for state in STATES[1:]:
        here, written = applied(one, state)

        assert here == rows(state)
        assert written.applied
        assert [message.topic for message, _ in written.messages] == [RAW.topic, "asr.requests.a"]


@pytest.mark.parametrize("refusal", [None, "refused"])
def test_a_job_whose_reference_another_job_has_is_not_created(refusal):
    """Instead, `taken` is applied, if the outcome has it: to the same rows, beside what is published anyway."""
    taken = refusal and failed_upload(replace(JOB, run=1, job_id="other"), "intake", Failure("no"))
    one = Outcome(**WHOSE, create=replace(JOB, reference="r"), raw=((RAW, 0.0),), taken=taken)
    here = Rows(None, {}, namesake=replace(JOB, job_id="first", reference="r"))
    written = advance(Step("x", uuid4(), one), here, NOW)

    assert written.messages[0][0] is RAW
    if taken is None:
        assert (here.job, written.applied, len(written.messages)) == (None, False, 1)
    else:
        assert (here.job.job_id, here.job.status, written.applied) == ("other", "failed", True)
        assert [message.topic for message, _ in written.messages].count(topics.FAILED.name) == 1


#: What becomes of a request's row in each state. "-" the change is not applied; otherwise the state after it, with the
#: times that it sets: "s" submitted_at, "f" finished_at, "a" abandoned_at.
REQUESTS = """
outcome    waiting      intended     parked       submitted    done    failed
submitted  submitted/s  submitted/s  submitted/s  submitted    -       -
intended   intended     intended     intended     intended     -       -
parked     parked       parked       parked       parked       -       -
done       done/f       done/f       done/f       done/f       -       -
failed     failed/f     failed/f     failed/f     failed/f     -       -
deadline   failed/f     failed/fa    failed/fa    failed/fa    done    failed
to_failed  failed/f     failed/fa    failed/fa    failed/fa    done    failed
"""
REQUEST_STATES, *REQUEST_LINES = [line.split() for line in REQUESTS.strip().splitlines()]
REQUEST_CELLS = {kind: dict(zip(REQUEST_STATES[1:], cells, strict=True)) for kind, *cells in REQUEST_LINES}


def request_cell(kind: str, state: str) -> str:
    one = outcome(kind) if kind in CELLS else changed(RUN, state=kind)
    one = changed(RUN, state=kind) if kind == "submitted" else one
    here = Rows(replace(JOB, status="transcribing"), {"a": request("a", state), "b": request("b", "waiting")})
    written = advance(Step("x", uuid4(), one), here, NOW)
    row = here.requests["a"]
    times = {"s": row.submitted_at, "f": row.finished_at, "a": row.abandoned_at}
    assert {None, NOW} >= {*times.values()}
    marks = "".join(mark for mark, at in times.items() if at)
    return "-" if not written.applied else row.state + (f"/{marks}" if marks else "")


@pytest.mark.parametrize("kind", REQUEST_CELLS)
def test_what_an_outcome_makes_of_a_request_in_each_state(kind):
    assert {state: request_cell(kind, state) for state in REQUEST_STATES[1:]} == REQUEST_CELLS[kind]


def test_a_parked_request_keeps_its_reason_when_its_run_ends():
    here = rows("last")
    here.requests["a"] = replace(request("a", "parked"), error="the list cannot be read")
    advance(Step("x", uuid4(), outcome("deadline")), here, NOW)

    assert here.requests["a"].error == "too late: the list cannot be read"
