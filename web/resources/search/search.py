"""`/search`: the utterances of a tenant's transcripts that match, by their words and by their meaning."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Protocol

from aiohttp import web
from pydantic import Field, PlainValidator, WithJsonSchema

from schemas.errors import NotFound
from schemas.events.base import Moment
from schemas.ids import EVERY_TENANT, Name
from schemas.search.results import Mode, Results
from schemas.summaries import Sentiment, folded
from sinks.ports.search.reads import ChunkFilter
from web.auth.caller import Caller
from web.paging import NO_PLACE, decode_place, encode_place, next_link
from web.parameters import JobName, Parameters, TenantName, WholeNumber
from web.problems import NO_TENANT, FieldProblem, InvalidRequest
from web.resources.jobs.listing import Pairs, Part
from web.resources.search.views import EXAMPLE, SearchPage, hit_view, searched_view
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

#: Hits of a page, unless asked otherwise, and at most; and utterances around each, at most.
PAGE, MAX_PAGE, MAX_AROUND = 10, 50, 10

#: Characters of a question.
MAX_CHARS = 500

#: What PostgreSQL can be asked.
NO_NUL: Final = r"^[^\x00]*$"


class Searches(Protocol):
    """Searches transcripts; see `agents.search.searcher.Searcher`."""

    async def search(
        self,
        tenant: str,
        text: str,
        which: ChunkFilter,
        *,
        mode: Mode,
        language: str,
        limit: int,
        offset: int,
        around: int,
    ) -> Results:
        """A page of hits. Raises Unavailable and InvalidInput."""


def _decoded(text: str) -> tuple[int, str]:
    place = decode_place(text)
    if not (isinstance(place, list) and [type(part) for part in place] == [int, str] and 0 < place[0] < 10_000):
        raise ValueError(NO_PLACE)
    return place[0], place[1]


class FilterParameters(Parameters):
    """Which of a tenant's transcripts are asked."""

    tenant: TenantName | None = Field(None, description="whose transcripts, where an operator asks")
    job: JobName | None = Field(None, description="one job, by its id or its reference")
    reference: Part | None = Field(None, description="the reference of one job")
    created_from: Moment | None = Field(None, description="jobs uploaded at this moment or later (RFC 3339)")
    created_to: Moment | None = Field(None, description="jobs uploaded before this moment")
    speaker: Part | None = Field(
        None,
        description="what this speaker says; `/ask` reads the passages in which this speaker speaks, with what others "
        "say there, and cites only this speaker",
    )
    recognizer: Name | None = Field(None, description="transcripts to which this recognizer contributed")
    metadata: Pairs | None = Field(None, description="key:value of the upload's metadata, as in lists of jobs")
    entity: Part | None = Field(
        None,
        description="calls in whose summary this is named, in upper or lower case, as in lists of entities",
    )
    sentiment: Sentiment | None = Field(None, description="calls that go so, as their summary has it")

    @property
    def which(self) -> ChunkFilter:
        """As a filter."""
        return ChunkFilter(
            created_from=self.created_from,
            created_to=self.created_to,
            job=self.job,
            reference=self.reference,
            speaker=self.speaker,
            recognizer=self.recognizer,
            metadata=self.metadata or frozenset(),
            entity=folded(self.entity) if self.entity else None,
            sentiment=self.sentiment,
        )

    def tenant_of(self, caller: Caller) -> str:
        """Whose transcripts are asked.

        Raises:
            NotFound: the caller does not see this tenant.
            InvalidRequest: an operator has to name one.
        """
        if self.tenant is not None and not caller.sees(self.tenant):
            raise NotFound(NO_TENANT)
        whose = self.tenant if self.tenant is not None else caller.whose
        if whose is EVERY_TENANT or not isinstance(whose, str):
            raise InvalidRequest([FieldProblem(parameter="tenant", detail="an operator names the tenant")])
        return whose


class SearchParameters(FilterParameters):
    """What is looked for, and where."""

    q: Annotated[str, Field(min_length=1, max_length=MAX_CHARS, pattern=NO_NUL)] = Field(
        description='words or a question; "a phrase", the beginning of a word (`invo*`), `-unwanted`',
        examples=["what discount did we agree on"],
    )
    mode: Mode = Field("hybrid", description="`text`: by words alone; `vectors`: by meaning alone")
    language: Annotated[str, Field(max_length=35, pattern="^[A-Za-z0-9-]+$")] = Field(
        "en", description="of the question: tells which of its words are rare. All transcripts are searched"
    )
    around: Annotated[int, WholeNumber(MAX_AROUND, 0)] = Field(
        1, description="utterances that are shown before and after each"
    )
    limit: Annotated[int, WholeNumber(MAX_PAGE)] = PAGE
    cursor: Annotated[tuple[int, str], PlainValidator(_decoded), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next` of the page before, with the same question and filters"
    )

    def fingerprint(self) -> str:
        """Tells whether a cursor is of the same question."""
        asked = self.model_dump_json(exclude={"cursor", "limit", "around"})
        return hashlib.sha256(asked.encode()).hexdigest()[:12]

    def offset(self) -> int:
        """Where the page begins.

        Raises:
            InvalidRequest: the cursor is of another question.
        """
        if self.cursor is None:
            return 0
        offset, fingerprint = self.cursor
        if fingerprint != self.fingerprint():
            raise InvalidRequest([FieldProblem(parameter="cursor", detail=NO_PLACE)])
        return offset


class Search:
    """The search of transcripts."""

    def __init__(self, searches: Searches) -> None:
        self._searches = searches

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/search",
                operation_id="search",
                summary="The utterances of a tenant's transcripts that match, by their words and by their meaning",
                handler=self.search,
                parameters=SearchParameters,
                responses={200: ResponseSpec("one page of them, best first", SearchPage, EXAMPLE)},
            )
        ]

    async def search(self, request: ApiRequest[SearchParameters, None]) -> web.StreamResponse:
        """A page of what is found."""
        asked = request.parameters
        results = await self._searches.search(
            asked.tenant_of(request.caller),
            asked.q,
            asked.which,
            mode=asked.mode,
            language=asked.language,
            limit=asked.limit,
            offset=asked.offset(),
            around=asked.around,
        )
        following = results.following
        cursor = encode_place([following, asked.fingerprint()]) if following is not None else None
        page = SearchPage(
            hits=[hit_view(hit, operator=request.caller.is_operator) for hit in results.hits],
            next=cursor,
            searched=searched_view(results.searched),
        )
        return web.json_response(text=page.model_dump_json(), headers=next_link(request.http, cursor))
