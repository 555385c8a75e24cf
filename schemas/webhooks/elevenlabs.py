"""ElevenLabs' signatures of its webhooks: `ElevenLabs-Signature: t=SECONDS,v0=HMAC-SHA256("t.body")`. No I/O."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from schemas.webhooks.signature import BadSignature

HEADER: Final = "ElevenLabs-Signature"

#: Seconds by which a signature may be old, as ElevenLabs' own SDK has it, and by which its clock may go before ours.
OLD_S, AHEAD_S = 1800, 300

#: Characters of the header, at most.
_MAX_CHARS: Final = 1000


class Signature:
    """A signature that is being checked, while the body arrives."""

    def __init__(self, secret: str, header: str, now: float) -> None:
        """Raises BadSignature: The header is missing or cannot be read, or its time is not the present."""
        parts = [part.strip().partition("=") for part in header[:_MAX_CHARS].split(",")]
        times = [value for name, _, value in parts if name == "t"]
        self._digests = [value.lower() for name, _, value in parts if name == "v0" and value.isascii()]
        if len(times) != 1 or not self._digests or not _is_number(times[0]):
            raise BadSignature(f"{HEADER} must be t=SECONDS,v0=DIGEST")
        if not now - OLD_S <= int(times[0]) <= now + AHEAD_S:
            raise BadSignature(f"{HEADER} is of another time; is the clock of this machine right?")
        self._hmac = hmac.new(secret.encode(), f"{times[0]}.".encode(), hashlib.sha256)

    def add(self, part: bytes) -> None:
        """The next part of the body."""
        self._hmac.update(part)

    def check(self) -> None:
        """Raises BadSignature if the body is not the one that was signed."""
        digest = self._hmac.hexdigest()
        if not sum(hmac.compare_digest(digest, one) for one in self._digests):
            raise BadSignature(f"{HEADER} does not match the body, or is of another secret")


def sign(secret: str, body: bytes, at: int) -> str:
    """The header of a body, as ElevenLabs makes it."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v0={digest}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12
