"""The settings of mail: the server that takes it, and who sends it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel, Field, SecretStr, field_validator

from agents.stages.spec import MailService
from schemas.mail.addresses import MailAddress
from sinks.mail.smtp import PORTS, Security, SmtpServer


class MailSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    smtp_host: str | None = Field(
        None, alias="SMTP_HOST", pattern=r"^[^\s:/@]+$", description="the server that takes mail, for the kind mail"
    )
    smtp_port: int | None = Field(
        None, alias="SMTP_PORT", ge=1, le=65_535, description="default: 587 (starttls), 465 (tls), 25 (none)"
    )
    smtp_security: Security = Field(
        "starttls", alias="SMTP_SECURITY", description="starttls, tls, or none (not with a user name)"
    )
    smtp_username: str | None = Field(None, alias="SMTP_USERNAME", min_length=1)
    smtp_password: SecretStr | None = Field(None, alias="SMTP_PASSWORD")
    smtp_from: MailAddress | None = Field(None, alias="SMTP_FROM_EMAIL", description="the address that mail comes from")
    smtp_cafile: str | None = Field(None, alias="SMTP_CAFILE", description="PEM file of the server's CA")
    smtp_domains: frozenset[str] = Field(
        frozenset(), alias="SMTP_DOMAINS", description="comma list of domains that mail is sent to; absent: all"
    )
    smtp_attached_mb: int = Field(
        10,
        alias="SMTP_MAX_ATTACHMENT_MB",
        ge=0,
        le=50,
        description="larger reports are linked to, by CONCORD_PUBLIC_URL",
    )

    @field_validator("smtp_domains", mode="before")
    @classmethod
    def _domains(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return frozenset(part.strip().lower().removeprefix("@") for part in value.split(",") if part.strip())

    def mail_conflicts(self, kinds: Collection[str], of_uploads: Collection[str]) -> Iterator[str]:
        """What does not fit together, where these kinds of enrichment are made, and those of recordings."""
        if "mail" not in kinds:
            if self.smtp_host:
                yield "SMTP_HOST: nothing is mailed; add report and mail to CONCORD_ENRICHMENTS, or leave it out"
            return
        if "report" not in (of_uploads if "mail" in of_uploads else kinds):
            yield "CONCORD_ENRICHMENTS: mail sends reports; add report"
        if not (self.smtp_host and self.smtp_from):
            yield "CONCORD_ENRICHMENTS: mail needs SMTP_HOST and SMTP_FROM_EMAIL"
        if bool(self.smtp_username) != bool(self.smtp_password):
            yield "SMTP_USERNAME and SMTP_PASSWORD go together"
        if self.smtp_username and self.smtp_security == "none":
            yield "SMTP_SECURITY: a password is sent over starttls or tls only"

    def mail_service(self, public_url: str | None) -> MailService | None:
        """How mail is sent; None if no server is configured."""
        if self.smtp_host is None or self.smtp_from is None:
            return None
        server = SmtpServer(
            self.smtp_host,
            self.smtp_port or PORTS[self.smtp_security],
            self.smtp_security,
            self.smtp_username,
            self.smtp_password,
            self.smtp_cafile,
        )
        return MailService(server, self.smtp_from, self.smtp_domains, self.smtp_attached_mb << 20, public_url)
