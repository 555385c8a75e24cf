"""Answers questions about calls from passages, with citations that are checked before they are shown.

The model is told to quote; a claim whose quotation does not stand in the passages that it names is marked as
unsupported, and an answer without any supported claim is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from agents.asr.paid_calls import PaidCalls, until_stored
from agents.asr.protocols import RateLimit
from agents.llm.protocols import TextAnswer, TextModel, TextPrompt
from agents.llm.texts.prompts import prompt
from agents.runtime.metrics import Metrics
from agents.search.hits import widened, with_neighbours
from agents.search.query import words
from agents.search.searcher import Searcher
from agents.text.summaries.citations import quoted, says_enough
from schemas.errors import Conflict, ProviderError, Transient, Unavailable
from schemas.jobs.rows import used
from schemas.search.answers import AnswerPart, Citation, Claim, Ended, Found, Passage, Turn
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.providers.usage import UsageRows
from sinks.ports.search.reads import ChunkFilter

log = logging.getLogger(__name__)

#: Version of the prompt `ask.<version>.txt`.
PROMPT: Final = "v1"

#: Passages that the model reads; more of them find twice as much as a dozen does, for a tenth more time.
PASSAGES: Final = 40

#: Utterances by which each passage is widened on either side.
AROUND: Final = 2

#: Where the usage of questions is kept: they belong to no job.
JOB: Final = "ask"

_WORD: Final = re.compile(r"\w+")


class _Claim(BaseModel):
    """A sentence of the answer."""

    text: str = Field(description="the sentence")
    passages: list[int] = Field(description="numbers of the passages on which it rests")
    quote: str = Field(description="three to twenty consecutive words of one of them, exactly as they stand there")


class _Answer(BaseModel):
    """The answer to the question."""

    is_answered: bool = Field(description="whether the passages answer the question")
    claims: list[_Claim]


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose usage a question is."""

    tenant_id: str
    job_id: str = JOB
    run: int = 1


