"""`/jobs/{id}/transcript`: edits of a transcript, its versions, and its words with the ids by which they are edited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiohttp import web
from pydantic import Field

from schemas.corrections.changes import OutOfDate, RefusedChange, TranscriptPatch, WholeTranscript
from schemas.errors import NotFound
from web.auth.access import REVIEW
from web.conditions.preconditions import changed, check_if_match, etag
from web.live.job_lookup import find_job
from web.parameters import Header
from web.problems import FieldProblem, InvalidRequest
from web.resources.corrections.views import (
    VERSION_EXAMPLE,
    WORDS_EXAMPLE,
    VersionList,
    VersionView,
    WordList,
    run_version,
    version_view,
    word_view,
)
from web.resources.jobs.blob_response import hide_storage
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.resources.jobs.transcripts import (
    TranscriptParameters,
    VersionParameters,
    find_transcript,
    no_transcript,
    wanted_version,
)
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.corrections.rows import TranscriptVersion
    from schemas.jobs.rows import Transcript
    from web.resources.corrections.ports import CorrectionReads, Editor

#: Bytes of a whole transcript, as JSON: ten hours of speech.
MAX_WHOLE: Final = 8 << 20

_PATCH_EXAMPLE: Final = {
    "changes": [
        {"op": "replace", "word": "w118", "text": "Meyer"},
        {"op": "rename", "speaker": "A", "to": "Ann"},
    ],
    "reason": "the caller's name",
}
_PUT_EXAMPLE: Final = {"segments": [{"speaker": "Ann", "text": "Hello."}], "reason": "typed anew"}

_EDIT_RESPONSES: Final = {
    200: ResponseSpec("the new version; `ETag` is its tag", VersionView, VERSION_EXAMPLE),
    409: ResponseSpec(f"the job's run is not completed; or {AMBIGUOUS}"),
    412: ResponseSpec("`If-Match` is not the newest version, whose tag is in `ETag`"),
    428: ResponseSpec("`If-Match` is missing; `ETag` has the newest version's tag"),
}


class EditParameters(JobSelector):
    """The job, and which version was edited."""

    if_match: Annotated[str | None, Header("If-Match")] = Field(
        None, max_length=1000, description="the `ETag` of the version that you have edited; `*`: whichever is newest"
    )


class Edits:
    """Edits of transcripts, and their versions."""

    def __init__(self, reads: CorrectionReads, editor: Editor) -> None:
        self._reads, self._editor = reads, editor

    def routes(self) -> list[AnyRoute]:
        """The two ways to edit, and the two lists."""
        return [
            Route(
                method="PATCH",
                path="/jobs/{id}/transcript",
                operation_id="patch_jobs_id_transcript",
                summary="Change single words and speakers",
                handler=self.patch,
                parameters=EditParameters,
                body=RequestBody(TranscriptPatch, _PATCH_EXAMPLE),
                access=REVIEW,
                responses=_EDIT_RESPONSES,
            ),
            Route(
                method="PUT",
                path="/jobs/{id}/transcript",
                operation_id="put_jobs_id_transcript",
                summary="Replace the whole text; words that stay keep their times",
                handler=self.put,
                parameters=EditParameters,
                body=RequestBody(WholeTranscript, _PUT_EXAMPLE, max_bytes=MAX_WHOLE),
                access=REVIEW,
                responses=_EDIT_RESPONSES,
            ),
            Route(
                method="GET",
                path="/jobs/{id}/transcript/versions",
                operation_id="jobs_id_transcript_versions",
                summary="The versions of a transcript: who made them, when and why",
                handler=self.versions,
                parameters=TranscriptParameters,
                responses={
                    200: ResponseSpec("newest first", VersionList, {"versions": [VERSION_EXAMPLE]}),
                    409: ResponseSpec(AMBIGUOUS),
                },
            ),
            Route(
                method="GET",
                path="/jobs/{id}/transcript/words",
                operation_id="jobs_id_transcript_words",
                summary="The words of a transcript, with the ids by which they are edited",
                handler=self.words,
                parameters=VersionParameters,
                responses={
                    200: ResponseSpec("in order; `ETag` is the version's", WordList, WORDS_EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
            ),
        ]

    async def patch(self, request: ApiRequest[EditParameters, TranscriptPatch]) -> web.StreamResponse:
        """Change words and speakers."""

        async def edit(transcript: Transcript) -> TranscriptVersion:
            return await self._editor.patch(transcript, request.body, request.caller.id)

        return await self._edit(request, edit)

    async def put(self, request: ApiRequest[EditParameters, WholeTranscript]) -> web.StreamResponse:
        """Replace all of it."""

        async def edit(transcript: Transcript) -> TranscriptVersion:
            return await self._editor.rewrite(transcript, request.body, request.caller.id)

        return await self._edit(request, edit)

    async def _edit(
        self, request: ApiRequest[EditParameters, Any], edit: Callable[[Transcript], Awaitable[TranscriptVersion]]
    ) -> web.StreamResponse:
        transcript = await self._editable(request)
        check_if_match(request.parameters.if_match, _tag(transcript))
        try:
            with hide_storage("the transcript"):
                row = await edit(transcript)
        except RefusedChange as exc:
            raise InvalidRequest([FieldProblem(pointer=f"#{exc.pointer}", detail=str(exc))]) from None
        except OutOfDate:
            raise changed(_tag(await self._editable(request))) from None
        view = version_view(row)
        return web.json_response(text=view.model_dump_json(), headers={"ETag": view.etag})

    async def _editable(self, request: ApiRequest[EditParameters, Any]) -> Transcript:
        """The newest version of the job's transcript.

        Raises:
            HTTPConflict: the job's newest run has none.
        """
        job = await find_job(self._reads, *request.parameters.scope(request.caller))
        transcript = await self._reads.transcript(*job.key)
        if transcript is None:
            raise NotFound(no_transcript(job, None))
        if job.status != "completed" or transcript.run != job.run:
            raise web.HTTPConflict(text=f"run {job.run} of the job is {job.status}: only a completed one can be edited")
        return transcript

    async def versions(self, request: ApiRequest[TranscriptParameters, None]) -> VersionList:
        """All versions of a run's transcript."""
        transcript = await find_transcript(self._reads, request)
        rows = await self._reads.versions(transcript.tenant_id, transcript.job_id, transcript.run)
        made = [version_view(row) for row in rows]
        return VersionList(versions=[*made, run_version(transcript)])

    async def words(self, request: ApiRequest[VersionParameters, None]) -> web.StreamResponse:
        """The words of a version."""
        transcript = await find_transcript(self._reads, request)
        version = wanted_version(transcript, request.parameters.version)
        with hide_storage("the transcript"):
            words = await self._editor.words(transcript, version)
        view = WordList.model_construct(run=transcript.run, version=version, words=[word_view(w) for w in words])
        body = await asyncio.to_thread(view.model_dump_json)  # an hour of speech has a megabyte
        return web.json_response(text=body, headers={"ETag": etag(transcript.run, version)})


def _tag(transcript: Transcript) -> str:
    return etag(transcript.run, transcript.version)
