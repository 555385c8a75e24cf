"""A real SMTP server (aiosmtpd) that can be made to fail at each verb.

`trouble` has, by verb (CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, CONTENT, QUIT), what the next times bring, one
after the other:

    drop       the connection is cut there
    taken      CONTENT only: the mail is taken, and the connection is cut in place of the answer
    hang       no answer
    "4xx ..."  this answer, as any other text; RCPT may also be a mapping from address to answer

`taken` is the ledger: the mails that the server has taken, as (recipients, content).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

#: The only valid name and password.
USERNAME, PASSWORD = "concord", "of-nobody"


@dataclass
class SmtpServerDouble:
    """What the server was told, and how it fails."""

    trouble: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    taken: list[tuple[list[str], bytes]] = field(default_factory=list)
    #: Verbs in the order in which they came.
    verbs: list[str] = field(default_factory=list)
    port: int = 0
    #: PEM file of the certificate, for clients to trust.
    cafile: str | None = None

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails that were taken."""
        return [message_from_bytes(content, policy=default) for _, content in self.taken]  # type: ignore[misc]

    def next(self, verb: str) -> Any:
        """What is to go wrong at this verb, if anything."""
        self.verbs.append(verb)
        return self.trouble[verb].pop(0) if self.trouble[verb] else None

    async def handle_DATA(self, server: _Session, session: Any, envelope: Any) -> str | None:
        """The content has come."""
        trouble = self.next("CONTENT")
        if trouble in (None, "taken"):
            self.taken.append((list(envelope.rcpt_tos), envelope.original_content))
        return await server.fails(trouble) or "250 2.0.0 Ok: queued as 4711"


class _Session(SMTP):
    """A connection to the double."""

    def __init__(self, double: SmtpServerDouble, **more: Any) -> None:
        super().__init__(double, hostname="mail.example.com", ident="test", **more)
        self._double, self._is_known = double, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._is_known and self._double.next("CONNECT") == "drop":
            transport.abort()  # type: ignore[attr-defined]
        self._is_known = True  # STARTTLS makes the connection a second time

    async def fails(self, trouble: Any) -> str | None:
        """The answer that the trouble gives; it may be none."""
        if trouble in ("drop", "taken"):
            self.transport.abort()
            await asyncio.sleep(0)
            return "421 4.4.2 gone"
        if trouble == "hang":
            await asyncio.sleep(3600)
        return trouble

    async def _unless(self, verb: str, usual: Any, arg: str) -> None:
        trouble = self._double.next(verb)
        if isinstance(trouble, dict):
            trouble = next((answer for address, answer in trouble.items() if address in arg), None)
        answer = await self.fails(trouble)
        if answer is None:
            await usual(arg)
        else:
            await self.push(answer)

    async def smtp_EHLO(self, hostname: str) -> None:
        await self._unless("EHLO", super().smtp_EHLO, hostname)

    async def smtp_STARTTLS(self, arg: str) -> None:
        await self._unless("STARTTLS", super().smtp_STARTTLS, arg)

    async def smtp_AUTH(self, arg: str) -> None:
        await self._unless("AUTH", super().smtp_AUTH, arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        await self._unless("MAIL", super().smtp_MAIL, arg or "")

    async def smtp_RCPT(self, arg: str | None) -> None:
        await self._unless("RCPT", super().smtp_RCPT, arg or "")

    async def smtp_DATA(self, arg: str) -> None:
        await self._unless("DATA", super().smtp_DATA, arg)

    async def smtp_QUIT(self, arg: str) -> None:
        await self._unless("QUIT", super().smtp_QUIT, arg)


def _authenticates(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    valid = (data.login, data.password) == (USERNAME.encode(), PASSWORD.encode())
    return AuthResult(success=valid, handled=False)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 and localhost, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    day = timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "smtp.pem", folder / "smtp.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return private, pem


@contextlib.asynccontextmanager
async def smtp_server(
    folder: Path | None = None, *, tls: bool = False, auth: bool = False
) -> AsyncIterator[SmtpServerDouble]:
    """A server on 127.0.0.1. With `folder`, where its certificate is written, it has STARTTLS, or with `tls` speaks it
    from the beginning; with `auth` it wants a name and a password behind STARTTLS.
    """
    double, context = SmtpServerDouble(), None
    if folder is not None:
        key, pem = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        double.cafile = str(pem)
    more: dict[str, Any] = {"auth_required": auth, "authenticator": _authenticates} if auth else {}
    if context is not None and not tls:
        more |= {"tls_context": context, "require_starttls": True}
    sessions: set[_Session] = set()

    def session() -> _Session:
        sessions.add(one := _Session(double, **more))
        return one

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0, ssl=context if tls else None)
    double.port = server.sockets[0].getsockname()[1]
    try:
        yield double
    finally:
        server.close()
        for one in sessions:
            if one.transport is not None:
                one.transport.abort()
            if one._handler_coroutine is not None:
                one._handler_coroutine.cancel()
        await server.wait_closed()
