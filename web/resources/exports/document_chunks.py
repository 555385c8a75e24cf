"""`/jobs/{id}/document/chunks`: the Markdown document of a job, in passages by its headings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import Field

from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.jobs.rows import newest_file
from web.live.job_lookup import find_job
from web.resources.jobs.blob_response import hide_storage
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.accounts.settings import AccountSettings
    from sinks.ports.accounts.settings import EffectiveSettings
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads


class Chunk(Protocol):
    """A passage; see `agents.text.chunks.markdown.MarkdownChunk`."""

    @property
    def headings(self) -> tuple[str, ...]: ...

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def text(self) -> str: ...

    @property
    def tokens(self) -> int: ...


class ChunkView(Data):
    """A passage of the document."""

    headings: list[str] = Field(description="under which it begins, the highest first")
    start: int = Field(description="its first character in the document")
    end: int = Field(description="the one behind its last")
    text: str
    tokens: int = Field(description="of four characters, or one in scripts without spaces")


class DocumentChunks(Data):
    """A job's document in passages."""

    job_id: str
    run: int
    transcript_version: int
    chunks: list[ChunkView]


_EXAMPLE: Final = {
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "run": 1,
    "transcript_version": 1,
    "chunks": [{"headings": ["A call"], "start": 0, "end": 17, "text": "# A call\n\nHello.\n", "tokens": 5}],
}


@dataclass(frozen=True)
class JobDocumentChunks:
    """The document of a job in passages; `divided` makes them, as long as the tenant's settings have it."""

    reads: Reads
    store: Store
    accounts: EffectiveSettings
    divided: Callable[[str, AccountSettings], Sequence[Chunk]]

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/document/chunks",
                operation_id="jobs_id_document_chunks",
                summary="A job's Markdown document in passages by its headings, for indexes of your own",
                handler=self.chunks,
                parameters=JobSelector,
                responses={
                    200: ResponseSpec("in their order", DocumentChunks, _EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
            )
        ]

    async def chunks(self, request: ApiRequest[JobSelector, None]) -> DocumentChunks:
        """The passages of the newest document."""
        job = await find_job(self.reads, *request.parameters.scope(request.caller))
        file = newest_file(await self.reads.files(*job.key), "document", job.run, job.transcript_version)
        if file is None:
            raise NotFound("there is no document of this job")
        with hide_storage("the document"):
            text = (await self.store.get(file.uri)).decode()
        settings = await self.accounts.settings_of(job.tenant_id)
        # In a thread: the document of a long call has a megabyte.
        divided = await asyncio.to_thread(self.divided, text, settings)
        names = ChunkView.model_fields
        return DocumentChunks(
            job_id=job.job_id,
            run=job.run,
            transcript_version=job.transcript_version,
            chunks=[ChunkView(**{name: getattr(chunk, name) for name in names}) for chunk in divided],
        )
