"""The port of a mail server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from schemas.mail.rows import Attempt


class MailServer(Protocol):
    """Takes mails for delivery."""

    async def check(self, sender: str) -> None:
        """Open and end a session, without a mail. Raises `Transient` as `send` does."""

    async def send(
        self, sender: str, recipients: Sequence[str], content: bytes, about_to: Callable[[], Awaitable[None]]
    ) -> Attempt:
        """Hand a mail over in one session. `about_to` is called when the server waits for the content, before any of it
        is sent; if it raises, the session ends, and the exception passes through.

        Raises:
            Transient: The server cannot be reached or used, or takes the mail later: it has certainly not taken it.
        """
