"""`/jobs/{id}/status`: the current status of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from web.resources.jobs.job_view import EXAMPLE, JobView, job_json, job_view
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.events.job import JobStatus
    from sinks.ports.providers.slots import Slots
    from web.live.statuses import Statuses


class JobStatuses:
    """The status of a job."""

    def __init__(self, statuses: Statuses, queue: Slots | None = None) -> None:
        self._statuses, self._queue = statuses, queue

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/status",
                operation_id="jobs_id_status",
                summary="The current status of a job",
                handler=self.status,
                parameters=JobSelector,
                responses={
                    200: ResponseSpec("as new as the job's row in PostgreSQL", JobView, EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
            )
        ]

    async def status(self, request: ApiRequest[JobSelector, None]) -> web.StreamResponse:
        """The status; the header `X-Concord-Source` tells where it was read."""
        current = await self._statuses.newest(*request.parameters.scope(request.caller))
        queued = [name for name, step in current.status.steps.items() if step.state == "queued"]
        if queued and self._queue is not None:
            status = await self._with_positions(self._queue, current.status, queued)
            body = job_view(status, operator=request.caller.is_operator).model_dump_json().encode()
        else:
            body = job_json(current.status, operator=request.caller.is_operator)
        headers = {"X-Concord-Source": current.source}
        return web.Response(body=body, content_type="application/json", headers=headers)

    @staticmethod
    async def _with_positions(queue: Slots, status: JobStatus, queued: Sequence[str]) -> JobStatus:
        """The status with the places of its queued recognizers at this moment."""
        steps, key = dict(status.steps), (status.tenant_id, status.job_id, status.run)
        for name in queued:
            position = await queue.queue_position(*key, name.partition(".")[2])
            steps[name] = steps[name].model_copy(update={"position": position})
        return status.model_copy(update={"steps": steps})
