"""Asks a text model about one job: within budgets, paid once, validated.

An answer is stored beside the recording by the hash of the whole question before anything is made of it, so that a kill
repeats only the call in flight, and another run that asks the same pays nothing. An answer of no use is stored, too,
for an hour: what is delivered again does not pay for it again, and what an operator restarts later asks anew.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from agents.asr.paid_calls import PaidCalls, until_stored
from agents.asr.protocols import RateLimit
from agents.asr.response_cache import StoredResponses
from agents.llm.protocols import TextAnswer, TextModel, TextPrompt
from agents.runtime.failpoints import passing
from agents.runtime.metrics import Metrics
from schemas.errors import BudgetExhausted, ProviderError, Transient, Unavailable
from schemas.jobs.rows import OfRun, Usage, used
from schemas.texts import readable
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.providers.usage import UsageRows

#: Characters of the longest answer that is parsed.
LONGEST: Final = 400_000

#: Seconds for which an answer of no use is kept.
KEPT_S: Final = 3600.0

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """A valid answer."""

    value: T
    #: Tokens that it cost, with those of an answer of no use before it; also where it was paid for earlier.
    tokens: int


class Asks(Protocol):
    """Asks a language model; see `TextQuestions`."""

    @property
    def model(self) -> str:
        """`<provider>/<model>`."""

    async def ask(self, job: OfRun, prompt: TextPrompt[T]) -> Asked[T]:
        """The valid answer to a question about the job."""


@dataclass(frozen=True)
class TextQuestions:
    """A text model with its budgets and the store of its answers."""

    opened: TextModel
    store: Store
    database: UsageRows
    rate_limit: RateLimit
    accounts: EffectiveSettings
    #: Tokens that language models may use for a job, at most.
    job_tokens: int
    metrics: Metrics = field(default_factory=Metrics)
    paid: PaidCalls = field(default_factory=PaidCalls)

    @property
    def model(self) -> str:
        """`<provider>/<model>`."""
        return self.opened.name

    async def ask(self, job: OfRun, prompt: TextPrompt[T]) -> Asked[T]:
        """The valid answer to a question about the job. After one of no use, the model is asked once more.

        Raises:
            BudgetExhausted: The job or the tenant has used all its tokens. No call was made.
            ProviderError: The model refuses, or gives no usable answer.
            Transient: The model is away or too slow; `NotAccepted` where the call was certainly not accepted.
            Unavailable: Our own servers are away, and no call was made yet.
        """
        await self.paid.settled(_caller(job))
        tokens, fault, question = 0, "", prompt
        for _ in range(2):
            answer = await self._kept(job, question) or await self._asked(job, question)
            tokens += answer.usage.get("total_tokens", 0)
            value, fault = _validated(answer, prompt.schema)
            if value is not None:
                return Asked(value, tokens)
            question = replace(
                prompt,
                instructions=f"{prompt.instructions}\n\nAn earlier answer could not be used: {fault}.",
                max_tokens=2 * prompt.max_tokens,
            )
        raise ProviderError(f"{self.model} gives no usable answer: {fault}")

    async def _kept(self, job: OfRun, prompt: TextPrompt[Any]) -> TextAnswer | None:
        """A stored answer, whose usage is recorded in case that this was not done before a kill."""
        content = await self._responses(job).get(self._key(prompt))
        if content is None:
            return None
        stored = orjson.loads(content)
        if stored["fault"] is not None and datetime.now(UTC).timestamp() - stored["at"] > KEPT_S:
            return None
        answer = TextAnswer(stored["text"], stored["fault"], stored["usage"], stored["ref"])
        await self.database.record_usage(self._usage(job, stored["run"], answer))
        return answer

    async def _asked(self, job: OfRun, prompt: TextPrompt[Any]) -> TextAnswer:
        await self._require_budget(job)
        self.paid.require_room()
        await self.rate_limit.wait()
        return await self.paid.through(_caller(job), partial(self._call, job, prompt))

    async def _require_budget(self, job: OfRun) -> None:
        used = await self.database.tokens_used(job.tenant_id, job.job_id)
        if used.of_job >= self.job_tokens:
            raise BudgetExhausted(
                f"language models have used {used.of_job:.0f} tokens for this job, of {self.job_tokens} "
                "that CONCORD_JOB_TOKENS allows: raise it, and put the dead letter back"
            )
        limit = (await self.accounts.settings_of(job.tenant_id)).monthly_tokens
        if limit is not None and used.of_month >= limit:
            raise BudgetExhausted(
                f"the tenant's language models have used {used.of_month:.0f} tokens in this month (UTC), of {limit}: "
                "an operator can raise its setting `monthly_tokens`, and put the dead letter back"
            )

    async def _call(self, job: OfRun, prompt: TextPrompt[Any]) -> TextAnswer:
        """Make one call, and return when its answer and its usage are stored."""
        try:
            answer = await self.opened.answer(prompt)
        except Transient as exc:
            await self.rate_limit.failed(exc)
            raise
        # With the question's hash: the ids of some servers are three digits.
        answer = replace(answer, ref=readable(f"{answer.ref[:200]}~{self._key(prompt)[:12]}"))
        passing("texts.answered")
        content = {name: getattr(answer, name) for name in ("text", "fault", "usage", "ref")}
        content |= {"run": job.run, "at": datetime.now(UTC).timestamp()}
        await self._responses(job).put(self._key(prompt), orjson.dumps(content))
        passing("texts.stored")
        usage = self._usage(job, job.run, answer)
        await until_stored(partial(self.database.record_usage, usage))
        self.metrics.used(usage)
        with contextlib.suppress(Unavailable):
            await self.rate_limit.worked()
        return answer

    def _responses(self, job: OfRun) -> StoredResponses:
        return StoredResponses(self.store, job.tenant_id, job.job_id, self._provider, self.paid)

    def _usage(self, job: OfRun, run: int, answer: TextAnswer) -> list[Usage]:
        return [replace(row, run=run) for row in used(job, self._provider, answer.ref, answer.usage)]

    @property
    def _provider(self) -> str:
        return self.model.partition("/")[0]

    def _key(self, prompt: TextPrompt[Any]) -> str:
        """A hash of all that the answer depends on."""
        schema = orjson.dumps(prompt.schema.model_json_schema(), option=orjson.OPT_SORT_KEYS)
        limits = f"{prompt.temperature:g} {prompt.max_tokens}"
        parts = (self.model, prompt.instructions, prompt.content, limits)
        digest = hashlib.sha256(schema)
        for part in parts:
            digest.update(b"\0" + part.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _caller(job: OfRun) -> tuple[str, ...]:
    return ("texts", job.tenant_id, job.job_id)


def _validated(answer: TextAnswer, schema: type[T]) -> tuple[T | None, str]:
    """The answer as the schema has it, or what is wrong with it. Nothing of the model's text is in that."""
    if answer.text is None:
        return None, answer.fault or "the answer is empty"
    if len(answer.text) > LONGEST:
        return None, f"the answer has more than {LONGEST} characters"
    try:
        return schema.model_validate_json(answer.text), ""
    except ValidationError as exc:
        return None, _first_error(exc)


def _first_error(exc: ValidationError) -> str:
    error = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in error["loc"] if isinstance(part, int) or part.isidentifier())
    return f"{place or 'the answer'}: {error['msg'].partition(':')[0]}"[:200]
