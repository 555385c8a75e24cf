"""The settings of the HTTP service, and of commands that call one."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field, SecretStr, field_validator

from schemas.accounts.sealing import VARIABLE, Seals

_ORIGIN = re.compile(r"\*|https?://[^/\s@?#]+")


class HttpSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    http: str = Field(
        "127.0.0.1:8080", alias="CONCORD_HTTP", pattern=r"^[^:\s]*:\d{1,5}$", description="host:port; port 0: any free"
    )
    http_shared: bool = Field(
        False,
        alias="CONCORD_HTTP_SHARED",
        description="whether other workers of this machine listen there, too; it divides connections among them",
    )
    http_connections: int = Field(
        4096,
        alias="CONCORD_HTTP_CONNECTIONS",
        ge=8,
        description="open HTTP connections of a worker, at most; never more than half of its limit of open files",
    )
    metrics: str | None = Field(
        None,
        alias="CONCORD_METRICS",
        pattern=r"^[^:\s]*:\d{1,5}$",
        description="host:port of /metrics without a key; elsewhere it needs an operator's once there are keys",
    )
    api_keys: SecretStr | None = Field(
        None, alias="CONCORD_API_KEYS", description="tenant=key,...; '*=key' for an operator; besides `concord keys`"
    )
    secret_key: SecretStr | None = Field(
        None,
        alias=VARIABLE,
        description="32 bytes as base64, comma list: encrypts secrets in PostgreSQL; the first encrypts, all decrypt",
    )
    requests_per_minute: int = Field(
        6000,
        alias="CONCORD_REQUESTS_PER_MINUTE",
        ge=0,
        le=1_000_000,
        description="requests of a tenant's key, of each worker, unless its settings say otherwise; 0: no limit",
    )
    cors_origins: frozenset[str] = Field(
        frozenset(),
        alias="CONCORD_CORS_ORIGINS",
        description="comma list of origins (https://app.example) whose pages may read answers, or *",
    )
    access_log: str | None = Field(
        None, alias="CONCORD_ACCESS_LOG", min_length=1, description="stdout, stderr or a file: a line of JSON a request"
    )
    url: str | None = Field(
        None, alias="CONCORD_URL", pattern=r"^https?://[^\s@]+$", description="a fleet that commands call over HTTP"
    )
    api_key: SecretStr | None = Field(None, alias="CONCORD_API_KEY", description="the key that such commands send")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        origins = {part.strip().rstrip("/") for part in value.split(",") if part.strip()}
        if wrong := sorted(origin for origin in origins if not _ORIGIN.fullmatch(origin)):
            raise ValueError(f"{wrong[0]!r} is no origin: write https://app.example, without a path")
        return frozenset(origins)

    @field_validator("secret_key")
    @classmethod
    def _secret_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            Seals.parse(value.get_secret_value())
        return value

    @property
    def seals(self) -> Seals:
        """What encrypts secrets that are stored."""
        return Seals.parse(self.secret_key.get_secret_value()) if self.secret_key else Seals()

    @property
    def http_host(self) -> str:
        """The host in CONCORD_HTTP; all interfaces if it is left out."""
        return address_of(self.http)[0]

    @property
    def http_port(self) -> int:
        """The port in CONCORD_HTTP."""
        return address_of(self.http)[1]


def address_of(text: str) -> tuple[str, int]:
    """host:port as an address; without a host, of all interfaces."""
    host, _, port = text.rpartition(":")
    return host or "0.0.0.0", int(port)  # noqa: S104 - ":8080" means all interfaces
