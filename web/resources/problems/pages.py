"""`/problems` and `/problems/{code}`: what each kind of error means, and what to do about it."""

from __future__ import annotations

from html import escape
from http import HTTPStatus
from typing import Final

from aiohttp import web
from pydantic import Field

from schemas.errors import NotFound
from schemas.events.base import Data
from web.auth.access import PUBLIC
from web.parameters import Parameters
from web.resources.problems.codes import CODES
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

#: The pages' style sheets are the console's and that of `/docs`.
_CSP: Final = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"


class ProblemKind(Data):
    """One kind of error."""

    code: str
    status: int
    title: str
    meaning: str
    remedy: str = Field(description="what to do")


class ProblemKinds(Data):
    """Every kind of error that there is."""

    problems: list[ProblemKind]


class ProblemParameters(Parameters):
    """Which kind of error."""

    code: str = Field(max_length=100)


def _kind(code: str) -> ProblemKind:
    one = CODES[code]
    return ProblemKind(
        code=code,
        status=one.status,
        title=HTTPStatus(one.status).phrase,
        meaning=one.meaning,
        remedy=one.remedy,
    )


class ProblemPages:
    """The pages that `type` of a problem document leads to; JSON for programs, HTML for browsers."""

    def routes(self) -> list[AnyRoute]:
        """The list and the pages."""
        example = _kind("rate_limited").model_dump()
        return [
            Route(
                method="GET",
                path="/problems",
                operation_id="problems",
                summary="Every kind of error",
                handler=self.all,
                parameters=Parameters,
                responses={200: ResponseSpec("by code", ProblemKinds, {"problems": [example]})},
                access=PUBLIC,
            ),
            Route(
                method="GET",
                path="/problems/{code}",
                operation_id="problems_code",
                summary="What one kind of error means, and what to do about it",
                handler=self.one,
                parameters=ProblemParameters,
                responses={
                    200: ResponseSpec(
                        "in HTML where `Accept` names it", ProblemKind, example, media_types=("text/html",)
                    ),
                    404: ResponseSpec("there is no such code"),
                },
                access=PUBLIC,
            ),
        ]

    async def all(self, _: ApiRequest[Parameters, None]) -> ProblemKinds:
        """The list."""
        return ProblemKinds(problems=[_kind(code) for code in CODES])

    async def one(self, request: ApiRequest[ProblemParameters, None]) -> web.StreamResponse:
        """One page."""
        if request.parameters.code not in CODES:
            raise NotFound("there is no such code; /problems lists them all")
        kind = _kind(request.parameters.code)
        if "text/html" not in request.http.headers.get("Accept", ""):
            return web.json_response(text=kind.model_dump_json(), headers={"Vary": "Accept"})
        return web.Response(
            text=_page(kind), content_type="text/html", headers={"Vary": "Accept", "Content-Security-Policy": _CSP}
        )


def _page(kind: ProblemKind) -> str:
    title = escape(f"{kind.status} {kind.title}: {kind.code}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<link rel="stylesheet" href="/static/console.css"><link rel="stylesheet" href="/static/docs/docs.css">'
        '<main class="problem"><section class="job"><h1>'
        f"{title}</h1><p>{escape(kind.meaning)}</p><p>{escape(kind.remedy)}</p>"
        '<p class="faint"><a href="/docs">The HTTP interface</a></p></section></main></html>'
    )
