"""`/webhooks/elevenlabs`: ElevenLabs' post-call webhooks, each of which begins the processing of its conversation.

A webhook is a hint and no more: of its body only two ids are taken, whose conversation it is follows from the accounts'
settings, and the conversation is fetched from ElevenLabs as if it had been asked for. So a lost webhook costs time, for
the agents' lists are read as well, and a repeated one does nothing. Bodies with a recording have megabytes: all of it
goes through the signature, and only its beginning, which has the ids, is kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from schemas.accounts.settings import AgentId
from schemas.conversations.names import ConversationId
from schemas.errors import Conflict, UnsupportedOption
from schemas.events.conversation import ConversationRequested
from schemas.webhooks.elevenlabs import HEADER, Signature
from schemas.webhooks.signature import BadSignature
from web.auth.access import PUBLIC
from web.parameters import Parameters
from web.problems import FieldProblem, InvalidRequest
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route, StreamedBody

if TYPE_CHECKING:
    from pydantic import SecretStr

    from sinks.ports.conversations.agents import ConversationAgents
    from web.resources.conversations.ports import TakesConversations

log = logging.getLogger(__name__)

PATH: Final = "/webhooks/elevenlabs"

#: Bytes of a body, of which the first are kept, and seconds in which it must have arrived. A recording of an hour has
#: some 60 MB in base64.
MAX_BYTES, KEPT_BYTES, READ_S = 128 << 20, 1 << 16, 25.0

#: Bodies that are read at once by a worker: nobody knows who sends them before their end.
AT_ONCE: Final = 16

#: Events after which there is something to fetch.
_TYPES: Final = ("post_call_transcription", "post_call_audio")

#: Who asks, in the audit log.
AUTHOR: Final = "webhook of ElevenLabs"


class _Ids(BaseModel):
    agent_id: AgentId
    conversation_id: ConversationId


_BODY: Final = StreamedBody(
    {
        "application/json": {
            "type": "object",
            "required": ["type"],
            "anyOf": [
                {
                    "required": ["data"],
                    "properties": {"type": {"enum": list(_TYPES)}, "data": _Ids.model_json_schema()},
                },
                {"properties": {"type": {"type": "string", "not": {"enum": list(_TYPES)}}}},
            ],
        }
    },
    MAX_BYTES,
)


class _Event(BaseModel):
    type: str
    data: Any = None


class HintHeaders(Parameters):
    """Nothing but a header, which is checked with the body that it signs."""


@dataclass(frozen=True)
class ConversationHints:
    """The route that ElevenLabs calls."""

    conversations: TakesConversations
    agents: ConversationAgents
    secret: SecretStr = field(repr=False)
    #: Seconds since 1970.
    clock: Callable[[], float] = time.time
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="POST",
                path=PATH,
                operation_id="webhooks_elevenlabs",
                summary=f"A conversation of an ElevenLabs agent has ended; signed in {HEADER}",
                handler=self.receive,
                parameters=HintHeaders,
                streamed_body=_BODY,
                responses={
                    204: ResponseSpec("it is processed if its agent is in some account's settings, or was before"),
                    401: ResponseSpec("the signature is missing, wrong or old"),
                },
                access=PUBLIC,
            )
        ]

    async def receive(self, request: ApiRequest[HintHeaders, None]) -> None:
        """Begin the processing, for each account whose agent it is."""
        try:
            signature = Signature(self.secret.get_secret_value(), request.http.headers.get(HEADER, ""), self.clock())
            async with self.slots:
                head, is_all = await _read(request.http, signature)
            signature.check()
        except BadSignature as exc:
            raise web.HTTPUnauthorized(text=str(exc)) from None
        ids = _ids(head, is_all=is_all)
        if ids is None:
            return
        for tenant, email in await self.agents.owners_of_agent(ids.agent_id):
            await self._begin(tenant, email, ids.conversation_id)

    async def _begin(self, tenant: str, email: str, conversation_id: str) -> None:
        wanted = ConversationRequested(tenant_id=tenant, conversation_id=conversation_id, email_id=email)
        try:
            await self.conversations.begin_unknown(wanted, AUTHOR)
        except (UnsupportedOption, Conflict) as exc:
            # No error for ElevenLabs, which switches a webhook off that answers with many.
            log.warning("the conversation %s of %s is not processed: %s", conversation_id, tenant, exc)


async def _read(request: web.Request, signature: Signature) -> tuple[bytes, bool]:
    """The beginning of the body, and whether that is all of it; all of it goes into the signature.

    Raises:
        HTTPRequestEntityTooLarge: it is too long.
        HTTPRequestTimeout: it does not arrive in time.
    """
    head, length = bytearray(), 0
    try:
        async with asyncio.timeout(READ_S):
            async for part in request.content.iter_any():
                signature.add(part)
                length += len(part)
                if length > MAX_BYTES:
                    raise web.HTTPRequestEntityTooLarge(MAX_BYTES, length)
                head += part[: KEPT_BYTES - len(head)]
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return bytes(head), length == len(head)


def _ids(head: bytes, *, is_all: bool) -> _Ids | None:
    """The ids in the beginning of a signed body; None if it is about nothing that can be fetched, or has them not.

    Raises:
        InvalidRequest: it is no event.
    """
    try:
        event = _Event.model_validate(from_json(head, allow_partial=not is_all))
    except (ValidationError, ValueError):
        raise InvalidRequest([FieldProblem(pointer="#", detail="is no event of ElevenLabs")]) from None
    if event.type not in _TYPES:
        return None
    try:
        return _Ids.model_validate(event.data)
    except ValidationError:
        if is_all:
            fields = [FieldProblem(pointer="#/data", detail="has no agent_id and conversation_id of ElevenLabs")]
            raise InvalidRequest(fields) from None
        log.warning("a webhook of ElevenLabs has its ids behind its first %d bytes: it is left to the list", KEPT_BYTES)
        return None
