"""Encryption of secrets that are stored because they are needed as they are, such as those that sign webhooks.

AES-256-GCM with a random nonce. What a secret belongs to is authenticated with it, so that a row that is copied to
another tenant or another endpoint does not decrypt. The stored text names the key by a part of its hash.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import orjson

from schemas.errors import ConcordError

#: Begins every encrypted secret: `sealed:1:<key>:<base64 of nonce and ciphertext>`.
PREFIX: Final = "sealed:1:"

#: Bytes of a key, and of a nonce.
KEY_BYTES, NONCE_BYTES = 32, 12

#: The environment variable with the keys.
VARIABLE: Final = "CONCORD_SECRET_KEY"


class NoSecretKey(ConcordError):
    """There is no key to encrypt with."""

    def __init__(self) -> None:
        super().__init__(f"{VARIABLE} is not set here, so no secret can be stored; an operator sets it")


class CannotOpen(ConcordError):
    """A stored secret does not decrypt. The message says why, and nothing of the secret."""


@dataclass(frozen=True)
class Seals:
    """The keys that encrypt and decrypt secrets: the first one encrypts, all of them decrypt."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> Seals:
        """The keys of a comma list, each 32 bytes as base64.

        Raises:
            ValueError: One of them is none. The message shows nothing of it.
        """
        return cls(tuple(_key(part.strip(), n) for n, part in enumerate(text.split(","), 1)))

    def seal(self, secret: str, *about: str) -> str:
        """Encrypt a secret that belongs to what `about` names. Raises NoSecretKey."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not self.keys:
            raise NoSecretKey
        key, nonce = self.keys[0], os.urandom(NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, secret.encode(), orjson.dumps(about))
        return f"{PREFIX}{key_name(key)}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, stored: str, *about: str) -> str:
        """The secret of a stored text; one in clear as it is.

        Raises:
            CannotOpen: The key is not among ours, or the text belongs to something else or was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not is_sealed(stored):
            return stored
        name, _, text = stored.removeprefix(PREFIX).partition(":")
        key = next((one for one in self.keys if key_name(one) == name), None)
        if key is None:
            has = f"{VARIABLE} does not have" if self.keys else f"is missing, because {VARIABLE} is not set"
            raise CannotOpen(f"its secret is encrypted with the key {name}, which {has}")
        try:
            content = base64.b64decode(text, validate=True)
            return AESGCM(key).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], orjson.dumps(about)).decode()
        except (InvalidTag, ValueError):
            raise CannotOpen("its secret does not decrypt: it belongs to something else, or was changed") from None

    def is_current(self, stored: str) -> bool:
        """Whether a stored text is encrypted with the first key, so that nothing is to be done about it."""
        return bool(self.keys) and stored.startswith(f"{PREFIX}{key_name(self.keys[0])}:")


def new_key() -> str:
    """A new key as base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def key_name(key: bytes) -> str:
    """The name of a key in stored texts, which tells nothing about the key."""
    return sha256(b"concord secret key\0" + key).hexdigest()[:8]


def is_sealed(stored: str) -> bool:
    """Whether a stored text is encrypted."""
    return stored.startswith(PREFIX)


def _key(text: str, number: int) -> bytes:
    try:
        key = base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"key {number} is not {KEY_BYTES} bytes as base64: make one with `openssl rand -base64 32`")
    return key
