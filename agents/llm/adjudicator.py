"""Asks a judge about the disputed words of a reconciled transcript: within a budget of questions and of time, each
question once.
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
from agents.asr.protocols import Adjudicator, AdjudicatorAnswer
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

#: Seconds that all questions of one job may take; what is unanswered then stays as it was calibrated.
JOB_S = 60.0

#: Seconds after which a call that did not end by itself is given up, although it may be paid for.
CALL_S = 120.0

#: Calls of one job under way at once.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Whose:
    """The run that asks."""

    tenant_id: str
    job_id: str
    run: int


class Database(Adjudications, UsageRows, Protocol):
    """What adjudicating asks of the database."""


@dataclass(frozen=True)
class SpanAdjudicator:
    """An adjudicator, with a memory."""

    adjudicator: Adjudicator
    database: Database
    #: Questions that one job may ask.
    max_spans: int
    metrics: Metrics = field(default_factory=Metrics)
    limit_s: float = JOB_S
    paid: PaidCalls = field(default_factory=PaidCalls)

    async def adjudicated(
        self, decided: Reconciliation, whose: Whose, tell: Callable[[float], None] = lambda _: None
    ) -> Reconciliation:
        """The transcript with the judge's choices, and a note on what was judged and what was not.

        Whatever the judge does, this ends: with the calibrated choice where there is no other. An answer is stored
        before the next step is taken, so that who is killed and begins again asks only what was under way. A database
        that is away is waited for once something is paid for; before that, `Unavailable` is raised.
        """
        # In a thread: a third of a second for a long recording, and the event loop has others to serve.
        found = await asyncio.to_thread(spans, decided, self.adjudicator.name)
        wanted = found[: self.max_spans]
        if not wanted:
            return decided
        asking = _Asking(self, whose, decided.language, {span.question.id: span.question for span in wanted}, tell)
        await self.paid.settled(whose)
        await asking.recall()
        try:
            async with asyncio.timeout(self.limit_s):
                await asking.ask()
        except TimeoutError:
            await asking.give_up(f"no answer within {self.limit_s:g} s")
        for result, count in asking.results().items():
            self.metrics.adjudicated.labels(self.adjudicator.name.partition("/")[0], result).inc(count)
        return await asyncio.to_thread(self._noted, decided, wanted, asking, len(found) - len(wanted))

    def _noted(self, decided: Reconciliation, wanted: Sequence[Span], asking: _Asking, beyond: int) -> Reconciliation:
        name = self.adjudicator.name
        after = adjudicated(decided, wanted, asking.choices, name)
        results = asking.results()
        said = (
            f"{name} judged {results['chosen'] + results['neither']} of {len(wanted) + beyond} disputed spans "
            f"(chose a reading in {results['chosen']}, none in {results['neither']}); "
            f"{overruled(decided, after)} words differ from the calibrated choice."
        )
        notes = [said]
        for fault, count in sorted(Counter(asking.faults.values()).items()):
            notes.append(f"{name} did not judge {count} disputed spans, which stay as calibrated: {fault.rstrip('.')}.")
        if beyond:
            notes.append(f"{beyond} less doubtful spans were not asked about: the budget is {self.max_spans}.")
        return replace(after, notes=(*after.notes, *notes))


@dataclass
class _Asking:
    """One job's questions on their way."""

    adjudicator: SpanAdjudicator
    whose: Whose
    language: str | None
    open: dict[str, Question]
    tell: Callable[[float], None]
    choices: dict[str, int | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    #: Why no other call is begun: a no that all of them would get.
    stop: str | None = None

    async def recall(self) -> None:
        """What was answered before is not asked again; neither is what this run has asked in vain."""
        whose = self.whose
        known = await self.adjudicator.database.adjudications(whose.tenant_id, whose.job_id, whose.run, list(self.open))
        answered = {row.question: row.choice for row in known if row.fault is None}
        self._close(answered, {row.question: row.fault for row in known if row.fault is not None})

    async def ask(self) -> None:
        """All that is open, in several calls at a time."""
        questions = list(self.open.values())
        many = self.adjudicator.adjudicator.many
        calls = [questions[at : at + many] for at in range(0, len(questions), many)]

        async def call(some: Sequence[Question]) -> None:
            self.adjudicator.paid.require_room()
            await self.adjudicator.paid.through(self.whose, partial(self._call, some))
            self.tell(1 - len(self.open) / len(questions))

        await each(calls, call, AT_ONCE)

    async def _call(self, questions: Sequence[Question]) -> None:
        """Ask, and store what is answered; goes on when the job is out of time."""
        if self.stop is not None:
            self._close({}, {question.id: self.stop for question in questions})
            return
        try:
            async with asyncio.timeout(CALL_S):
                answer = await self.adjudicator.adjudicator.adjudicate(questions, self.language)
        except (RateLimited, ProviderError) as exc:
            self.stop = str(exc)
            await self._failed(questions, str(exc))
        except Transient as exc:
            await self._failed(questions, str(exc))
        except TimeoutError:
            await self._failed(questions, f"no answer within {CALL_S:g} s")
        else:
            await self._answered(questions, answer)

    async def _failed(self, questions: Sequence[Question], reason: str) -> None:
        log.warning("%s/%d: %d spans stay as calibrated: %s", self.whose.job_id, self.whose.run, len(questions), reason)
        await self._keep({}, {question.id: reason for question in questions})

    async def _answered(self, questions: Sequence[Question], answer: AdjudicatorAnswer) -> None:
        asked = {question.id for question in questions}
        ref = readable(answer.ref, ERROR_CHARS)
        rows = used(self.whose, self.adjudicator.adjudicator.name.partition("/")[0], ref, answer.usage)
        choices = {id: choice for id, choice in answer.choices.items() if id in asked}
        faults = {id: fault for id, fault in answer.faults.items() if id in asked}
        await self._keep(choices, faults, rows)
        self.adjudicator.metrics.used(rows)

    async def _keep(self, choices: dict[str, int | None], faults: dict[str, str], usage: Sequence[Usage] = ()) -> None:
        """Take it as it is, and return when it is stored."""
        self._close(choices, faults)
        rows = [self._row(id, choice, None) for id, choice in choices.items()]
        rows += [self._row(id, None, readable(fault, ERROR_CHARS)) for id, fault in faults.items()]

        async def write() -> None:
            await self.adjudicator.database.record_usage(usage)
            await self.adjudicator.database.keep_adjudications(rows)

        try:
            await until_stored(write)
        except InvalidInput:  # the transcript does not depend on it
            log.exception("%s/%d: what a judge answered cannot be stored", self.whose.job_id, self.whose.run)

    def _row(self, question: str, choice: int | None, fault: str | None) -> Adjudication:
        return Adjudication(
            tenant_id=self.whose.tenant_id,
            question=question,
            job_id=self.whose.job_id,
            run=self.whose.run,
            adjudicator=self.adjudicator.adjudicator.name,
            choice=choice,
            fault=fault,
        )

    async def give_up(self, reason: str) -> None:
        """What is open stays as it was calibrated."""
        if self.open:
            await self._keep({}, dict.fromkeys(self.open, reason))

    def _close(self, choices: dict[str, int | None], faults: dict[str, str]) -> None:
        self.choices |= {id: choice for id, choice in choices.items() if id in self.open}
        self.faults |= {id: fault for id, fault in faults.items() if id in self.open}
        for id in (*choices, *faults):
            self.open.pop(id, None)

    def results(self) -> dict[str, int]:
        """How many questions ended how."""
        chosen = sum(choice is not None for choice in self.choices.values())
        return {"chosen": chosen, "neither": len(self.choices) - chosen, "fault": len(self.faults)}
