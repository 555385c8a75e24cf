"""Encryption of stored secrets."""

from __future__ import annotations

import base64

import pytest

from agents.commands.serve import with_addresses
from agents.embedded import address, secret_key
from agents.fleet.environment import from_env
from schemas.accounts.sealing import CannotOpen, NoSecretKey, Seals, is_sealed, new_key
from schemas.errors import SettingsError

OLD, NEW = new_key(), new_key()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw4ZFvAiDXYIA="
OF = ("acme", "wh_1")


def test_a_secret_is_sealed_and_opened():
    seals = Seals.parse(NEW)
    stored = seals.seal(SECRET, *OF)

    assert is_sealed(stored)
    assert SECRET not in stored
    assert seals.open(stored, *OF) == SECRET
    assert stored != seals.seal(SECRET, *OF)  # of equal secrets nobody sees that they are


@pytest.mark.parametrize("of", [("bolt", "wh_1"), ("acme", "wh_2"), ("acm", "ewh_1"), ("acme",)])
def test_one_that_is_copied_elsewhere_does_not_decrypt(of):
    seals = Seals.parse(NEW)

    with pytest.raises(CannotOpen, match="belongs to something else"):
        seals.open(seals.seal(SECRET, *OF), *of)


@pytest.mark.parametrize("change", [lambda t: t[:-4] + "AAAA", lambda t: t[:-1] + "!", lambda t: t[:25]])
def test_one_that_was_changed_does_not_decrypt(change):
    seals = Seals.parse(NEW)

    with pytest.raises(CannotOpen):
        seals.open(change(seals.seal(SECRET, *OF)), *OF)


def test_while_keys_are_rotated_the_first_encrypts_and_all_decrypt():
    before, both = Seals.parse(OLD), Seals.parse(f"{NEW}, {OLD}")
    stored = before.seal(SECRET, *OF)

    assert both.open(stored, *OF) == SECRET
    assert before.is_current(stored)
    assert not both.is_current(stored)
    with pytest.raises(CannotOpen, match="which CONCORD_SECRET_KEY does not have"):
        before.open(both.seal(SECRET, *OF), *OF)


def test_without_a_key_secrets_in_clear_are_read_and_none_is_stored():
    assert Seals().open(SECRET, *OF) == SECRET
    with pytest.raises(NoSecretKey):
        Seals().seal(SECRET, *OF)
    with pytest.raises(CannotOpen, match="CONCORD_SECRET_KEY is not set"):
        Seals().open(Seals.parse(NEW).seal(SECRET, *OF), *OF)


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "c2VjcmV0",
        base64.b64encode(b"x" * 31).decode(),
        "é" * 44,
        pytest.param(f"{NEW},", id="a key and none"),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(text):
    with pytest.raises(SettingsError, match="openssl rand -base64 32") as refused:
        from_env({"CONCORD_SECRET_KEY": text})

    assert text not in str(refused.value)


def test_keys_show_themselves_nowhere():
    assert repr(Seals.parse(NEW)) == "Seals()"
    assert NEW not in repr(from_env({"CONCORD_SECRET_KEY": NEW}))


def test_the_embedded_database_has_a_key_of_its_own_that_stays(tmp_path):
    key = secret_key.ensure(tmp_path)

    assert secret_key.ensure(tmp_path) == secret_key.read(tmp_path) == key
    assert Seals.parse(key).keys
    assert [(one.name, one.stat().st_mode & 0o777) for one in tmp_path.iterdir()] == [("secret.key", 0o600)]


def test_a_worker_uses_that_key_for_that_database_only(tmp_path):
    own, other = "postgresql://u:p@127.0.0.1/own", "postgresql://u:p@127.0.0.1/other"
    key = secret_key.ensure(tmp_path)
    address.write(tmp_path, {"DATABASE_URL": own})

    def found(**more):
        settings = with_addresses(from_env({"CONCORD_DATA": str(tmp_path)} | more))
        return settings.secret_key and settings.secret_key.get_secret_value()

    assert found() == found(DATABASE_URL=own) == key
    assert found(DATABASE_URL=other) is None
    assert found(CONCORD_SECRET_KEY=NEW) == NEW
