"""What holds of the state machine of a job whatever outcomes come in whatever order."""

from __future__ import annotations

from uuid import uuid4

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Job
from schemas.jobs.transitions import Rows, Written, advance
from tests.examples import examples
from tests.unit.test_advance import CELLS, ENDS, NOW, outcome

#: Outcomes in any order, each about the job's run, the run before or the run after. What makes a run is drawn more
#: often, so that sequences have several runs.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "begin_next_run", "new_requests"]) | st.sampled_from(sorted(CELLS)),
        st.sampled_from([0, 0, 0, 0, -1, 1]),
    ),
    min_size=8,
    max_size=30,
)


def history(steps: list[tuple[str, int]]) -> list[tuple[Job | None, Job | None, Written]]:
    """Apply the steps one after the other, from no job on: the job before and after each, and what it wrote."""
    here, done = Rows(None, {}), []
    for kind, delta in steps:
        run = max(1, here.job.run + delta) if here.job else 1
        before, requests = here.job, dict(here.requests)
        step = Step("x", uuid4(), outcome(kind, run))
        repeat = Rows(before, dict(requests))
        written = advance(step, here, NOW)
        assert advance(step, repeat, NOW) == written, "a replay makes the same rows and the same bytes"
        if not written.applied:
            assert (here.job, here.requests) == (before, requests)
            assert written == Written(applied=False, forgotten=written.forgotten)
        done.append((before, here.job, written))
    return done


def published(past: list[tuple[Job | None, Job | None, Written]], *names: str) -> list[dict]:
    return [orjson.loads(m.value) for *_, written in past for m, _ in written.messages if m.topic in names]


@settings(deadline=None, max_examples=examples(60))
@given(STEPS)
def test_versions_only_rise_and_each_is_announced_once(steps):
    past = history(steps)
    changes = [(before, after) for before, after, _ in past if after != before]

    assert [after.version for _, after in changes] == list(range(1, len(changes) + 1))
    assert [status["version"] for status in published(past, topics.STATUS.name)] == list(range(1, len(changes) + 1))


@settings(deadline=None, max_examples=examples(60))
@given(STEPS)
@example([("create", 0), ("new_requests", 0), ("to_persisting", 0), ("deadline", 0)])
def test_a_run_goes_forward_and_ends_once_with_one_terminal_event(steps):
    past = history(steps)
    order = ("uploaded", "transcribing", "reconciling", "persisting", "completed", "failed")
    for before, after, _ in past:
        if before is not None and after != before:
            assert after.run == before.run + before.ended, "only a run that has ended is followed by another"
            assert before.ended or order.index(after.status) >= order.index(before.status)
    ended = [after.run for before, after, _ in past if after is not None and after != before and after.ended]

    assert [event["run"] for event in published(past, *ENDS)] == ended
    assert len(set(ended)) == len(ended)


@settings(deadline=None, max_examples=examples(60))
@given(STEPS)
def test_each_recognizer_of_a_run_answers_once_and_one_answer_is_the_last(steps):
    results = published(history(steps), topics.RESULTS.name)
    answers = [(result["run"], result["provider"]) for result in results]
    last = [result["run"] for result in results if result["remaining"] == 0]

    assert len(set(answers)) == len(answers)
    assert len(set(last)) == len(last)
