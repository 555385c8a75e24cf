"""API keys as they are shown and asked for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from schemas.accounts.keys import Scope
from schemas.events.base import Data, Moment

if TYPE_CHECKING:
    from schemas.accounts.keys import ApiKey

#: Most seconds for which a rotated key stays valid, and how many unless asked otherwise.
MAX_GRACE_S, GRACE_S = 30 * 86_400, 86_400

TenantScope = Literal["read", "write", "review", "admin", "unredacted"]


def _printable(name: str) -> str:
    if not name.isprintable() or name.isspace():
        raise ValueError("use printable characters, and not spaces alone")
    return name


def _in_future(at: datetime) -> datetime:
    if at <= datetime.now(UTC):
        raise ValueError("this has passed")
    return at


KeyName = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_printable)]
Expiry = Annotated[Moment, AfterValidator(_in_future)]


class NewOperatorKey(BaseModel):
    """A key of an operator, who may do everything for every tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: KeyName = Field(description="what or who uses it")
    expires_at: Expiry | None = Field(None, description="null: it is valid until it is revoked")

    @property
    def granted(self) -> tuple[Scope, ...]:
        """The scopes of the key."""
        return ("operator",)


class NewTenantKey(NewOperatorKey):
    """A key of a tenant."""

    scopes: tuple[TenantScope, ...] = Field(
        min_length=1,
        max_length=5,
        description="`write` and `review` include `read`; `admin` includes all of them, and keys and settings. "
        "`unredacted` is to read what is redacted for others; `admin` does not include it",
    )

    @property
    def granted(self) -> tuple[Scope, ...]:
        """The scopes of the key, each once."""
        return tuple(dict.fromkeys(self.scopes))


class Rotation(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grace_s: float = Field(GRACE_S, ge=0, le=MAX_GRACE_S, description="seconds for which the old key stays valid")


class KeyView(Data):
    """An API key, without its secret."""

    id: str
    name: str
    prefix: str = Field(description="the key's text begins with `concord_` and this")
    scopes: list[Scope]
    created_by: str = Field(description="who made it: the id of a key, `environment:TENANT` or `local`")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute")
    revoked_at: datetime | None
    revoked_by: str | None


class MadeKey(KeyView):
    """An API key that was just made. This is the only time that its text is shown."""

    key: str = Field(description="what to send as `Authorization: Bearer KEY`")


class KeyPage(Data):
    """Some of the keys, newest first."""

    keys: list[KeyView]
    next: str | None = Field(description="cursor of the next page; null on the last")


def shown(key: ApiKey) -> dict[str, Any]:
    """The fields of a key that are shown."""
    return {name: value for name, value in asdict(key).items() if name in KeyView.model_fields}


KEY_EXAMPLE: Final = {
    "id": "ck_5d2c5f0b9f3e4c1a8b7d",
    "name": "the console",
    "prefix": "8f3a1c55d7e0",
    "scopes": ["read", "write"],
    "created_by": "environment:acme",
    "created_at": "2026-05-01T12:00:00Z",
    "expires_at": "2099-05-01T12:00:00Z",
    "last_used_at": "2026-05-02T07:30:00Z",
    "revoked_at": None,
    "revoked_by": None,
}
# Not a key: it names itself as an example, and has no secret's form.
MADE_EXAMPLE: Final = KEY_EXAMPLE | {"last_used_at": None, "key": "concord_8f3a1c55d7e0_example"}
NEW_OPERATOR_EXAMPLE: Final = {"name": "Prometheus", "expires_at": "2099-05-01T12:00:00Z"}
NEW_EXAMPLE: Final = {"name": "the console", "scopes": ["read", "write"], "expires_at": "2099-05-01T12:00:00Z"}
