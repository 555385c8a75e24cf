"""Asks a language model about the disputed spans of a reconciled transcript.

A job has a budget of questions and of time, and no question is asked twice: answers are stored in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from agents.asr.paid_calls import PaidCalls, until_stored
from agents.llm.protocols import Adjudicator, AdjudicatorAnswer
from agents.runtime.leased_tasks import each
from agents.runtime.metrics import Metrics
from agents.text.adjudicate import Span, adjudicated, overruled, spans
from schemas.errors import InvalidInput, ProviderError, RateLimited, Transient
from schemas.jobs.rows import Adjudication, Usage, used
from schemas.texts import ERROR_CHARS, readable
from schemas.words import Question, Reconciliation
from sinks.ports.providers.adjudications import Adjudications
from sinks.ports.providers.usage import UsageRows

log = logging.getLogger(__name__)

#: Seconds for all questions of one job; spans without an answer by then keep the calibrated choice.
JOB_S = 60.0

#: Seconds after which a call that has not ended by itself is given up, although it may be billed.
CALL_S = 120.0

#: Concurrent calls of one job.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class RunId:
    """The run of a job that asks."""

    tenant_id: str
    job_id: str
    run: int


class Database(Adjudications, UsageRows, Protocol):
    """What adjudicating asks of the database."""


@dataclass(frozen=True)
class SpanAdjudicator:
    """An adjudicator with its budget and the store of its answers."""

    model: Adjudicator
    database: Database
    #: Questions of one job, at most.
    max_spans: int
    metrics: Metrics = field(default_factory=Metrics)
    #: Seconds for one job.
    limit_s: float = JOB_S
    paid: PaidCalls = field(default_factory=PaidCalls)

    async def adjudicated(
        self, decided: Reconciliation, run: RunId, report: Callable[[float], None] = lambda _: None
    ) -> Reconciliation:
        """The transcript with the model's choices, and a note on which spans were adjudicated.

        `report` gets the share of answered questions, 0 to 1. A failing model never makes this fail: spans without an
        answer keep the calibrated choice. An answer is stored before the next step, so that after a kill only the
        calls in flight are repeated.

        Raises:
            Unavailable: The database is away, and no call was made yet. Once calls were made, it is waited for.
        """
        # In a thread: this computes for a third of a second for a long recording, and would block the event loop.
        doubtful = await asyncio.to_thread(spans, decided, self.model.name)
        selected = doubtful[: self.max_spans]
        if not selected:
            return decided
        questions = _JobQuestions(
            self, run, decided.language, {span.question.id: span.question for span in selected}, report
        )
        await self.paid.settled(run)
        await questions.recall()
        try:
            async with asyncio.timeout(self.limit_s):
                await questions.ask()
        except TimeoutError:
            await questions.give_up(f"no answer within {self.limit_s:g} s")
        for result, count in questions.results().items():
            self.metrics.adjudicated.labels(self.model.name.partition("/")[0], result).inc(count)
        return await asyncio.to_thread(self._noted, decided, selected, questions, len(doubtful) - len(selected))

    def _noted(
        self, decided: Reconciliation, selected: Sequence[Span], questions: _JobQuestions, beyond: int
    ) -> Reconciliation:
        """The transcript with the choices and the notes; `beyond` is the number of spans beyond the budget."""
        name = self.model.name
        after = adjudicated(decided, selected, questions.choices, name)
        results = questions.results()
        notes = [
            (
                f"{name} judged {results['chosen'] + results['neither']} of {len(selected) + beyond} disputed spans "
                f"(chose a reading in {results['chosen']}, none in {results['neither']}); "
                f"{overruled(decided, after)} words differ from the calibrated choice."
            )
        ]
        for fault, count in sorted(Counter(questions.faults.values()).items()):
            notes.append(f"{name} did not judge {count} disputed spans, which stay as calibrated: {fault.rstrip('.')}.")
        if beyond:
            notes.append(f"{beyond} less doubtful spans were not asked about: the budget is {self.max_spans}.")
        return replace(after, notes=(*after.notes, *notes))


@dataclass
class _JobQuestions:
    """The questions of one job, open and answered."""

    adjudicator: SpanAdjudicator
    run: RunId
    language: str | None
    #: By id.
    open: dict[str, Question]
    report: Callable[[float], None]
    choices: dict[str, int | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    #: Why no further call is started: an error that all of them would get.
    stop: str | None = None

    async def recall(self) -> None:
        """Close questions with a stored answer, and those that this run has asked without getting a usable answer."""
        run = self.run
        rows = await self.adjudicator.database.adjudications(run.tenant_id, run.job_id, run.run, list(self.open))
        choices = {row.question: row.choice for row in rows if row.fault is None}
        self._close(choices, {row.question: row.fault for row in rows if row.fault is not None})

    async def ask(self) -> None:
        """Ask all open questions, in concurrent calls."""
        questions = list(self.open.values())
        many = self.adjudicator.model.many
        batches = [questions[start : start + many] for start in range(0, len(questions), many)]

        async def call(batch: Sequence[Question]) -> None:
            self.adjudicator.paid.require_room()
            await self.adjudicator.paid.through(self.run, partial(self._call, batch))
            self.report(1 - len(self.open) / len(questions))

        await each(batches, call, AT_ONCE)

    async def _call(self, questions: Sequence[Question]) -> None:
        """Make one call and store its result. `PaidCalls` lets this continue when the job's time is over."""
        if self.stop is not None:
            self._close({}, {question.id: self.stop for question in questions})
            return
        try:
            async with asyncio.timeout(CALL_S):
                answer = await self.adjudicator.model.adjudicate(questions, self.language)
        except (RateLimited, ProviderError) as exc:
            self.stop = str(exc)
            await self._store_failure(questions, str(exc))
        except Transient as exc:
            await self._store_failure(questions, str(exc))
        except TimeoutError:
            await self._store_failure(questions, f"no answer within {CALL_S:g} s")
        else:
            await self._store_answer(questions, answer)

    async def _store_failure(self, questions: Sequence[Question], reason: str) -> None:
        log.warning("%s/%d: %d spans stay as calibrated: %s", self.run.job_id, self.run.run, len(questions), reason)
        await self._store({}, {question.id: reason for question in questions})

    async def _store_answer(self, questions: Sequence[Question], answer: AdjudicatorAnswer) -> None:
        ids = {question.id for question in questions}
        ref = readable(answer.ref, ERROR_CHARS)
        usage = used(self.run, self.adjudicator.model.name.partition("/")[0], ref, answer.usage)
        choices = {id: choice for id, choice in answer.choices.items() if id in ids}
        faults = {id: fault for id, fault in answer.faults.items() if id in ids}
        await self._store(choices, faults, usage)
        self.adjudicator.metrics.used(usage)

    async def _store(self, choices: dict[str, int | None], faults: dict[str, str], usage: Sequence[Usage] = ()) -> None:
        """Close the questions, and return when choices, faults and usage are stored."""
        self._close(choices, faults)
        rows = [self._row(id, choice, None) for id, choice in choices.items()]
        rows += [self._row(id, None, readable(fault, ERROR_CHARS)) for id, fault in faults.items()]

        async def write() -> None:
            await self.adjudicator.database.record_usage(usage)
            await self.adjudicator.database.keep_adjudications(rows)

        try:
            await until_stored(write)
        except InvalidInput:  # the transcript does not depend on it
            log.exception("%s/%d: an adjudicator's answer cannot be stored", self.run.job_id, self.run.run)

    def _row(self, question: str, choice: int | None, fault: str | None) -> Adjudication:
        return Adjudication(
            tenant_id=self.run.tenant_id,
            question=question,
            job_id=self.run.job_id,
            run=self.run.run,
            adjudicator=self.adjudicator.model.name,
            choice=choice,
            fault=fault,
        )

    async def give_up(self, reason: str) -> None:
        """Close all open questions with this fault."""
        if self.open:
            await self._store({}, dict.fromkeys(self.open, reason))

    def _close(self, choices: dict[str, int | None], faults: dict[str, str]) -> None:
        """Take choices and faults of open questions; the first result of a question counts."""
        self.choices |= {id: choice for id, choice in choices.items() if id in self.open}
        self.faults |= {id: fault for id, fault in faults.items() if id in self.open}
        for id in (*choices, *faults):
            self.open.pop(id, None)

    def results(self) -> dict[str, int]:
        """The number of questions by result: a reading chosen, none of them chosen, no usable answer."""
        chosen = sum(choice is not None for choice in self.choices.values())
        return {"chosen": chosen, "neither": len(self.choices) - chosen, "fault": len(self.faults)}
