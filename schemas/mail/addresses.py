"""Addresses to which mail is sent."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

#: The dot-atom form of RFC 5321, without quoted parts and comments: nothing that a header or a command could take for
#: its own. Other alphabets in a domain are written as IDNA has them (`xn--`).
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"(?=.{{3,254}}\Z)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+")

#: Recipients of one mail.
MAX_RECIPIENTS: Final = 20


def _checked(address: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise ValueError("is no address of the form name@example.com (ASCII only; write a domain as IDNA does)")
    return address


MailAddress = Annotated[
    str, Field(max_length=254), AfterValidator(_checked), Field(json_schema_extra={"pattern": f"^{_ADDRESS.pattern}$"})
]

#: Whom a report is sent to.
Recipients = Annotated[tuple[MailAddress, ...], Field(max_length=MAX_RECIPIENTS)]


def domain_of(address: str) -> str:
    """The part behind the @, in lower case."""
    return address.rpartition("@")[2].lower()
