"""`DELETE /jobs/{id}` and `/deletions/{id}`: jobs that are deleted for good, and the receipts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web
from pydantic import Field

from schemas.errors import NotFound
from schemas.events.base import Data
from schemas.ids import canonical_uuid, job_of_reference
from web.auth.access import WRITE
from web.live.job_lookup import find_job
from web.parameters import Parameters
from web.problems import NO_JOB
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.ids import Whose
    from schemas.jobs.deletion import Deletion
    from sinks.ports.reads import Reads
    from sinks.ports.tenants import PerTenant
    from sinks.ports.upkeep.deletions import Deletions as DeletionPort

#: The answer about a deletion that does not exist, and about another tenant's.
NO_DELETION = "there is no such deletion"

EXAMPLE = {
    "id": "0d9f0c9e-5b1e-5f39-8d5a-0d3a5f6f2b11",
    "tenant_id": "acme",
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "scope": "job",
    "state": "done",
    "requested_by": "key_7f3a",
    "requested_at": "2026-11-30T12:00:00Z",
    "done_at": "2026-11-30T12:00:02Z",
    "erased": {
        "rows": {"audit_log": 9, "files": 3, "jobs": 1, "provider_requests": 2, "transcripts": 1},
        "blobs": 6,
        "recorded_bytes": 1048576,
        "providers": {"assemblyai": 1},
    },
    "remaining": {"assemblyai": 0},
    "kept": [{"what": "Kafka topic persisted", "why": "events name the job", "until": "2026-12-07T12:00:02Z"}],
    "error": None,
}


class Erased(Data):
    """What a deletion has removed so far."""

    rows: dict[str, int] = Field(description="by table of the database")
    blobs: int
    recorded_bytes: int = Field(description="bytes of those blobs whose size the job's files gave")
    providers: dict[str, int] = Field(description="requests, by recognizer that has deleted its copy")


class Kept(Data):
    """What stays after a deletion."""

    what: str
    why: str
    until: datetime | None = Field(None, description="when it goes by itself, if that is known")


class DeletionView(Data):
    """A deletion, and its receipt once it is done."""

    id: str
    tenant_id: str
    job_id: str
    scope: Literal["job", "files"] = Field(description="everything, or the recording and the other files alone")
    state: Literal["running", "done"]
    requested_by: str
    requested_at: datetime
    done_at: datetime | None = None
    erased: Erased
    remaining: dict[str, int] = Field(description="copies that are still to be deleted, by recognizer")
    kept: list[Kept]
    error: str | None = Field(None, description="why the last attempt could not remove all that is left")


class DeletionSelector(Parameters):
    """Names a deletion."""

    id: str = Field(max_length=64)


class Deletions:
    """Deletes jobs, and shows receipts."""

    def __init__(self, reads: Reads, database: PerTenant[DeletionPort]) -> None:
        self._reads, self._database = reads, database

    def routes(self) -> list[AnyRoute]:
        """Both routes."""
        begun = "the job is gone for every caller; copies of it are being removed, and the receipt is at `Location`"
        done = "nothing is left but what `kept` lists"
        running = EXAMPLE | {"state": "running", "done_at": None}
        return [
            Route(
                method="DELETE",
                path="/jobs/{id}",
                operation_id="jobs_id_delete",
                summary="Delete a job with every copy of its recording and transcript",
                handler=self.delete,
                parameters=JobSelector,
                access=WRITE,
                responses={
                    200: ResponseSpec(f"a repeat: {done}", DeletionView, EXAMPLE),
                    202: ResponseSpec(begun, DeletionView, running),
                    409: ResponseSpec(AMBIGUOUS),
                },
            ),
            Route(
                method="GET",
                path="/deletions/{id}",
                operation_id="deletions_id",
                summary="The state of a deletion, and what it has removed and left",
                handler=self.receipt,
                parameters=DeletionSelector,
                responses={
                    200: ResponseSpec(done, DeletionView, EXAMPLE),
                    202: ResponseSpec("copies are still being removed", DeletionView, running),
                },
            ),
        ]

    async def delete(self, request: ApiRequest[JobSelector, None]) -> web.Response:
        """Begin the deletion, or show that of a job that is deleted already."""
        whose, name = request.parameters.scope(request.caller)
        return _response(await self._deleted(whose, name, request.caller.id))

    async def _deleted(self, whose: Whose, name: str, by: str) -> Deletion:
        try:
            job = await find_job(self._reads, whose, name)
        except NotFound:
            return await self._earlier(whose, name)
        begun = await self._database.acting_as(job.tenant_id).begin_deletion(job.key, by)
        return begun or await self._earlier(whose, job.job_id)  # another request was first

    async def _earlier(self, whose: Whose, name: str) -> Deletion:
        """The deletion of a job that had this id, or whose id follows from this reference.

        Raises:
            NotFound: there is none.
        """
        ids = [canonical_uuid(name) or name]
        if isinstance(whose, str):
            ids.append(job_of_reference(whose, name))
        deletion = await self._reads.deletion_of(whose, ids)
        if deletion is None:
            raise NotFound(NO_JOB)
        return deletion

    async def receipt(self, request: ApiRequest[DeletionSelector, None]) -> web.Response:
        """The deletion as it is now."""
        id = canonical_uuid(request.parameters.id)
        deletion = await self._reads.deletion(request.caller.whose, id) if id else None
        if deletion is None:
            raise NotFound(NO_DELETION)
        return _response(deletion)


def _response(deletion: Deletion) -> web.Response:
    view = deletion_view(deletion)
    return web.Response(
        status=200 if view.state == "done" else 202,
        body=view.model_dump_json().encode(),
        content_type="application/json",
        headers={"Location": f"/deletions/{deletion.id}"},
    )


def deletion_view(deletion: Deletion) -> DeletionView:
    """What callers see of a deletion."""
    receipt: dict[str, Any] = deletion.receipt
    providers = [copy["provider"] for copy in deletion.copies]
    return DeletionView(
        id=deletion.id,
        tenant_id=deletion.tenant_id,
        job_id=deletion.job_id,
        scope=deletion.scope,
        state="running" if deletion.done_at is None else "done",
        requested_by=deletion.requested_by,
        requested_at=deletion.requested_at,
        done_at=deletion.done_at,
        erased=Erased(
            rows=receipt["rows"],
            blobs=receipt["blobs"],
            recorded_bytes=receipt["bytes"],
            providers=receipt["providers"],
        ),
        remaining={name: providers.count(name) for name in sorted(set(providers))},
        kept=receipt["kept"],
        error=deletion.error,
    )
