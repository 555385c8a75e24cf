"""A resource that only the tests mount: notes of a tenant, which can be added, changed and deleted."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import NotFound
from web.auth.access import OPERATOR
from web.parameters import Parameters, TenantName, WholeNumber
from web.route import ApiRequest, RequestBody, ResponseSpec, Route

EXAMPLE = {"text": "call back", "tags": ["urgent"]}


class NewNote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=100)
    tags: list[Annotated[str, Field(max_length=6)]] = []


class NoteChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, min_length=1, max_length=100)
    tags: list[str] | None = None


class Note(BaseModel):
    id: int
    text: str
    tags: list[str]


class TenantParameters(Parameters):
    tenant: TenantName


class NoteParameters(TenantParameters):
    id: Annotated[int, WholeNumber(999)]


class Notes:
    def __init__(self):
        self.rows = {}

    def routes(self):
        note = ResponseSpec("the note", Note, EXAMPLE | {"id": 1})
        of_note = {"path": "/tenants/{tenant}/notes/{id}", "parameters": NoteParameters}
        return [
            Route(
                method="POST",
                path="/tenants/{tenant}/notes",
                operation_id="add_note",
                summary="Add a note",
                handler=self.add,
                parameters=TenantParameters,
                body=RequestBody(NewNote, EXAMPLE, max_bytes=500),
                responses={201: note},
            ),
            Route(
                method="PATCH",
                operation_id="change_note",
                summary="Change a note",
                handler=self.change,
                body=RequestBody(
                    NoteChange,
                    {"text": "done"},
                    max_bytes=2 << 20,
                    read_s=0.2,
                    media_types=("application/merge-patch+json", "application/json"),
                ),
                responses={200: note},
                **of_note,
            ),
            Route(
                method="DELETE",
                operation_id="delete_note",
                summary="Delete a note",
                handler=self.delete,
                responses={204: ResponseSpec("it is deleted")},
                access=OPERATOR,
                **of_note,
            ),
        ]

    async def add(self, request: ApiRequest[TenantParameters, NewNote]) -> web.StreamResponse:
        note = Note(id=len(self.rows) + 1, **request.body.model_dump())
        self.rows[note.id] = note
        location = f"/tenants/{request.parameters.tenant}/notes/{note.id}"
        return web.json_response(text=note.model_dump_json(), status=201, headers={"Location": location})

    async def change(self, request: ApiRequest[NoteParameters, NoteChange]) -> Note:
        note = self._row(request.parameters.id).model_copy(update=request.body.model_dump(exclude_unset=True))
        self.rows[note.id] = note
        return note

    async def delete(self, request: ApiRequest[NoteParameters, None]) -> None:
        del self.rows[self._row(request.parameters.id).id]

    def _row(self, number):
        if number not in self.rows:
            raise NotFound("there is no such note")
        return self.rows[number]
