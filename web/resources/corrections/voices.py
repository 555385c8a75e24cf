"""`/tenants/{tenant}/voices`: the voice prints that are kept of a tenant's named speakers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import Field

from schemas.errors import NotFound
from schemas.events.base import Data
from sinks.ports.corrections.voices import VoicePrints
from sinks.ports.tenants import PerTenant
from web.auth.access import ADMIN
from web.parameters import OfTenant
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

PATH: Final = "/tenants/{tenant}/voices"


class OfVoice(OfTenant):
    """Names a voice print."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="the speaker's name")


class VoiceView(Data):
    """A voice print, without what the voice sounds like."""

    name: str
    recordings: int = Field(description="jobs in which somebody gave a speaker this name")
    seconds: float = Field(description="seconds of speech in them that were listened to")
    created_at: datetime = Field(description="when a speaker was given this name first")
    named_at: datetime = Field(description="and last")
    recognised_at: datetime | None = Field(description="when a speaker of another recording was found to sound so last")


class VoiceEventView(Data):
    """What was done with the tenant's voice prints."""

    at: datetime
    what: str = Field(description="`allowed`, `withdrawn`, `deleted` or `all deleted`")
    author: str | None = Field(description="who did it: the id of an API key, for example")


class VoiceList(Data):
    """A tenant's voice prints, in order of names."""

    voices: list[VoiceView]
    history: list[VoiceEventView] = Field(description="the last 100 changes, newest first")


_AT: Final = "2026-05-01T12:00:00Z"
_EXAMPLE: Final = {
    "voices": [
        {
            "name": "Ann",
            "recordings": 2,
            "seconds": 71.5,
            "created_at": _AT,
            "named_at": _AT,
            "recognised_at": None,
        }
    ],
    "history": [{"at": _AT, "what": "allowed", "author": "key_1"}],
}


class Voices:
    """The voice prints of tenants."""

    def __init__(self, database: PerTenant[VoicePrints]) -> None:
        self._database = database

    def routes(self) -> list[AnyRoute]:
        """List, delete one, delete all."""
        access: dict[str, Any] = {"access": ADMIN}
        return [
            Route(
                method="GET",
                path=PATH,
                operation_id="tenants_tenant_voices",
                summary="The voices that are kept of a tenant's named speakers, without what they sound like",
                handler=self.list,
                parameters=OfTenant,
                responses={200: ResponseSpec("in order of names", VoiceList, _EXAMPLE)},
                **access,
            ),
            Route(
                method="DELETE",
                path=PATH,
                operation_id="delete_tenants_tenant_voices",
                summary="Delete all that is kept of a tenant's voices; the setting `voice_prints` stays as it is",
                handler=self.delete_all,
                parameters=OfTenant,
                responses={204: ResponseSpec("nothing is kept any more")},
                **access,
            ),
            Route(
                method="DELETE",
                path=f"{PATH}/{{name}}",
                operation_id="delete_tenants_tenant_voices_name",
                summary="Delete what is kept of one voice; transcripts keep the name",
                handler=self.delete,
                parameters=OfVoice,
                responses={204: ResponseSpec("it is deleted")},
                **access,
            ),
        ]

    async def list(self, request: ApiRequest[OfTenant, None]) -> VoiceList:
        """All voice prints."""
        tenant = request.parameters.tenant
        database = self._database.acting_as(tenant)
        voices, history = await database.voices(tenant), await database.voice_history(tenant)
        return VoiceList(
            voices=[VoiceView(**{name: getattr(voice, name) for name in VoiceView.model_fields}) for voice in voices],
            history=[VoiceEventView(at=event.at, what=event.what, author=event.author) for event in history],
        )

    async def delete(self, request: ApiRequest[OfVoice, None]) -> web.StreamResponse:
        """Delete one voice print."""
        tenant, name = request.parameters.tenant, request.parameters.name
        if not await self._database.acting_as(tenant).delete_voices(tenant, name, request.caller.id):
            raise NotFound("there is no voice of this name")
        return web.Response(status=204)

    async def delete_all(self, request: ApiRequest[OfTenant, None]) -> web.StreamResponse:
        """Delete all that is kept of voices."""
        tenant = request.parameters.tenant
        await self._database.acting_as(tenant).delete_voices(tenant, None, request.caller.id)
        return web.Response(status=204)
