"""How Moonshine's model is made of its wheel: a damaged or wrong one is never used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from agents.embedded import moonshine_weights
from agents.embedded.moonshine_weights import moonshine_path
from schemas.errors import ServerError
from tests.conftest import need

need("moonshine_cpp", "onnx", "onnxruntime")


def test_a_damaged_wheel_is_refused_and_leaves_nothing_behind(tmp_path, monkeypatch):
    first, *others = moonshine_weights.FILES
    damaged = type(first)(first.name, "0" * 64, first.parts)
    monkeypatch.setattr(moonshine_weights, "FILES", (damaged, *others))

    with pytest.raises(ServerError, match="damaged or replaced"):
        moonshine_path(None, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_a_failed_conversion_is_reported_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """The encoder in the decoder's place."""
    encoder, decoder, *others = moonshine_weights.FILES
    swapped = type(decoder)(decoder.name, encoder.sha256, encoder.parts)
    monkeypatch.setattr(moonshine_weights, "FILES", (encoder, swapped, *others))

    with pytest.raises(ServerError, match=r"was not converted: .*whisper-tiny\.en"):
        moonshine_path(None, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["zeros", "no attention"])
def test_a_model_that_hears_something_else_fails_its_check(tmp_path, damage):
    import onnx
    from onnx import numpy_helper

    from agents.embedded.moonshine_conversion import DECODER, ENCODER, check

    made = moonshine_path(None)
    recording = Path(importlib.util.find_spec("moonshine_cpp").origin).parent / "test-data" / "beckett.wav"
    check(made, recording)

    (tmp_path / ENCODER).symlink_to(made / ENCODER)
    model = onnx.load(made / DECODER)
    if damage == "zeros":
        quantised = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8]
        weight = max(quantised, key=lambda one: np.prod(one.dims))
        weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    else:
        last = next(output for output in model.graph.output if output.name == "attention.7")
        model.graph.output.remove(last)
    onnx.save(model, tmp_path / DECODER)

    with pytest.raises(ValueError, match="otherwise" if damage == "zeros" else "no attention in layer 7"):
        check(tmp_path, recording)
