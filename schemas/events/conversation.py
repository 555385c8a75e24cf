"""Events of conversations of voice agents: the request of a producer, and the next look at one."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import AliasChoices, AwareDatetime, ConfigDict, Field, model_validator

from schemas.conversations import names
from schemas.conversations.names import ConversationId, ProcessingId
from schemas.events.base import Data, Event
from schemas.ids import Name
from schemas.mail.addresses import MailAddress

#: The name in `provider_requests` and in transcripts of what the agent itself has understood.
AGENT: Final = "elevenlabs-agent"


class ConversationOptions(Data):
    """Options of a conversation. An unknown option, or one that cannot be carried out, is refused."""

    model_config = ConfigDict(extra="forbid")

    verify: bool = Field(
        False,
        description="Have the recording heard by the recognizers, too: the report then says what the agent's "
        "transcript got wrong.",
    )


class ConversationRequested(Data):
    """A conversation of a voice agent is to be fetched, stored, summarised and mailed. External producers write it."""

    tenant_id: Annotated[
        Name, Field(validation_alias=AliasChoices("account_id", "tenant_id"), description="The account.")
    ]
    conversation_id: ConversationId
    email_id: MailAddress = Field(description="Whom the report is mailed to.")
    processing_id: ProcessingId | None = Field(
        None, description="Follows from account and conversation, and may be left out."
    )
    options: ConversationOptions = ConversationOptions()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, request: Any) -> Any:
        """Treat null as absent: many serializers write every field of a class."""
        if not isinstance(request, dict):
            return request
        return {name: value for name, value in request.items() if value is not None}

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.processing_id not in (None, names.processing_id(self.job_id)):
            raise ValueError("processing_id: is another conversation's; leave it out")
        return self

    @property
    def job_id(self) -> str:
        """The id of the conversation's job."""
        return names.job_id(self.tenant_id, self.conversation_id)


class ConversationFetch(Event):
    """Internal: look whether a conversation has ended, and fetch it."""

    conversation_id: ConversationId
    since: AwareDatetime | None = Field(None, description="When it was looked at first.")