@dataclass
class Asker:
    """Answers the questions of tenants."""

    searcher: Searcher
    #: None if none is configured: then passages are all that is answered.
    model: TextModel | None
    database: UsageRows
    accounts: EffectiveSettings
    #: When the model may be called; None for at any time.
    rate_limit: RateLimit | None = None
    metrics: Metrics = field(default_factory=Metrics)
    paid: PaidCalls = field(default_factory=PaidCalls)

    async def ask(
        self, tenant: str, question: str, earlier: Sequence[Turn], which: ChunkFilter, language: str
    ) -> AsyncIterator[AnswerPart]:
        """The parts of an answer, as they are known.

        Raises:
            Conflict: the tenant has used all the tokens that it may use in a month.
            Unavailable: the database is away.
        """
        if self.model is not None:
            await self._require_budget(tenant)
        found = await self._found(tenant, question, earlier, which, language)
        yield found
        if self.model is None:
            reason = "no language model is configured: OPENAI_API_KEY, OPENAI_BASE_URL or CONCORD_TEXT_MODEL names one"
            yield Ended("passages_only", reason=reason)
            return
        if not found.passages:
            yield Ended("not_in_these_calls", self.model.name)
            return
        try:
            answer = await self._answer(tenant, self.model, question, earlier, found.passages)
        except (Transient, ProviderError) as exc:
            log.warning("a question was not answered: %s", exc)
            yield Ended("passages_only", self.model.name, "the language model gives no usable answer at the moment")
            return
        claims = [_checked(claim, found.passages) for claim in answer.claims] if answer.is_answered else []
        if not any(claim.citations for claim in claims):
            yield Ended("not_in_these_calls", self.model.name)
            return
        for claim in claims:
            yield claim
        yield Ended("answered", self.model.name)

    async def close(self) -> None:
        """Close the model, once calls in flight are accounted for."""
        await self.paid.close()
        if self.model is not None:
            await self.model.close()

    async def _require_budget(self, tenant: str) -> None:
        limit = (await self.accounts.settings_of(tenant)).monthly_tokens
        if limit is not None and (await self.database.tokens_used(tenant, JOB)).of_month >= limit:
            raise Conflict(f"language models have used the {limit} tokens of this month (UTC): raise `monthly_tokens`")

    async def _found(
        self, tenant: str, question: str, earlier: Sequence[Turn], which: ChunkFilter, language: str
    ) -> Found:
        # A question that follows another often names only what is new.
        text = " ".join([*(turn.question for turn in earlier[-1:]), question])
        asked = await asyncio.to_thread(words, text, language)
        ranked, searched = await self.searcher.ranked(tenant, text, asked, which, "hybrid")
        chunks = await self.searcher.index.chunks(tenant, with_neighbours(ranked[:PASSAGES]))
        keys = [one.key for one in ranked[:PASSAGES] if one.key in chunks]
        passages = [Passage(n, chunks[key], widened(chunks[key], chunks, AROUND)) for n, key in enumerate(keys, 1)]
        return Found(passages, searched)

    async def _answer(
        self, tenant: str, model: TextModel, question: str, earlier: Sequence[Turn], passages: Sequence[Passage]
    ) -> _Answer:
        content = {
            "question": question,
            "earlier": [{"question": turn.question, "answer": turn.answer} for turn in earlier],
            "passages": [_shown(passage) for passage in passages],
        }
        asked = TextPrompt(prompt("ask", PROMPT), json.dumps(content, ensure_ascii=False), _Answer, max_tokens=4096)
        self.paid.require_room()
        if self.rate_limit is not None:
            await self.rate_limit.wait()
        answer = await self.paid.through((JOB, tenant), lambda: self._call(tenant, model, asked))
        if answer.text is None:
            raise ProviderError(answer.fault or "the answer is empty")
        try:
            return _Answer.model_validate_json(answer.text)
        except ValidationError as exc:
            raise ProviderError("the answer is not what was asked for") from exc

    async def _call(self, tenant: str, model: TextModel, asked: TextPrompt[Any]) -> TextAnswer:
        """One call, and what it used up is stored, although the one who asks has gone."""
        try:
            answer = await model.answer(asked)
        except Transient as exc:
            if self.rate_limit is not None:
                await self.rate_limit.failed(exc)
            raise
        usage = used(_Owner(tenant), model.name.partition("/")[0], answer.ref, answer.usage)
        await until_stored(lambda: self.database.record_usage(usage))
        self.metrics.used(usage)
        if self.rate_limit is not None:
            with contextlib.suppress(Unavailable):
                await self.rate_limit.worked()
        return answer


def _shown(passage: Passage) -> dict[str, Any]:
    """A passage as the model reads it."""
    lines = [f"{one.speaker}: {one.text}" if one.speaker else one.text for one in passage.utterances]
    return {"number": passage.number, "call": passage.chunk.created_at.date().isoformat(), "text": "\n".join(lines)}


def _checked(claim: _Claim, passages: Sequence[Passage]) -> Claim:
    """The claim with the moments at which its quotation was said, in the passages that it names."""
    cited = [passages[n - 1] for n in dict.fromkeys(claim.passages) if 1 <= n <= len(passages)]
    places = (_said(claim.quote, passage) for passage in cited)
    return Claim(claim.text, claim.quote, [place for place in places if place is not None])


def _said(quote: str, passage: Passage) -> Citation | None:
    """Where a quotation begins; None if it does not stand in the passage, or is no quotation."""
    spoken = [(word, one) for one in passage.utterances for word in _WORD.finditer(one.text)]
    found = quoted([word.group() for word, _ in spoken], quote)
    if not found or not says_enough(quote, found, (one.text for one in passage.utterances)):
        return None
    word, utterance = spoken[found.start]
    return Citation(passage.number, passage, utterance, utterance.moment(word.start()))
