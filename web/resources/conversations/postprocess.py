"""`/api/v1/postprocess`: a conversation is asked for, followed and cancelled.

The paths, the fields and `{success, message, data}` are those of an interface that programs use already; its errors
are problem documents as everywhere, with `success: false` and `message` besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from aiohttp import web
from pydantic import Field

from schemas.conversations.names import conversation_of, job_of
from schemas.conversations.processing import Processing, processing
from schemas.errors import NotFound, UnsupportedOption
from schemas.events.conversation import ConversationOptions, ConversationRequested
from schemas.jobs.rows import File, Job
from schemas.summaries import Summary
from web.auth.access import READ, WRITE
from web.parameters import Flag, Parameters
from web.problems import NO_TENANT, ApiProblem
from web.resources.conversations.urls import PATH, FileName, FileUrls, files_of
from web.resources.conversations.views import (
    ACCEPTED,
    DETAILS,
    MESSAGES,
    REQUEST,
    AcceptedAnswer,
    NewConversation,
    ProcessingAnswer,
    accepted,
    details,
)
from web.resources.jobs.blob_response import Redirect, file_responses, send_file
from web.resources.summaries.reading import stored_summary
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.auth.caller import Caller
    from web.connections.caller_limit import CallerLimit
    from web.resources.conversations.ports import TakesConversations

NO_PROCESSING: Final = "there is no such processing"

#: Those of its files: transcript, recording, report.
MEDIA_TYPES: Final = ("text/plain", "audio/mpeg", "application/pdf")

#: Bytes of a request.
MAX_BYTES: Final = 16_384


class OfProcessing(Parameters):
    """Names the processing of a conversation."""

    processing_id: str = Field(max_length=64, description="of the answer to the request")


class ShowParameters(OfProcessing):
    """How it is shown."""

    renew: Flag = Field(False, description="true: other URLs, even where the last ones are still valid")


class FileParameters(OfProcessing):
    """One of its files."""

    name: Literal["transcript", "audio", "report"]
    redirect: Redirect = True


@dataclass(frozen=True)
class Postprocess:
    """The processing of conversations."""

    reads: Reads
    store: Store
    conversations: TakesConversations
    urls: FileUrls
    streams: CallerLimit

    def routes(self) -> list[AnyRoute]:
        """Ask, show, cancel; and the files."""
        one: dict[str, Any] = {"path": f"{PATH}/{{processing_id}}", "says_success": True}
        return [
            Route(
                method="POST",
                path=f"{PATH}/conversation",
                operation_id="postprocess_conversation",
                summary="Have a conversation of an ElevenLabs agent fetched, summarised, and its report mailed",
                handler=self.request,
                parameters=Parameters,
                body=RequestBody(NewConversation, REQUEST, max_bytes=MAX_BYTES),
                responses={
                    202: ResponseSpec("it is on its way, by this request or an earlier one", AcceptedAnswer, ACCEPTED),
                    200: ResponseSpec("it is complete since an earlier request", AcceptedAnswer, ACCEPTED),
                    409: ResponseSpec("an upload has the conversation's reference"),
                    422: ResponseSpec("conversations are not processed here"),
                },
                access=WRITE,
                accepts_idempotency_key=True,
                says_success=True,
            ),
            Route(
                method="GET",
                operation_id="postprocess_processing",
                summary="How far a conversation is, with its files and its summary",
                handler=self.show,
                parameters=ShowParameters,
                responses={200: ResponseSpec("as PostgreSQL has it", ProcessingAnswer, DETAILS)},
                access=READ,
                **one,
            ),
            Route(
                method="DELETE",
                operation_id="cancel_postprocess_processing",
                summary="End the processing of a conversation; what is stored stays",
                handler=self.cancel,
                parameters=OfProcessing,
                responses={
                    200: ResponseSpec("it is cancelled; asked for again, it goes on", ProcessingAnswer, DETAILS),
                    409: ResponseSpec("nothing of it goes on any more"),
                },
                access=WRITE,
                **one,
            ),
            Route(
                method="GET",
                path=f"{PATH}/{{processing_id}}/files/{{name}}",
                says_success=True,
                operation_id="postprocess_file",
                summary="A file of a conversation: its transcript, recording or report",
                handler=self.file,
                parameters=FileParameters,
                responses=file_responses("the file", *MEDIA_TYPES),
                is_streamed=True,
            ),
        ]

    async def request(self, request: ApiRequest[Parameters, NewConversation]) -> web.StreamResponse:
        """Begin the processing, or tell of the one that there is."""
        body, caller = request.body, request.caller
        if not caller.sees(body.account_id):
            raise NotFound(NO_TENANT)
        wanted = ConversationRequested(
            tenant_id=body.account_id,
            conversation_id=body.conversation_id,
            email_id=body.email_id,
            options=body.options or ConversationOptions(),
        )
        try:
            taken = await self.conversations.request(wanted, caller.id)
        except UnsupportedOption as exc:
            raise ApiProblem("unprocessable", str(exc)) from exc
        job, now = taken.job, await self.urls.database.now()
        # The moment in which it is begun, nothing is done yet.
        state = Processing("pending", 0) if taken.begun else processing(job)
        answer = AcceptedAnswer(
            success=True,
            message=_said(job, state, body.email_id, begun=taken.begun, known=taken.known),
            data=accepted(job, body.conversation_id, state, now),
        )
        headers = {"Location": f"{PATH}/{answer.data.processing_id}"}
        is_complete = state.status in ("completed", "archived")
        return web.json_response(text=answer.model_dump_json(), status=200 if is_complete else 202, headers=headers)

    async def show(self, request: ApiRequest[ShowParameters, None]) -> ProcessingAnswer:
        """The processing as it is."""
        job, _ = await self._job(request.parameters, request.caller)
        return await self._answer(job, renew=request.parameters.renew)

    async def cancel(self, request: ApiRequest[OfProcessing, None]) -> ProcessingAnswer:
        """End it."""
        job, _ = await self._job(request.parameters, request.caller)
        return await self._answer(await self.conversations.cancel(job, "cancelled over HTTP", request.caller.id))

    async def file(self, request: ApiRequest[FileParameters, None]) -> web.StreamResponse:
        """A redirect to object storage if it makes links, else the file."""
        names = request.parameters
        with self.streams.acquire(request.caller):
            job, conversation_id = await self._job(names, request.caller)
            name: FileName = names.name
            file = files_of(job, await self.reads.files(*job.key)).get(name)
            if file is None:
                raise NotFound(f"there is no {name} of this conversation, or not yet")
            extension = file.uri.rpartition(".")[2]
            filename = f"{conversation_id}.{extension}"
            return await send_file(request.http, self.store, file, filename, redirect=names.redirect)

    async def _job(self, names: OfProcessing, caller: Caller) -> tuple[Job, str]:
        """The job of a processing id, and its conversation. Raises NotFound."""
        job_id = job_of(names.processing_id)
        found = await self.reads.find(caller.whose, job_id, 1) if job_id is not None else []
        conversation_id = conversation_of(found[0]) if found else None
        if conversation_id is None:
            raise NotFound(NO_PROCESSING)
        return found[0], conversation_id

    async def _answer(self, job: Job, *, renew: bool = False) -> ProcessingAnswer:
        files = await self.reads.files(*job.key)
        shown = await self.urls.of(job, files_of(job, files), renew=renew)
        state = processing(job, has_files=bool(files))
        return ProcessingAnswer(
            success=True,
            message=MESSAGES[state.status],
            data=details(
                job,
                conversation_of(job) or "",
                state,
                shown,
                await self._summary(job, files),
                await self.urls.database.now(),
            ),
        )

    async def _summary(self, job: Job, files: list[File]) -> Summary | None:
        """The newest summary; None if there is none, or the store has lost it."""
        try:
            return await stored_summary(self.store, files, job.run, job.transcript_version)
        except NotFound:
            return None


def _said(job: Job, state: Processing, email_id: str, *, begun: bool, known: bool) -> str:
    """The message of the answer to a request."""
    if begun:
        return "The conversation goes on where it ended." if known else "The conversation is on its way."
    others = [address for address in job.options.get("mail_to") or () if address != email_id]
    whom = " The report goes to the address of the first request." if others else ""
    if state.ended:
        return MESSAGES[state.status] + whom
    return f"The conversation is being processed already.{whom}"
