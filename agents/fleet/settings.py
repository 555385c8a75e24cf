"""The settings of a fleet, from environment variables. They are read once; one error lists all invalid ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from agents.fleet.sections.agents import AgentSettings
from agents.fleet.sections.conversations import ConversationSettings
from agents.fleet.sections.http import HttpSettings
from agents.fleet.sections.mail import MailSettings
from agents.fleet.sections.models import ModelSettings
from agents.fleet.sections.recognizers import RecognizerSettings, absolute, comma_list
from agents.fleet.sections.search import SearchSettings
from agents.fleet.sections.vendors import VendorSettings
from agents.media.source.audio_url import AllowedHosts
from schemas.accounts.settings import AccountSettings
from schemas.jobs.enrichment import OF_CONVERSATIONS

#: `recognizer:unit=amount` or `recognizer:unit=amount/per`.
_PRICE = re.compile(r"(?P<unit>[\w.-]+:[a-z_]+)\s*=\s*(?P<amount>\d+(\.\d+)?)(/(?P<per>\d+(\.\d+)?))?")


class Settings(
    RecognizerSettings,
    VendorSettings,
    HttpSettings,
    ModelSettings,
    SearchSettings,
    MailSettings,
    ConversationSettings,
    AgentSettings,
):
    """All settings. A field's alias is its environment variable; its default suits a laptop."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    kafka_servers: str | None = Field(
        None, alias="KAFKA_BOOTSTRAP_SERVERS", description="host:port,...; absent: an embedded Kafka"
    )
    kafka_security: str = Field(
        "PLAINTEXT", alias="KAFKA_SECURITY_PROTOCOL", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$"
    )
    kafka_mechanism: str | None = Field(
        None, alias="KAFKA_SASL_MECHANISM", description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"
    )
    kafka_username: str | None = Field(None, alias="KAFKA_SASL_USERNAME")
    kafka_password: SecretStr | None = Field(None, alias="KAFKA_SASL_PASSWORD")
    kafka_cafile: str | None = Field(None, alias="KAFKA_SSL_CAFILE", description="PEM file of the brokers' CA")
    kafka_partitions: int = Field(
        4, alias="KAFKA_PARTITIONS", ge=1, le=512, description="of topics that Concord creates"
    )
    kafka_replication: int | None = Field(
        None, alias="KAFKA_REPLICATION", ge=1, le=9, description="default: 3, or fewer brokers"
    )
    database_url: SecretStr | None = Field(
        None, alias="DATABASE_URL", description="postgresql://...; absent: an embedded PostgreSQL"
    )
    storage_root: Path | None = Field(
        None, alias="STORAGE_ROOT", description="folder for blobs; default: CONCORD_DATA/storage"
    )
    s3_bucket: str | None = Field(
        None, alias="S3_BUCKET_NAME", min_length=3, description="blobs go to S3 when this is set"
    )
    s3_region: str | None = Field(None, alias="S3_REGION")
    s3_endpoint: str | None = Field(
        None, alias="S3_ENDPOINT_URL", pattern=r"^https?://[^\s@]+$", description="an S3-compatible server"
    )
    s3_public_endpoint: str | None = Field(
        None,
        alias="S3_PUBLIC_ENDPOINT_URL",
        pattern=r"^https?://[^\s@]+$",
        description="the same server as clients and providers reach it, for the URLs that they get",
    )
    s3_prefix: str = Field("", alias="S3_PREFIX", description="everything is stored below this name in the bucket")
    s3_encryption: str | None = Field(
        None,
        alias="S3_SSE",
        pattern=r"^(AES256|aws:kms|arn:aws[\w-]*:kms:\S+)$",
        description="AES256, aws:kms or a key's ARN",
    )
    storage_fallback: str | None = Field(
        None,
        alias="STORAGE_FALLBACK",
        pattern="^local$",
        description="local: keep blobs in STORAGE_ROOT while S3 is away (a folder that all workers share)",
    )
    aws_key: str | None = Field(None, alias="AWS_ACCESS_KEY_ID")
    aws_secret: SecretStr | None = Field(None, alias="AWS_SECRET_ACCESS_KEY")
    aws_token: SecretStr | None = Field(None, alias="AWS_SESSION_TOKEN")
    enrichments: tuple[str, ...] = Field(
        ("document", "index"),
        alias="CONCORD_ENRICHMENTS",
        description="comma list: what is made of each transcript; none: nothing",
    )
    redact: str = Field(
        "off", alias="CONCORD_REDACT", pattern="^(off|keep|forget)$", description="hide personal data of all calls"
    )
    data: Path = Field(
        Path("~/.local/share/concord"), alias="CONCORD_DATA", description="folder of embedded servers and tables"
    )
    cache: Path = Field(
        Path("~/.cache/concord"), alias="CONCORD_CACHE", description="folder of downloaded jars and weights"
    )
    public_url: str | None = Field(
        None,
        alias="CONCORD_PUBLIC_URL",
        pattern=r"^https?://\S+$",
        description="our URL for providers; with WEBHOOK_SECRET, they call back and are polled less often",
    )
    webhook_secret: SecretStr | None = Field(
        None, alias="WEBHOOK_SECRET", min_length=16, description="authenticates the callbacks of providers"
    )
    audio_roots: tuple[Path, ...] = Field(
        (),
        alias="CONCORD_AUDIO_ROOTS",
        description="colon list of folders that file:// may read; default: CONCORD_DATA/audio",
    )
    allow_hosts: frozenset[str] = Field(
        frozenset(),
        alias="CONCORD_ALLOW_HOSTS",
        description="comma list of host or host:port; fetches from them are allowed although private, also by http://",
    )
    prices: dict[str, float] = Field(
        {},
        alias="CONCORD_PRICES",
        description="prices of units, for `concord usage` and metrics: assemblyai:audio_seconds=0.21/3600,...",
    )
    max_upload_mb: int = Field(100, alias="MAX_UPLOAD_SIZE_MB", ge=1, description="largest upload over HTTP")
    max_audio_mb: int = Field(2048, alias="CONCORD_MAX_AUDIO_MB", ge=1, description="largest recording by URI")
    max_audio_hours: float = Field(10.0, alias="CONCORD_MAX_AUDIO_HOURS", gt=0)
    patience_s: float = Field(
        300.0,
        alias="CONCORD_FETCH_PATIENCE_S",
        ge=0,
        le=86_400,
        description="seconds for which a recording's host may refuse or fail before its job fails",
    )
    deadline_s: float = Field(
        3600.0, alias="CONCORD_DEADLINE_S", gt=0, description="wait for recognizers, plus half the recording"
    )
    audit_days: float = Field(
        365.0, alias="CONCORD_AUDIT_DAYS", ge=1, le=36_500, description="days for which the audit log's rows are kept"
    )
    retention_files_days: float | None = Field(
        None, alias="CONCORD_RETENTION_FILES_DAYS", ge=1, le=36_500, description="days for which ended jobs keep files"
    )
    retention_completed_days: float | None = Field(
        None, alias="CONCORD_RETENTION_COMPLETED_DAYS", ge=1, le=36_500, description="days for which they are kept"
    )
    retention_failed_days: float | None = Field(
        None, alias="CONCORD_RETENTION_FAILED_DAYS", ge=1, le=36_500, description="the same for failed jobs"
    )
    usage_days: float = Field(
        1100.0, alias="CONCORD_USAGE_DAYS", ge=31, le=36_500, description="days for which is kept what was billed"
    )
    relay_shards: int = Field(
        1, alias="CONCORD_RELAY_SHARDS", ge=1, le=8, description="relays of a fleet; the same for all workers"
    )
    instance: str | None = Field(
        None, alias="CONCORD_INSTANCE", description="stable name of this worker, for static membership"
    )
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = Field("INFO", alias="CONCORD_LOG_LEVEL")
    failpoint: str = Field("", alias="CONCORD_FAILPOINT", description="tests only: die at a named point")

    @field_validator("enrichments", mode="before")
    @classmethod
    def _kinds(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return () if kinds == ("none",) else kinds

    _lists_of_hosts = field_validator("allow_hosts", mode="before")(comma_list)
    _paths_of_ours = field_validator("data", "cache", "storage_root")(absolute)

    @field_validator("allow_hosts")
    @classmethod
    def _hosts(cls, value: frozenset[str]) -> frozenset[str]:
        AllowedHosts.of(value)
        return value

    @field_validator("prices", mode="before")
    @classmethod
    def _prices(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        prices = {}
        for part in filter(None, map(str.strip, value.split(","))):
            match = _PRICE.fullmatch(part)
            if match is None or not float(match["per"] or 1):
                raise ValueError(f"{part!r} is no price: write it as assemblyai:audio_seconds=0.21/3600")
            prices[match["unit"]] = float(match["amount"]) / float(match["per"] or 1)
        return prices

    @field_validator("audio_roots", mode="before")
    @classmethod
    def _colon_list(cls, value: Any) -> Any:
        return (
            tuple(Path(os.path.abspath(Path(part).expanduser())) for part in value.split(":") if part)  # noqa: PTH100
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if conflicts := [*self.recognizer_conflicts(), *self._service_conflicts()]:
            raise ValueError("\n  ".join(conflicts))
        return self

    def _service_conflicts(self) -> Iterator[str]:
        """What does not fit together in the settings of Kafka, of the store and of language models."""
        if self.kafka_mechanism and not (self.kafka_username and self.kafka_password):
            yield "KAFKA_SASL_MECHANISM needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        if self.storage_fallback and not self.s3_bucket:
            yield "STORAGE_FALLBACK is for when S3 is away: set S3_BUCKET_NAME, or leave it out"
        if any(name.startswith("webhook-") for name in self.recognizers) and not self.webhook_secret:
            yield "WEBHOOK_SECRET: the recognizers webhook-* need it, to check who sends their transcripts"
        if "webhook-elevenlabs" in self.recognizers and self.elevenlabs_webhook_secret:
            yield "CONCORD_RECOGNIZERS: give webhook-elevenlabs another name: its path is that of ElevenLabs' webhook"
        if missing := self.missing_key():
            yield missing
        if bool(self.aws_key) != bool(self.aws_secret):
            yield "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together"
        yield from self.vendor_conflicts(self.opened, self.openai_transcription_key, self.elevenlabs_key)
        yield from self.mail_conflicts(self.kinds, self.enrichments)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of enrichment that workers make: those of recordings, and those of conversations where there are
        such. What is missing for one of these, no worker can make.
        """
        of_conversations = OF_CONVERSATIONS if self.elevenlabs_key else ()
        makeable = [kind for kind in of_conversations if kind != "mail" or self.smtp_host]
        return tuple(dict.fromkeys((*self.enrichments, *makeable)))

    @property
    def lacks_for_conversations(self) -> tuple[str, ...]:
        """What is missing to process conversations, a sentence each, with what to do."""
        missing = {
            "ELEVENLABS_API_KEY is not set: have an operator set it.": self.elevenlabs_key is None,
            "No mail can be sent: have an operator set SMTP_HOST and SMTP_FROM_EMAIL.": self.smtp_host is None,
        }
        return tuple(sentence for sentence, is_missing in missing.items() if is_missing)

    @property
    def openai_transcription_key(self) -> str | None:
        """The key of the recognizers `openai`."""
        return self.transcription_key(self.openai_key, self.openai_url)

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that `file://` may read."""
        return self.audio_roots or (self.data / "audio",)

    @property
    def storage(self) -> Path:
        """The folder of the local blob store."""
        return self.storage_root or self.data / "storage"


def account_defaults(settings: Settings) -> AccountSettings:
    """What holds for a tenant that has set nothing of its own."""
    return AccountSettings(
        requests_per_minute=settings.requests_per_minute or None,
        max_upload_mb=settings.max_upload_mb,
        max_conversation_mb=settings.conversation_audio_mb,
        recognizers=settings.recognizers,
        deadline_s=settings.deadline_s,
        enrich=bool(settings.enrichments),
        monthly_tokens=settings.monthly_tokens,
        redact_pii=settings.redact != "off",
        redact="forget" if settings.redact == "forget" else "keep",
        mail_to=() if "mail" in settings.enrichments else None,
        audio_days=settings.retention_files_days,
        completed_days=settings.retention_completed_days,
        failed_days=settings.retention_failed_days,
        audit_days=settings.audit_days,
    )
