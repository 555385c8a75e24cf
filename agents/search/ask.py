"""Answers questions about calls from passages, with citations that are checked before they are shown.

The model is told to quote; a claim whose quotation does not stand in the passages that it names is marked as
unsupported, and an answer without any supported claim is none. Claims are sent as the model writes them, each checked;
unsupported ones wait for a supported one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic import ValidationError

from agents.asr.paid_calls import PaidCalls, until_stored
from agents.asr.protocols import RateLimit
from agents.llm.protocols import Said, TextAnswer, TextModel, TextPrompt, ref_of
from agents.llm.texts.prompts import prompt
from agents.runtime.metrics import Metrics
from agents.search.claims import AnswerClaim, ClaimReader, WrittenAnswer
from agents.search.hits import widened, with_neighbours
from agents.search.query import words
from agents.search.searcher import Searcher
from agents.text.summaries.citations import quoted, says_enough
from schemas.errors import Conflict, ProviderError, Transient, Unavailable
from schemas.jobs.rows import used
from schemas.search.answers import AnswerPart, Citation, Claim, Ended, Found, Passage, Turn
from schemas.texts import readable
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.providers.usage import UsageRows
from sinks.ports.search.reads import ChunkFilter

log = logging.getLogger(__name__)

#: Version of the prompt `ask.<version>.txt`.
PROMPT: Final = "v2"

#: Passages that the model reads; more of them find twice as much as a dozen does, for a tenth more time.
PASSAGES: Final = 40

#: Utterances by which each passage is widened on either side.
AROUND: Final = 2

_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose usage a question is: that of a conversation, which is no job and has an id of its own."""

    tenant_id: str
    job_id: str
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
        self,
        tenant: str,
        question: str,
        earlier: Sequence[Turn],
        which: ChunkFilter,
        language: str,
        conversation: UUID | None = None,
    ) -> AsyncIterator[AnswerPart]:
        """The parts of an answer, as they are known. What its conversation uses is found under the id that the first
        part has; a new one, if none is given.

        Raises:
            Conflict: the tenant has used all the tokens that it may use in a month.
            Unavailable: the database is away.
        """
        if self.model is not None:
            await self._require_budget(tenant)
        found = await self._found(tenant, question, earlier, which, language)
        found = replace(found, conversation=conversation or uuid4())
        yield found
        if self.model is None:
            reason = "no language model is configured: OPENAI_API_KEY, OPENAI_BASE_URL or CONCORD_TEXT_MODEL names one"
            yield Ended("passages_only", reason=reason)
            return
        if not found.passages:
            yield Ended("not_in_these_calls", self.model.name)
            return
        asked = _prompt(question, earlier, found.passages, which.speaker)
        waiting: list[Claim] = []
        is_supported = False
        try:
            async for claim in self._claims(_Owner(tenant, f"conversation-{found.conversation}"), self.model, asked):
                waiting.append(_checked(claim, found.passages, which.speaker))
                is_supported = is_supported or bool(waiting[-1].citations)
                while is_supported and waiting:
                    yield waiting.pop(0)
        except (Transient, ProviderError) as exc:
            log.warning("a question was not answered: %s", exc)
            if is_supported:
                yield Ended("answered", self.model.name, "the language model broke off: more may have followed")
            else:
                reason = "the language model gives no usable answer at the moment"
                yield Ended("passages_only", self.model.name, reason)
            return
        yield Ended("answered" if is_supported else "not_in_these_calls", self.model.name)

    async def close(self) -> None:
        """Close the model, once calls in flight are accounted for."""
        await self.paid.close()
        if self.model is not None:
            await self.model.close()

    async def _require_budget(self, tenant: str) -> None:
        limit = (await self.accounts.settings_of(tenant)).monthly_tokens
        if limit is not None and (await self.database.tokens_used(tenant, "")).of_month >= limit:
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

    async def _claims(self, owner: _Owner, model: TextModel, asked: TextPrompt[Any]) -> AsyncIterator[AnswerClaim]:
        """The claims of the answer, as they are written; none if the passages do not answer the question.

        Raises:
            ProviderError: the answer is of no use, or its end is.
            Transient: the model is away or too slow.
        """
        reader, pieces = ClaimReader(), asyncio.Queue[str | None]()
        self.paid.require_room()
        if self.rate_limit is not None:
            await self.rate_limit.wait()
        key = ("ask", owner.tenant_id, owner.job_id)
        call = asyncio.ensure_future(self.paid.through(key, lambda: self._call(owner, model, asked, pieces.put_nowait)))

        def ended(call: asyncio.Future[TextAnswer]) -> None:
            if not call.cancelled():
                call.exception()  # which whoever still listens gets
            pieces.put_nowait(None)

        call.add_done_callback(ended)
        try:
            while (piece := await pieces.get()) is not None:
                for claim in reader.read(piece):
                    yield claim
            answer = _written(await call)
        finally:
            call.cancel()  # the one who asks has gone; what is paid for goes on by itself
        for claim in reader.rest(answer) if answer.is_answered else ():
            yield claim

    async def _call(self, owner: _Owner, model: TextModel, asked: TextPrompt[Any], said: Said) -> TextAnswer:
        """One call, and what it used up is stored, although the one who asks has gone."""
        try:
            answer = await model.answer(asked, said)
        except Transient as exc:
            if self.rate_limit is not None:
                await self.rate_limit.failed(exc)
            raise
        # With a hash of what was asked: the ids of some servers are three digits.
        ref = readable(f"{answer.ref[:200]}~{ref_of(asked.content)[:12]}")
        usage = used(owner, model.name.partition("/")[0], ref, answer.usage)
        await until_stored(lambda: self.database.record_usage(usage))
        self.metrics.used(usage)
        if self.rate_limit is not None:
            with contextlib.suppress(Unavailable):
                await self.rate_limit.worked()
        return answer


