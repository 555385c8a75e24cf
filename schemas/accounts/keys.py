"""API keys: their text, and the rows that are kept of them. The text itself is kept nowhere."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal

#: What a key permits. Within its tenant: to read; to upload, change and delete jobs; to review transcripts; to
#: administer keys, settings and webhooks; to read what is redacted for others. `operator` permits everything, for every
#: tenant.
Scope = Literal["read", "write", "review", "admin", "unredacted", "operator"]

#: What else each scope permits.
IMPLIED: Final[Mapping[Scope, frozenset[Scope]]] = {
    "read": frozenset(),
    "write": frozenset({"read"}),
    "review": frozenset({"read"}),
    "admin": frozenset({"read", "write", "review"}),
    "unredacted": frozenset({"read"}),
    "operator": frozenset({"read", "write", "review", "admin", "unredacted"}),
}

#: Keys of one owner that may be valid at the same time.
MOST_KEYS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored. It is valid until it is revoked or expires, by the database's clock."""

    id: str
    #: The tenant that it belongs to; None for an operator's.
    tenant_id: str | None
    name: str
    #: The part of its text by which people recognize it.
    prefix: str
    #: SHA-256 of its text.
    hash: bytes
    scopes: tuple[Scope, ...]
    #: `Caller.id` of whoever made it.
    created_by: str
    expires_at: datetime | None = None
    created_at: datetime | None = None
    #: To the minute.
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it is valid at this time."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class NewKey:
    """The random parts of a key that is about to be made."""

    id: str
    prefix: str
    #: What its owner sends. Shown once.
    text: str

    def __repr__(self) -> str:
        return f"NewKey({self.id})"

    @property
    def hash(self) -> bytes:
        """What is stored of the text."""
        return hash_of(self.text)


def new_key() -> NewKey:
    """A key whose secret has 256 random bits. Its text is one word, which a double click selects."""
    prefix = secrets.token_hex(6)
    return NewKey(f"ck_{secrets.token_hex(10)}", prefix, f"concord_{prefix}_{secrets.token_hex(32)}")


def hash_of(text: str) -> bytes:
    """SHA-256 of a key's text. No salt and no stretching: nobody guesses 256 random bits."""
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
