"""How far the processing of a conversation is: derived from its job's row. No I/O.

    pending ─> extracting ─> storing ─> summarizing ─> generating_report ─> sending_email ─> completed ─> archived
                  └──────────── failed, cancelled <────────────┘

The first three are the run of the job (`fetch`, then recognizers and the reconciler), the next three its enrichments.
`storing` begins when what was said is stored: the recording follows, then the transcript with its readings.
Where an enrichment fails, those behind it go on as for every other job: a report without a summary is sent, and says
so. The processing has then failed all the same, once nothing of it goes on: its status and step are of the first that
failed, `failures` has each of them, and a repeat makes them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol

from schemas.conversations.names import FETCH
from schemas.errors import Cancelled, ConcordError
from schemas.events.job import EnrichmentStatus, StepState
from schemas.jobs.rows import STAGE_OF
from schemas.jobs.rows import Status as JobStatus

Status = Literal[
    "pending",
    "extracting",
    "storing",
    "summarizing",
    "generating_report",
    "sending_email",
    "completed",
    "failed",
    "cancelled",
    "archived",
]

#: Those from which nothing goes on by itself.
ENDED: Final[frozenset[Status]] = frozenset({"completed", "failed", "cancelled", "archived"})

#: Those in which everything that was wanted is done.
DONE: Final[frozenset[Status]] = frozenset({"completed", "archived"})

#: The progress of the step `fetch` from when what was said is stored: what is left is the recording.
TEXT_STORED: Final = 0.5

#: The enrichments of a conversation, in order, with the status while they are made.
WALK: Final[Mapping[str, Status]] = {
    "summary": "summarizing",
    "report": "generating_report",
    "mail": "sending_email",
}

#: Progress by status, in percent; a failed or cancelled processing has that of the step in which it ended.
PROGRESS: Final[Mapping[Status, int]] = {
    "pending": 0,
    "extracting": 10,
    "storing": 40,
    "summarizing": 60,
    "generating_report": 75,
    "sending_email": 90,
    "completed": 100,
    "archived": 100,
}

_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: Within which time a conversation is processed that ElevenLabs has finished.
EXPECTED: Final = timedelta(minutes=5)

#: What is said to last at least of what takes longer than `EXPECTED`.
LATE: Final = timedelta(minutes=1)


class ConversationJob(Protocol):
    """What is read of a job's row."""

    @property
    def status(self) -> JobStatus: ...
    @property
    def steps(self) -> Mapping[str, StepState]: ...
    @property
    def enrichment(self) -> Mapping[str, EnrichmentStatus]: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def code(self) -> str | None: ...
    @property
    def completed_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class StepFailure:
    """A step that has failed for good."""

    #: A stage of `Job.steps`, or the kind of an enrichment.
    step: str
    error: str | None
    #: Error code for programs, of `schemas.errors`.
    code: str

    @property
    def what_to_do(self) -> str:
        """A sentence for whoever has to mend it."""
        return what_to_do(self.step, self.code)


