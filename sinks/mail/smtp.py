"""A mail server, spoken to by SMTP (RFC 5321).

Two moments matter. Until the server has asked for the content (354), nothing can have been taken, whatever happens.
From there to its answer it may have been, so that an answer that does not come leaves the mail in doubt.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import SecretStr

from schemas.errors import Transient
from schemas.mail.addresses import domain_of
from schemas.mail.rows import Attempt
from schemas.texts import readable
from sinks.ports.mail.transport import MailServer

if TYPE_CHECKING:
    import aiosmtplib

#: How a connection is encrypted: from its beginning, by STARTTLS before anything is said, or not at all.
Security = Literal["tls", "starttls", "none"]

#: The ports that servers listen on by default.
PORTS: Final = {"tls": 465, "starttls": 587, "none": 25}

#: Seconds for each command and its answer; and for the content, which a server may check for viruses before it answers
#: (RFC 5321 asks for ten minutes).
STEP_S, CONTENT_S = 60.0, 600.0

#: Seconds for the farewell, when all is said.
QUIT_S: Final = 5.0

_ANSWER_CHARS: Final = 400
_LINE_START: Final = re.compile(rb"(?m)^\.")


@dataclass(frozen=True)
class SmtpServer(MailServer):
    """The server of this installation. Each mail has a session of its own."""

    host: str
    port: int
    security: Security = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    #: PEM file of the server's authority, where it is not a public one.
    cafile: str | None = None
    step_s: float = STEP_S
    content_s: float = CONTENT_S

    async def check(self, sender: str) -> None:
        """Open and end a session: the password is accepted, and no mail is sent."""
        async with self._session(domain_of(sender)) as client:
            await client.noop()

    async def send(
        self, sender: str, recipients: Sequence[str], content: bytes, about_to: Callable[[], Awaitable[None]]
    ) -> Attempt:
        """Hand a mail over in one session."""
        try:
            async with self._session(domain_of(sender)) as client:
                refused, put_off, taken = await self._envelope(client, sender, recipients)
                if taken:
                    await self._data(client)
                    await about_to()
                    return await self._content(client, content, taken, refused)
        except _MailRefused as exc:
            return Attempt(refused=dict.fromkeys(recipients, str(exc)), answer=str(exc))
        if not put_off:
            return Attempt(refused=refused, answer=next(iter(refused.values()), ""))
        if not refused:
            raise Transient(f"the mail server takes the mail later: {put_off[-1]}")
        return Attempt(refused=refused, answer=put_off[-1])

    @contextlib.asynccontextmanager
    async def _session(self, own_name: str) -> AsyncIterator[aiosmtplib.SMTP]:
        """A connection on which mail can be sent. Errors of the server in it are raised as ours: whatever it says
        before it has heard of the mail is about this installation, whose operator can mend it.
        """
        import aiosmtplib

        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            local_hostname=own_name,
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",
            username=self.username,
            password=self.password.get_secret_value() if self.password else None,
            timeout=self.step_s,
            tls_context=None if self.security == "none" else await self._tls(),
        )
        try:
            await client.connect()
            yield client
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=QUIT_S)
        except aiosmtplib.SMTPResponseException as exc:
            raise Transient(f"the mail server answers {_said(exc.code, exc.message)}") from exc
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as exc:
            raise Transient(f"the mail server cannot be used: {_reason(exc)}") from exc
        finally:
            client.close()

    async def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.cafile)
        except OSError as exc:
            raise Transient(f"SMTP_CAFILE cannot be read: {exc.strerror}") from exc

    async def _envelope(
        self, client: aiosmtplib.SMTP, sender: str, recipients: Sequence[str]
    ) -> tuple[dict[str, str], list[str], list[str]]:
        """Announce the mail: whom the server refuses, what it says of those that it takes later, whom it takes."""
        import aiosmtplib

        try:
            await client.mail(sender)
        except aiosmtplib.SMTPSenderRefused as exc:
            raise _error(exc.code, exc.message) from exc
        refused: dict[str, str] = {}
        put_off: list[str] = []
        taken: list[str] = []
        for address in recipients:
            try:
                await client.rcpt(address)
            except aiosmtplib.SMTPRecipientRefused as exc:
                said = _said(exc.code, exc.message)
                if 500 <= exc.code < 600:
                    refused[address] = said
                else:
                    put_off.append(said)
            else:
                taken.append(address)
        return refused, put_off, taken

    async def _data(self, client: aiosmtplib.SMTP) -> None:
        """Ask the server to take the content."""
        response = await client.execute_command(b"DATA")
        if response.code != 354:
            raise _error(response.code, response.message)

    async def _content(
        self, client: aiosmtplib.SMTP, content: bytes, taken: Sequence[str], refused: dict[str, str]
    ) -> Attempt:
        """Send the content, and read what becomes of it. aiosmtplib's own `data` does not tell a connection that is
        lost before 354 from one that is lost behind the content.
        """
        import aiosmtplib

        protocol = client.protocol
        if protocol is None:
            raise Transient("the mail server cannot be used: it has ended the session before the content")
        protocol.write(_LINE_START.sub(b"..", content) + b".\r\n")
        try:
            response = await protocol.read_response(timeout=self.content_s)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as exc:
            client.close()  # no farewell: the server does not answer
            doubt = f"the content was sent, and the mail server did not answer: {_reason(exc)}"
            return Attempt(refused=refused, answer=doubt, in_doubt=True)
        said = _said(response.code, response.message)
        if 200 <= response.code < 300:
            return Attempt(accepted=tuple(taken), refused=refused, answer=said)
        if 500 <= response.code < 600:
            return Attempt(refused=refused | dict.fromkeys(taken, said), answer=said)
        raise Transient(f"the mail server does not take the content: {said}")


def _said(code: int, message: str) -> str:
    return readable(f"{code} {message}".encode(errors="replace").decode(errors="replace"), _ANSWER_CHARS)


class _MailRefused(Exception):
    """The server refuses the mail for good, whoever is to read it."""


def _error(code: int, message: str) -> Exception:
    if 500 <= code < 600:
        return _MailRefused(_said(code, message))
    return Transient(f"the mail server answers {_said(code, message)}")


def _reason(exc: BaseException) -> str:
    return readable(str(exc), _ANSWER_CHARS) or type(exc).__name__
