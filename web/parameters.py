"""Path and query parameters of HTTP requests: their base model, and the types that several routes use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import core_schema

from schemas.errors import NotFound
from schemas.ids import Name, Reference
from web.problems import NO_JOB, NO_TENANT, FieldProblem, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web
    from pydantic import GetCoreSchemaHandler

#: Most unknown parameters that an error names.
MAX_UNKNOWN: Final = 20

_NAME: TypeAdapter[str] = TypeAdapter(Name)
#: Every id is a possible reference, too.
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)


class Parameters(BaseModel):
    """Base of a route's parameters. Fields that the route's path names are path parameters, those that are annotated
    with a `Header` are request headers, all others are query parameters.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: Whether the parameters of recent requests are kept, which is worth it where clients ask again and again. Those
    #: with headers are not.
    is_remembered: ClassVar[bool] = False

    @classmethod
    def headers(cls) -> Mapping[str, str]:
        """By name of the field, the request headers among the parameters."""
        return _headers(cls)


@dataclass(frozen=True, slots=True)
class Header:
    """Annotates a parameter that is a request header, with the header's name."""

    name: str


@cache
def _headers(model: type[Parameters]) -> Mapping[str, str]:
    annotated = {
        name: [part for part in field.metadata if isinstance(part, Header)]
        for name, field in model.model_fields.items()
    }
    return {name: headers[0].name for name, headers in annotated.items() if headers}


@cache
def _in_query(model: type[Parameters], in_path: frozenset[str]) -> frozenset[str]:
    names = {field.alias or name for name, field in model.model_fields.items()}
    return frozenset(names - model.headers().keys() - in_path)


P = TypeVar("P", bound=Parameters)


#: Requests whose parameters are kept, and the characters of a query up to which they are.
REMEMBERED, SHORT = 4096, 160

#: By model, names in the path and query: the oldest first.
_recent: dict[tuple[Any, ...], Parameters] = {}


def read_parameters(model: type[P], request: web.Request) -> P:
    """The parameters of a request. An empty one counts as one that is left out, of a repeated one the first counts.

    Raises:
        InvalidRequest: some of them are wrong, or unknown; it names each.
        NotFound: the path names a thing that cannot exist.
    """
    query = request.rel_url.raw_query_string
    if not model.is_remembered or len(query) > SHORT or model.headers():
        return _read(model, request)
    asked = (model, query, *request.match_info.items())
    known = _recent.get(asked)
    if known is None:
        known = _recent[asked] = _read(model, request)
        if len(_recent) > REMEMBERED:
            del _recent[next(iter(_recent))]
    return cast("P", known)


def _read(model: type[P], request: web.Request) -> P:
    headers, in_query = model.headers(), _in_query(model, frozenset(request.match_info))
    sent = dict(request.match_info)
    if headers:
        sent |= {name: request.headers[header] for name, header in headers.items() if request.headers.get(header)}
    if request.query_string:
        sent |= {name: request.query[name] for name in in_query if request.query.get(name)}
    try:
        parameters = model.model_validate(sent)
    except ValidationError as exc:
        raise InvalidRequest.of_parameters(exc, headers) from None
    if not request.query_string:
        return parameters
    if unknown := [name for name in request.query if name not in in_query]:
        known = ", ".join(sorted(in_query)) or "none"
        problems = [
            FieldProblem(parameter=name[:100], detail=f"there is no such parameter here; there are: {known}")
            for name in dict.fromkeys(unknown)
        ]
        raise InvalidRequest(problems[:MAX_UNKNOWN])
    return parameters


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """Annotates an `int` parameter: decimal digits only, from `lowest` to `highest`."""

    highest: int
    lowest: int = 1

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        bounded = core_schema.int_schema(ge=self.lowest, le=self.highest)
        return core_schema.no_info_before_validator_function(self.parse, bounded)

    def parse(self, text: str) -> int:
        """The number that is written here.

        Raises:
            ValueError: it is no such number, or out of range.
        """
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        if not (is_number and self.lowest <= int(text) <= self.highest):
            raise ValueError(f"use a whole number from {self.lowest} to {self.highest}")
        return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("use true or false")
    return text == "true"


def job_name(text: str) -> str:
    """A job's id or reference.

    Raises:
        NotFound: no job can have this name; the same answer as for any other unknown job.
    """
    try:
        return _REFERENCE.validate_python(text)
    except ValidationError:
        raise NotFound(NO_JOB) from None


def tenant_name(text: str) -> str:
    """A tenant's name.

    Raises:
        NotFound: no tenant can have this name.
    """
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        raise NotFound(NO_TENANT) from None


#: `true` or `false`, and no other spelling.
Flag = Annotated[bool, BeforeValidator(_flag)]
JobName = Annotated[str, Field(max_length=255), BeforeValidator(job_name)]
TenantName = Annotated[str, Field(max_length=128), BeforeValidator(tenant_name)]


class OfTenant(Parameters):
    """Names a tenant."""

    tenant: TenantName
