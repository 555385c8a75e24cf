"""Signatures of webhooks, compared with the library of the specification."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from schemas.webhooks.signature import TOLERANCE_S, BadSignature, headers_of, key_of, new_secret, signature, verify

NOW = int(datetime.now(UTC).timestamp())


def test_a_new_secret_has_as_many_bytes_as_the_specification_asks_for():
    secret = new_secret()

    assert secret.startswith("whsec_")
    assert 24 <= len(key_of(secret)) <= 64
    assert new_secret() != secret


def test_what_is_signed_by_two_secrets_is_verified_by_each_and_by_no_other():
    old, new = new_secret(), new_secret()
    now = int(datetime.now(UTC).timestamp())  # the library compares it with the clock
    headers = headers_of([new, old], "e1", now, b'{"a":1}')

    for secret in (old, new):
        assert Webhook(secret).verify(b'{"a":1}', headers) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(b'{"a":1}', headers)


def test_what_the_library_signs_is_verified():
    secret, body = new_secret(), '{"a":"ü"}'
    headers = {"webhook-id": "m1", "webhook-timestamp": str(NOW)}
    headers["webhook-signature"] = "v1,AAAA " + Webhook(secret).sign("m1", datetime.fromtimestamp(NOW, UTC), body)

    assert verify(secret, headers, body.encode(), NOW) == "m1"


def test_a_secret_without_the_prefix_signs_by_its_text():
    assert key_of("a secret of some length") == b"a secret of some length"
    assert key_of("whsec_" + base64.b64encode(b"k" * 24).decode()) == b"k" * 24


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-signature": "v1,AAAA"}, "is not"),
        ({"webhook-signature": ""}, "is not"),
        ({"webhook-signature": "v1,ü\udcff"}, "is not"),
        ({"webhook-id": "other"}, "is not"),
        ({"webhook-id": ""}, "send webhook-id"),
        ({"webhook-id": "a" * 256}, "send webhook-id"),
        ({"webhook-id": "ü"}, "send webhook-id"),
        ({"webhook-timestamp": "now"}, "send webhook-id"),
        ({"webhook-timestamp": "-5"}, "send webhook-id"),
        ({"webhook-timestamp": "٣"}, "send webhook-id"),
        ({"webhook-timestamp": "9" * 13}, "send webhook-id"),
        ({"webhook-timestamp": str(NOW + 1)}, "is not"),
    ],
)
def test_a_message_that_is_not_signed_is_refused_with_a_reason(change, reason):
    secret = new_secret()
    headers = headers_of([secret], "e1", NOW, b"{}") | change

    with pytest.raises(BadSignature, match=reason):
        verify(secret, headers, b"{}", NOW)
    with pytest.raises(BadSignature):
        verify(secret, {}, b"{}", NOW)


@pytest.mark.parametrize("ago", [TOLERANCE_S + 1, -TOLERANCE_S - 1])
def test_an_old_message_and_one_from_the_future_are_refused(ago):
    secret = new_secret()
    headers = headers_of([secret], "e1", NOW, b"{}")

    assert verify(secret, headers, b"{}", NOW + ago / 2) == "e1"
    with pytest.raises(BadSignature, match="sign each attempt anew"):
        verify(secret, headers, b"{}", NOW + ago)


def test_the_body_is_signed_as_bytes():
    secret = new_secret()

    assert signature(secret, "e", NOW, b"\xff") != signature(secret, "e", NOW, b"\xfe")
