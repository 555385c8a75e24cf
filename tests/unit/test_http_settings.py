"""The settings of the HTTP service: what they accept, and what a wrong one says."""

from __future__ import annotations

import pytest

from agents.fleet.environment import from_env
from agents.fleet.http import _listen_for_metrics, _options, listen
from agents.fleet.sections.http import address_of
from schemas.errors import SettingsError


def test_origins_are_a_list():
    settings = from_env({"CONCORD_CORS_ORIGINS": "https://app.example/, http://localhost:3000"})

    assert settings.cors_origins == {"https://app.example", "http://localhost:3000"}
    assert from_env({}).cors_origins == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONCORD_CORS_ORIGINS", "app.example"),
        ("CONCORD_CORS_ORIGINS", "https://app.example/path"),
        ("CONCORD_METRICS", "9090"),
        ("CONCORD_REQUESTS_PER_MINUTE", "-1"),
        ("CONCORD_URL", "https://user@concord.example"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=name):
        from_env({name: value})


def test_an_address_without_a_host_is_of_all_interfaces():
    assert (address_of(":9090"), address_of("127.0.0.1:0")) == (("0.0.0.0", 9090), ("127.0.0.1", 0))


def test_workers_share_an_address_only_where_each_says_so():
    with listen(from_env({"CONCORD_HTTP": "127.0.0.1:0", "CONCORD_HTTP_SHARED": "true"}), must=True) as first:
        here = {"CONCORD_HTTP": f"127.0.0.1:{first.getsockname()[1]}"}
        with listen(from_env(here | {"CONCORD_HTTP_SHARED": "true"}), must=True) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(SettingsError, match="CONCORD_HTTP: cannot listen"):
            listen(from_env(here), must=True)


def test_a_port_that_is_taken_and_a_file_that_cannot_be_written_are_named(tmp_path):
    taken = _listen_for_metrics("127.0.0.1:0")
    with taken, pytest.raises(SettingsError, match="CONCORD_METRICS: cannot listen"):
        _listen_for_metrics(f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(SettingsError, match="CONCORD_ACCESS_LOG: cannot write"):
        _options(from_env({"CONCORD_ACCESS_LOG": str(tmp_path / "none" / "x")}))
