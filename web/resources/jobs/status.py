"""`/jobs/{id}/status`: the current status of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from web.resources.jobs.job_view import EXAMPLE, JobView, job_json
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from web.live.statuses import Statuses


class JobStatuses:
    """The status of a job."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses

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
        body = job_json(current.status, operator=request.caller.is_operator)
        headers = {"X-Concord-Source": current.source}
        return web.Response(body=body, content_type="application/json", headers=headers)