def _prompt(
    question: str, earlier: Sequence[Turn], passages: Sequence[Passage], speaker: str | None
) -> TextPrompt[WrittenAnswer]:
    content = {
        "question": question,
        **({} if speaker is None else {"speaker": speaker}),
        "earlier": [{"question": turn.question, "answer": turn.answer} for turn in earlier],
        "passages": [_shown(passage) for passage in passages],
    }
    return TextPrompt(prompt("ask", PROMPT), json.dumps(content, ensure_ascii=False), WrittenAnswer, max_tokens=4096)


def _written(answer: TextAnswer) -> WrittenAnswer:
    """The whole answer. Raises ProviderError if it is of no use."""
    if answer.text is None:
        raise ProviderError(answer.fault or "the answer is empty")
    try:
        return WrittenAnswer.model_validate_json(answer.text)
    except ValidationError as exc:
        raise ProviderError("the answer is not what was asked for") from exc


def _shown(passage: Passage) -> dict[str, Any]:
    """A passage as the model reads it."""
    lines = [f"{one.speaker}: {one.text}" if one.speaker else one.text for one in passage.utterances]
    return {"number": passage.number, "call": passage.chunk.created_at.date().isoformat(), "text": "\n".join(lines)}


def _checked(claim: AnswerClaim, passages: Sequence[Passage], speaker: str | None) -> Claim:
    """The claim with the moments at which its quotation was said, in the passages that it names: by this speaker, where
    only what one says is asked.
    """
    cited = [passages[n - 1] for n in dict.fromkeys(claim.passages) if 1 <= n <= len(passages)]
    places = (_said(claim.quote, passage, speaker) for passage in cited)
    return Claim(claim.text, claim.quote, [place for place in places if place is not None])


def _said(quote: str, passage: Passage, speaker: str | None) -> Citation | None:
    """Where a quotation begins; None if it does not stand in the passage, or is no quotation."""
    for is_asked, group in groupby(passage.utterances, key=lambda one: speaker in (None, one.speaker)):
        utterances = [*group]
        spoken = [(word, one) for one in utterances for word in _WORD.finditer(one.text)]
        found = quoted([word.group() for word, _ in spoken], quote) if is_asked else range(0)
        if found and says_enough(quote, found, (one.text for one in utterances)):
            word, utterance = spoken[found.start]
            return Citation(passage.number, passage, utterance, utterance.moment(word.start()))
    return None