@dataclass(frozen=True, slots=True)
class Processing:
    """The state of a conversation's processing."""

    status: Status
    #: 0 to 100.
    progress: int
    #: The stage that works on it, or in which it ended: of `Job.steps`, or the kind of an enrichment; None at its end.
    current_step: str | None = None
    error: str | None = None
    #: Error code for programs, of `schemas.errors`.
    code: str | None = None
    #: A sentence for whoever has to mend it.
    what_to_do: str | None = None
    #: When its last step ended; None while it goes on.
    ended_at: datetime | None = None
    #: Each step that has failed, in order, also while later ones go on.
    failures: tuple[StepFailure, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing goes on by itself."""
        return self.status in ENDED


def processing(job: ConversationJob, *, has_files: bool = True) -> Processing:
    """The state of the processing; `has_files`: whether files of its run are left."""
    if job.status == "failed":
        return _failed_run(job)
    if job.status != "completed":
        return _in_run(job)
    return _after_run(job, has_files=has_files)


def estimated_completion(state: Processing, begun_at: datetime, now: datetime) -> datetime:
    """When a processing that began then is likely to be complete; of one that has ended, when it did."""
    if state.ended:
        return state.ended_at or now
    return max(begun_at + EXPECTED, now + LATE)


def _in_run(job: ConversationJob) -> Processing:
    fetch = job.steps.get(FETCH)
    if job.status != "uploaded":
        step = STAGE_OF[job.status]
        state = job.steps.get(step)
        return Processing("storing", PROGRESS["storing"], step, state.error if state else None)
    if fetch is not None and _is_stored(fetch):
        return Processing("storing", PROGRESS["storing"], FETCH, fetch.error)
    if fetch is None or fetch.state == "waiting":
        return Processing("pending", PROGRESS["pending"], FETCH, fetch.error if fetch else None)
    # The error is why it is tried again.
    return Processing("extracting", PROGRESS["extracting"], FETCH, fetch.error)


def _failed_run(job: ConversationJob) -> Processing:
    """The step that failed last has ended the run; of a cancelled one it is named `cancel`."""
    failed = [(state.finished_at or _NEVER, name) for name, state in job.steps.items() if state.state == "failed"]
    step = max(failed, default=(_NEVER, FETCH))[1]
    code = job.code or ConcordError.code
    fetch = job.steps.get(FETCH)
    reached: Status = "storing" if fetch is not None and _is_stored(fetch) else "extracting"
    return _ended(reached, (StepFailure(step, job.reason, code),), job.completed_at)


def _is_stored(fetch: StepState) -> bool:
    """Whether what was said is stored."""
    return fetch.state == "done" or fetch.progress is not None


def _ended(reached: Status, failures: tuple[StepFailure, ...], at: datetime | None) -> Processing:
    first = failures[0]
    status: Status = "cancelled" if first.code == Cancelled.code else "failed"
    return Processing(
        status, PROGRESS[reached], first.step, first.error, first.code, first.what_to_do, at, failures=failures
    )


def _after_run(job: ConversationJob, *, has_files: bool) -> Processing:
    rows = {kind: job.enrichment[kind] for kind in WALK if kind in job.enrichment}
    failures = tuple(
        StepFailure(kind, row.error, row.code or ConcordError.code)
        for kind, row in rows.items()
        if row.state == "failed"
    )
    for kind, row in rows.items():
        if row.state not in ("done", "failed"):
            return Processing(WALK[kind], PROGRESS[WALK[kind]], kind, row.error, failures=failures)
    ends = [job.completed_at, *(row.finished_at for row in rows.values())]
    at = max((end for end in ends if end is not None), default=None)
    if failures:  # the first: those behind it may have failed because of it
        return _ended(WALK[failures[0].step], failures, at)
    done: Status = "completed" if has_files else "archived"
    return Processing(done, PROGRESS[done], ended_at=at)


#: What whoever runs this can do about an error, by step and code.
_BY_STEP: Final[Mapping[tuple[str, str], str]] = {
    (FETCH, "not_found"): "Check the conversation's id, and that ELEVENLABS_API_KEY is of the workspace that had it; "
    "then post it again.",
    (
        FETCH,
        "invalid_input",
    ): "There is nothing to process: the error says why. Post it again once that has changed.",
    (FETCH, "too_large"): "Raise the limit of recordings, or the account's, and post it again; "
    "the transcript is not fetched twice.",
    (FETCH, "provider_refused"): "Check ELEVENLABS_API_KEY and its permissions with `concord doctor`, then post it "
    "again.",
    (FETCH, "retries_exhausted"): "ElevenLabs did not deliver in time: post the conversation again.",
    ("summary", "retries_exhausted"): "The language model did not answer: post the conversation again once it does.",
    ("summary", "provider_refused"): "Check the key and the name of the language model with `concord doctor`, then "
    "post the conversation again.",
    (
        "mail",
        "invalid_input",
    ): "There is no report to mail, or the account's template fails: the error says which. Post "
    "the conversation again once that is mended.",
    ("mail", "retries_exhausted"): "The mail server did not take the mail: check SMTP_HOST with `concord doctor`, "
    "then post the conversation again.",
}

#: The same by code alone.
_BY_CODE: Final[Mapping[str, str]] = {
    "budget_exhausted": "The account has used its tokens of this month: raise `monthly_tokens`, or wait for the next "
    "month, then post the conversation again.",
    "mail_refused": "Correct the address, and post the conversation again.",
    "mail_in_doubt": "The mail server may have sent it: ask the recipient, and send it again with "
    "`concord mail resend` if it did not arrive.",
    Cancelled.code: "Post the conversation again to go on where it was cancelled.",
}


def what_to_do(step: str, code: str) -> str:
    """What can be done about a processing that has ended in this step with this code."""
    general = (
        "Post the conversation again: it goes on at this step. If it fails again, see `concord status` and its log."
    )
    return _BY_STEP.get((step, code)) or _BY_CODE.get(code) or general
