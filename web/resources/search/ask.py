"""`/ask`: a question about calls, answered with citations to moments, as server-sent events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import ConfigDict, Field

from schemas.errors import ConcordError
from schemas.events.base import Data
from schemas.search.answers import AnswerPart, Claim, Ended, Found, Turn
from web.auth.access import READ
from web.resources.search.search import NO_NUL, FilterParameters
from web.resources.search.views import moment_links, searched_view
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from schemas.search.chunks import Chunk, Utterance
    from sinks.ports.search.reads import ChunkFilter
    from web.connections.caller_limit import CallerLimit

#: Characters of a question and of an answer, and earlier questions of a conversation.
MAX_QUESTION, MAX_ANSWER, MAX_EARLIER = 1000, 8000, 10


class Answers(Protocol):
    """Answers questions; see `agents.search.ask.Asker`."""

    def ask(
        self,
        tenant: str,
        question: str,
        earlier: Sequence[Turn],
        which: ChunkFilter,
        language: str,
        conversation: UUID | None = None,
    ) -> AsyncIterator[AnswerPart]:
        """The parts of an answer. Raises Conflict and Unavailable before the first."""


class TurnBody(Data):
    """An earlier question of the conversation."""

    model_config = ConfigDict(extra="forbid")

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION, pattern=NO_NUL)]
    answer: Annotated[str, Field(max_length=MAX_ANSWER)]


class AskBody(Data):
    """A question. A filter that stands here by mistake is refused: without it, everything would be asked."""

    model_config = ConfigDict(extra="forbid")

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION, pattern=NO_NUL)]
    earlier: Annotated[list[TurnBody], Field(max_length=MAX_EARLIER)] = Field(
        default_factory=list, description="earlier questions of the conversation, with what was answered, oldest first"
    )
    conversation: UUID | None = Field(
        None, description="of the earlier answer's `passages`: what it uses is recorded as `conversation-ID`"
    )
    language: Annotated[str, Field(max_length=35, pattern="^[A-Za-z0-9-]+$")] = Field(
        "en", description="of the question: tells which of its words are rare"
    )


Request = ApiRequest[FilterParameters, AskBody]

_EXAMPLE: Final = {"question": "What discount did we agree on with Acme?"}


class Ask:
    """Questions about a tenant's calls."""

    def __init__(self, answers: Answers, streams: CallerLimit) -> None:
        self._answers, self._streams = answers, streams

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="POST",
                path="/ask",
                operation_id="ask",
                summary="Ask about a job, jobs by filter, or all of a tenant's calls; the answer cites moments",
                handler=self.ask,
                parameters=FilterParameters,
                body=RequestBody(AskBody, _EXAMPLE),
                responses={
                    200: ResponseSpec(
                        "events: `passages` (numbered, with links to their moments), `claim` for each sentence as soon "
                        "as it is written and checked (with the moments of its quotation; `is_supported` is false if "
                        "that was not said), and `end` with "
                        "`result`: answered, not_in_these_calls, or passages_only with the reason",
                        media_type="text/event-stream",
                    ),
                    409: ResponseSpec("the tenant has used its tokens of this month"),
                },
                access=READ,
                is_streamed=True,
            )
        ]

    async def ask(self, request: Request) -> web.StreamResponse:
        """The parts of the answer, as they are known."""
        asked, body = request.parameters, request.body
        earlier = [Turn(turn.question, turn.answer) for turn in body.earlier]
        tenant = asked.tenant_of(request.caller)
        with self._streams.acquire(request.caller):
            question = (tenant, body.question, earlier, asked.which, body.language, body.conversation)
            parts = aiter(self._answers.ask(*question))
            first = await anext(parts)  # what is wrong with the question is told before the stream begins
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            await stream.prepare(request.http)
            operator = request.caller.is_operator
            try:
                await stream.write(_event(first, operator=operator))
                async for part in parts:
                    await stream.write(_event(part, operator=operator))
            except ConnectionError:
                pass  # the client has disconnected
            except ConcordError:
                end = Ended("passages_only", reason="a server that the answer needs is away at the moment: ask again")
                await stream.write(_event(end, operator=operator))
            return stream


def _event(part: AnswerPart, *, operator: bool) -> bytes:
    name, data = _named(part, operator=operator)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def _named(part: AnswerPart, *, operator: bool) -> tuple[str, dict[str, Any]]:
    match part:
        case Found(passages, searched, conversation):
            shown = [
                {"number": p.number} | _moment(p.chunk, p.chunk.spoken[0], p.chunk.start_ms, operator=operator)
                for p in passages
            ]
            how = searched_view(searched).model_dump()
            return "passages", {"conversation": str(conversation), "passages": shown, "searched": how}
        case Claim(text, quote, citations):
            places = [
                {"number": c.number} | _moment(c.passage.chunk, c.utterance, c.start_ms, operator=operator)
                for c in citations
            ]
            return "claim", {"text": text, "quote": quote, "is_supported": bool(places), "citations": places}
        case Ended(result, model, reason):
            return "end", {"result": result, "model": model, "reason": reason}


def _moment(chunk: Chunk, said: Utterance, start_ms: int | None, *, operator: bool) -> dict[str, Any]:
    """A moment of a call, with what is said there."""
    return {
        "job_id": chunk.job_id,
        "start_ms": start_ms,
        "end_ms": said.end_ms,
        "speaker": said.speaker,
        "text": said.text,
        "word_ids": said.word_ids,
        "links": moment_links(chunk.tenant_id, chunk.job_id, start_ms, operator=operator),
    }
