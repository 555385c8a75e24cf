"""Finding Whisper's weights: the result is complete and checked, and an error says how to get them."""

from __future__ import annotations

import hashlib
import sys

import pytest

from agents.embedded import weights
from agents.embedded.weights import model_path
from agents.embedded.wheel_files import WheelFile, missing
from schemas.errors import ServerError


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """A package on the path that carries a small model in two parts, and the model's description."""
    package = tmp_path / "site" / "some_carrier"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('its code must not run')")
    (package / "part1").write_bytes(b"one ")
    (package / "part2").write_bytes(b"two")
    monkeypatch.syspath_prepend(tmp_path / "site")
    files = (WheelFile("model.bin", hashlib.sha256(b"one two").hexdigest(), _parts("part1", "part2")),)
    monkeypatch.setitem(weights.MODELS, "little", files)
    yield package
    sys.modules.pop("some_carrier", None)


def _parts(*names):
    return tuple(("some_carrier", name) for name in names)


def test_parts_are_put_together_once_and_then_found_without_the_wheel(carrier, tmp_path):
    first = model_path("little", None, tmp_path / "cache")
    (carrier / "part1").write_bytes(b"changed later")

    assert (first / "model.bin").read_bytes() == b"one two"
    assert model_path("little", None, tmp_path / "cache") == first


def test_a_damaged_wheel_is_refused_and_leaves_nothing_behind(carrier, tmp_path):
    (carrier / "part2").write_bytes(b"too")

    with pytest.raises(ServerError, match="damaged or replaced"):
        model_path("little", None, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_the_operators_folder_wins_over_the_wheels(carrier, tmp_path):
    mine = tmp_path / "models" / "little"
    mine.mkdir(parents=True)
    (mine / "model.bin").write_bytes(b"mine")

    assert model_path("little", tmp_path / "models", tmp_path / "cache") == mine


def test_a_model_in_the_hubs_folder_name_is_found(tmp_path):
    mine = tmp_path / "faster-whisper-large-v3"
    mine.mkdir()
    (mine / "model.bin").write_bytes(b"mine")

    assert model_path("large-v3", tmp_path, tmp_path / "cache") == mine


def test_an_operators_folder_without_the_model_falls_back_to_the_wheels(carrier, tmp_path):
    (tmp_path / "empty").mkdir()

    assert model_path("little", tmp_path / "empty", tmp_path / "cache").parent == tmp_path / "cache"


def test_without_any_weights_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(weights.MODELS, "gone", (WheelFile("model.bin", "0", (("no_such_carrier", "x"),)),))

    with pytest.raises(ServerError, match=r"no-such-carrier.*make install.*WHISPER_MODEL_DIR"):
        model_path("gone", None, tmp_path / "cache")
    with pytest.raises(ServerError, match=r"not in any package.*WHISPER_MODEL_DIR"):
        model_path("huge", None, tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(weights.MODELS))
def test_the_locked_wheels_carry_the_expected_weights(name, tmp_path):
    if missing(weights.MODELS[name]):
        pytest.skip("needs the extra `local`: run `make install`")

    folder = model_path(name, None, tmp_path / "cache")

    assert {"config.json", "model.bin", "tokenizer.json", "vocabulary.txt"} == {file.name for file in folder.iterdir()}
