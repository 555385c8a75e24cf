"""Addresses: nothing in one can be taken for a header or a command."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.mail.addresses import Recipients

RECIPIENTS = TypeAdapter(Recipients)


def test_usual_addresses_are_taken():
    addresses = ["ann@example.com", "a.b+c@x-y.example", "o'neil@xn--bcher-kva.example"]

    assert RECIPIENTS.validate_python(addresses) == tuple(addresses)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "ann@example",
        "@example.com",
        "ann@@example.com",
        "ann@example.com\r\nBcc: eve@x.example",
        "ann@example.com\n",
        "ann@example.com>",
        "Ann <ann@example.com>",
        "ann@example.com,bob@example.com",
        '"a b"@example.com',
        "a b@example.com",
        "ann..b@example.com",
        ".ann@example.com",
        "zoë@example.com",
        "ann@exämple.com",
        "ann@-x.example",
        "a" * 65 + "@example.com",
        "ann@" + "x" * 250 + ".example",
        "ann@example.com\x00",
    ],
)
def test_all_others_are_refused(address):
    with pytest.raises(ValidationError):
        RECIPIENTS.validate_python([address])


def test_a_mail_has_at_most_twenty_recipients():
    with pytest.raises(ValidationError):
        RECIPIENTS.validate_python([f"a{n}@example.com" for n in range(21)])
