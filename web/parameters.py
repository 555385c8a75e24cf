"""Path and query parameters of HTTP requests: their base model, and the types that several routes use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import core_schema

from schemas.errors import NotFound
from schemas.ids import Name, Reference
from web.problems import NO_JOB, NO_TENANT, InvalidRequest

if TYPE_CHECKING:
    from aiohttp import web
    from pydantic import GetCoreSchemaHandler

_NAME: TypeAdapter[str] = TypeAdapter(Name)
#: Every id is a possible reference, too.
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)


class Parameters(BaseModel):
    """Base of a route's parameters. Fields that the route's path names are path parameters, all others are query
    parameters. Unknown query parameters are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


P = TypeVar("P", bound=Parameters)


def read_parameters(model: type[P], request: web.Request) -> P:
    """The parameters of a request. An empty query parameter counts as one that is left out, of a repeated one the first
    counts.

    Raises:
        InvalidRequest: some of them are wrong; it names each.
        NotFound: the path names a thing that cannot exist.
    """
    query = {name: request.query[name] for name in model.model_fields if request.query.get(name)}
    try:
        return model.model_validate(query | request.match_info)
    except ValidationError as exc:
        raise InvalidRequest.of_parameters(exc) from None


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


JobName = Annotated[str, Field(max_length=255), BeforeValidator(job_name)]
TenantName = Annotated[str, Field(max_length=128), BeforeValidator(tenant_name)]
