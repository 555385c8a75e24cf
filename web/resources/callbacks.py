"""`/webhooks/{provider}`: callbacks of recognizers' servers, each of which makes the next poll of a request due now.

A callback is a hint and no more: its content is not trusted, the provider is polled. So a lost callback costs some
time, a forged or repeated one costs a poll, and the answer does not reveal whether a request exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

from pydantic import Field, StringConstraints

from schemas.events.base import Data
from web.auth.provider_token import ProviderToken
from web.parameters import Parameters
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The longest body, in bytes, and the longest time, in seconds, that it may take to arrive.
MAX_BYTES, READ_S = 4096, 5.0


class ExpeditesPolls(Protocol):
    """The part of `sinks.ports.providers.requests.Requests` that callbacks need."""

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next poll of a submitted request due now; False if none waits."""


class CallbackParameters(Parameters):
    """The provider that calls."""

    provider: str = Field(max_length=128)


class Finished(Data):
    """A provider's request that has ended, by the provider's own id."""

    transcript_id: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
    status: Annotated[str, StringConstraints(max_length=64)]


_BODY: Final = RequestBody(
    Finished,
    example={"transcript_id": "9ea68fd3-f953-42c1-9742-976c447fb463", "status": "completed"},
    max_bytes=MAX_BYTES,
    read_s=READ_S,
    any_media_type=True,
    is_strict=False,
)


class Callbacks:
    """The route that providers call, with the token of each provider by name."""

    def __init__(self, database: ExpeditesPolls, tokens: Mapping[str, str]) -> None:
        self._database = database
        self._access = ProviderToken(tokens)

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="POST",
                path="/webhooks/{provider}",
                operation_id="webhooks_provider",
                summary="A provider's request has ended",
                handler=self.receive,
                parameters=CallbackParameters,
                body=_BODY,
                responses={204: ResponseSpec("the request is polled soon, if there is one")},
                access=self._access,
            )
        ]

    async def receive(self, request: ApiRequest[CallbackParameters, Finished]) -> None:
        """Make the next poll due."""
        await self._database.expedite_poll(request.parameters.provider, request.body.transcript_id)
