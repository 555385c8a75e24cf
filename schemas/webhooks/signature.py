"""Signatures of webhooks, ours and those that outside services send to us.

Source: Standard Webhooks (headers `webhook-id`, `webhook-timestamp`, `webhook-signature`; secrets `whsec_<base64>`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from schemas.errors import InvalidInput

PREFIX: Final = "whsec_"

#: Seconds that the clock of a sender may differ from ours; an older message is a replay.
TOLERANCE_S: Final = 300.0

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

#: Most signatures in a header that are compared.
_MANY: Final = 10


class BadSignature(InvalidInput):
    """A message is not signed with this secret, or is too old."""


def new_secret() -> str:
    """A new secret with 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes that sign: those that `whsec_` encodes; of any other text its own bytes."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """One signature of a message, as `v1,<base64>`."""
    signed = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, sha256).digest()).decode()


def headers_of(secrets: Sequence[str], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message, with a signature by each secret that is valid."""
    signatures = " ".join(signature(secret, id, timestamp, body) for secret in secrets)
    return {ID: id, TIMESTAMP: str(timestamp), SIGNATURE: signatures}


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Check the signature of a received message in constant time; returns its id. `now` is in seconds since 1970.

    Raises:
        BadSignature: A header is missing or malformed, no signature is by this secret, or the message is too old or
            from the future.
    """
    id, text = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not (id and id.isascii() and id.isprintable() and len(id) <= 255) or not _is_time(text):
        raise BadSignature(f"send {ID}, {TIMESTAMP} (seconds since 1970) and {SIGNATURE}: see Standard Webhooks")
    expected = signature(secret, id, int(text), body).encode()
    given = headers.get(SIGNATURE, "").encode("utf-8", "surrogateescape").split(b" ")[:_MANY]
    if not sum(hmac.compare_digest(expected, one) for one in given):
        raise BadSignature(f"{SIGNATURE} is not `v1,<base64>` of HMAC-SHA256 over `id.timestamp.body` by the secret")
    if abs(int(text) - now) > TOLERANCE_S:
        raise BadSignature(f"{TIMESTAMP} is more than {TOLERANCE_S:.0f} s from the time here: sign each attempt anew")
    return id


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12
