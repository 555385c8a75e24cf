"""The settings of language models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, SecretStr

#: Who answers questions about texts.
Provider = Literal["openai", "gemini"]


class ModelSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    gemini_key: SecretStr | None = Field(
        None, alias="GEMINI_API_KEY", description="Gemini decides disputed words when this is set"
    )
    gemini_model: str = Field("gemini-3.8-flash", alias="GEMINI_MODEL", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    gemini_url: str | None = Field(
        None, alias="GEMINI_BASE_URL", pattern=r"^https?://[^\s@]+$", description="a gateway or regional endpoint"
    )
    gemini_spans: int = Field(
        200, alias="GEMINI_MAX_SPANS", ge=0, le=10_000, description="disputed spans decided per recording, at most"
    )
    openai_key: SecretStr | None = Field(
        None, alias="OPENAI_API_KEY", description="a language model summarises and titles calls when this is set"
    )
    openai_model: str = Field("gpt-5-mini", alias="OPENAI_MODEL", pattern=r"^[\w./:@-]{1,200}$")
    openai_url: str | None = Field(
        None,
        alias="OPENAI_BASE_URL",
        pattern=r"^https?://[^\s@]+$",
        description="a server with OpenAI's protocol, as http://host:8000/v1; one of your own may need no key",
    )
    text_model: Provider | None = Field(
        None,
        alias="CONCORD_TEXT_MODEL",
        description="openai or gemini: who summarises and titles calls; default: openai, if it is configured",
    )
    part_tokens: int = Field(
        24_000,
        alias="CONCORD_PART_TOKENS",
        ge=500,
        le=1_000_000,
        description="tokens of a call that the text model reads at once; longer calls are read in parts",
    )
    job_tokens: int = Field(
        1_000_000, alias="CONCORD_JOB_TOKENS", ge=0, description="tokens that language models may use for a job"
    )
    monthly_tokens: int | None = Field(
        None,
        alias="CONCORD_MONTHLY_TOKENS",
        ge=0,
        le=10**12,
        description="the same for a tenant in a month (UTC), unless its settings say otherwise; default: no limit",
    )
    document_temperature: float = Field(
        0.7, alias="CONCORD_DOCUMENT_TEMPERATURE", ge=0, le=2, description="of titles and descriptions of documents"
    )

    @property
    def text_provider(self) -> Provider | None:
        """Who answers questions about texts; None if nobody is configured."""
        if self.text_model is not None:
            return self.text_model
        return "openai" if self.openai_key or self.openai_url else None

    def missing_key(self) -> str | None:
        """What the text model lacks."""
        if self.text_model == "gemini" and not self.gemini_key:
            return "GEMINI_API_KEY: CONCORD_TEXT_MODEL=gemini needs it"
        if self.text_model == "openai" and not (self.openai_key or self.openai_url):
            return "OPENAI_API_KEY: CONCORD_TEXT_MODEL=openai needs it, or OPENAI_BASE_URL of a server without keys"
        return None
