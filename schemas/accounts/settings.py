"""A tenant's settings. What a tenant leaves out has the installation's value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.accounts.redaction import RedactionPolicy, Unredacted
from schemas.ids import Name
from schemas.mail.addresses import MailAddress, Recipients

#: A template of mails.
Template = Annotated[str, Field(min_length=1, max_length=20_000)]

#: `summary` or `document`, and the kind of call for which it is.
TemplateName = Annotated[str, Field(pattern=r"^(summary|document)(\.[^\x00-\x1f]{1,64})?$")]

#: ElevenLabs' id of an agent.
AgentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]

Days = Annotated[float, Field(ge=1, le=36_500)]


class AccountSettings(BaseModel):
    """What can be set for a tenant; null is the installation's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="requests over HTTP that each key of the tenant may send, of each worker"
    )
    max_upload_mb: int | None = Field(None, ge=1, le=1_000_000, description="the largest upload over HTTP")
    max_conversation_mb: int | None = Field(
        None, ge=1, le=2048, description="the largest recording of a conversation that is fetched"
    )
    max_open_jobs: int | None = Field(
        None, ge=1, le=1_000_000, description="jobs of the tenant that are worked on at once; more wait as `uploaded`"
    )
    recognizers: tuple[Name, ...] | None = Field(
        None, min_length=1, max_length=32, description="some of the installation's, which hear the tenant's recordings"
    )
    deadline_s: float | None = Field(
        None, gt=0, le=604_800, description="seconds to wait for recognizers, to which half the recording is added"
    )
    enrich: bool | None = Field(
        None, description="whether more is made of a transcript (a document), where an upload does not say"
    )
    monthly_tokens: int | None = Field(
        None, ge=0, le=10**12, description="tokens that language models may use in a month (UTC)"
    )
    templates: dict[TemplateName, Annotated[str, Field(max_length=8000)]] | None = Field(
        None,
        max_length=32,
        description="what language models are told besides: `summary`, `document`, or `summary.KIND` for uploads whose "
        "metadata has `call_kind`: KIND",
    )
    prompts: dict[TemplateName, Annotated[str, Field(min_length=1, max_length=8000)]] | None = Field(
        None,
        max_length=16,
        description="what language models are told in place of the installation's own prompt, named as `templates` "
        "are; how the message and the answer are made is told them behind it, and other answers are refused",
    )
    chunk_tokens: int | None = Field(
        None, ge=50, le=2000, description="tokens of a passage that is searched, at most, counted as 4 characters each"
    )
    chunk_overlap: int | None = Field(
        None, ge=0, le=500, description="tokens that a part of a long turn repeats of the part before"
    )
    chunk_least: int | None = Field(None, ge=1, le=1000, description="tokens up to which short turns are joined")
    redact_pii: bool | None = Field(None, description="whether personal data are hidden, where an upload does not say")
    redact: Unredacted | None = Field(None, description="what becomes of what is not redacted, where it does not say")
    redaction: RedactionPolicy | None = Field(None, description="what is hidden, and what stands in its place")
    voice_prints: bool | None = Field(
        None,
        description="consent: whether the voices of named speakers are kept, and recognised in later recordings of "
        "this tenant. Off unless the tenant sets it; taking it away deletes all that was kept at once",
    )
    mail_to: Recipients | None = Field(
        None, description="whom the report on each recording is mailed to, where an upload does not say"
    )
    mail_subject: Template | None = Field(None, description="Jinja template of the subject of such mails")
    mail_text: Template | None = Field(None, description="Jinja template of their text")
    mail_html: Template | None = Field(None, description="Jinja template of the same as HTML")
    conversation_agents: dict[AgentId, MailAddress] | None = Field(
        None,
        max_length=100,
        description="ElevenLabs agents whose conversations are processed without being asked for, each with the "
        "address to which its reports are mailed; only an operator sets them",
    )
    conversation_verify: bool | None = Field(
        None,
        description="whether recognizers hear the conversations of these agents, too, which nobody asks for; a request "
        "says so itself (`options.verify`)",
    )
    audio_days: Days | None = Field(None, description="days for which recordings and files are kept")
    completed_days: Days | None = Field(None, description="days for which completed jobs are kept")
    failed_days: Days | None = Field(None, description="days for which failed jobs are kept")
    audit_days: Days | None = Field(None, description="days for which entries of the audit log are kept")

    def over(self, defaults: AccountSettings) -> AccountSettings:
        """These settings, and the defaults where they have none."""
        own = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return defaults.model_copy(update=own)


#: Settings that only an operator may raise or take away, once they hold.
LIMITS = (
    "requests_per_minute",
    "max_upload_mb",
    "max_conversation_mb",
    "max_open_jobs",
    "deadline_s",
    "monthly_tokens",
)

#: Settings that only an operator may change: one key of ElevenLabs' serves the whole installation, so that whoever
#: names an agent gets its conversations.
OPERATORS = ("conversation_agents",)


@dataclass(frozen=True, slots=True)
class SettingsVersion:
    """A tenant's settings as they are stored. Version 0 is of a tenant that has never set any."""

    settings: AccountSettings = field(default_factory=AccountSettings)
    version: int = 0
    updated_by: str | None = None
    updated_at: datetime | None = None
