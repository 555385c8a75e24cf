"""Makes the models that Moonshine's authors ship fast: run once, in a process of its own, because it needs `onnx`.

As shipped (ONNX Runtime's own format, weights in 8 bits), each weight is made a float again at every token, by a chain
of Cast, Mul and Add: 114 ms a token. Here the chains are computed once and become weights, which are then quantised for
ONNX Runtime's own 8-bit multiplication: 11 ms a token. The decoder also gets its cross attention as outputs, from which
the times of words are found. The result is checked on a recording of the wheel's.
"""

from __future__ import annotations

import itertools
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt
    from onnxruntime import InferenceSession

#: The converted files.
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
#: The decoder's layers whose cross attention tells best where a word is: of its eight, those that Whisper base's times
#: agree with (0.08 to 0.10 s apart at the median).
ATTENTION_LAYERS = (0, 4, 5, 6, 7)
#: What the shipped models hear in the wheel's recording: its tokens, between those that begin and end every recording.
_HEARD = (1, 18274, 1898, 3926, 5229, 29892, 694, 4383, 1018, 1449, 4418, 1449, 4418, 2253, 29889, 2)
#: At so many of them the converted decoder may choose another one: quantisation, and other processors, round otherwise.
_OTHERS = 2

_OPERATORS: dict[str, Callable[..., Any]] = {
    "Cast": lambda value: value.astype("float32"),
    "Mul": lambda one, two: one * two,
    "Add": lambda one, two: one + two,
}


def convert(encoder: Path, decoder: Path, folder: Path) -> None:
    """Write the converted models to the folder."""
    import onnx

    for source, target in ((encoder, folder / ENCODER), (decoder, folder / DECODER)):
        plain = target.with_suffix(".plain.onnx")
        _save_as_onnx(source, plain)
        model = onnx.load(plain)
        _fold(model.graph)
        if target.name == DECODER:
            _add_attention(model.graph)
        # The others are of no use here, and newer versions of `onnx` may refuse them.
        domains = [used for used in model.opset_import if used.domain in {"", "com.microsoft"}]
        del model.opset_import[:]
        model.opset_import.extend(domains)
        onnx.save(model, plain)
        _quantise(plain, target)
        plain.unlink()


def _save_as_onnx(source: Path, target: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ONNX")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _fold(graph: Any) -> None:
    """Replace the nodes that compute with weights only by their values."""
    import numpy as np
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    values: dict[str, npt.NDArray[np.float32]] = {}

    def value(name: str) -> Any:
        if name not in values and name in weights:
            values[name] = numpy_helper.to_array(weights[name])
        return values.get(name)

    folded = []
    for node in graph.node:
        operands = [value(name) for name in node.input] if node.op_type in _OPERATORS else [None]
        if all(operand is not None for operand in operands):
            values[node.output[0]] = _OPERATORS[node.op_type](*operands)
            folded.append(node)
    for node in folded:
        graph.node.remove(node)
    used = set(_inputs(graph))
    new = [
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in values.items()
        if name in used and name not in weights
    ]
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept + new)


def _inputs(graph: Any) -> Iterator[str]:
    """The names that the nodes of a graph and of its branches use."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _inputs(attribute.g)


def _add_attention(graph: Any) -> None:
    """Make the cross attention of `ATTENTION_LAYERS` outputs, of both branches (the first token, and all others)."""
    from onnx import TensorProto, helper

    choice = next(node for node in graph.node if node.op_type == "If")
    for branch in choice.attribute:
        branch.g.name = branch.name  # `onnx` wants one
        for layer in ATTENTION_LAYERS:
            name = f"attention.{layer}.{branch.name}"
            attention = f"/model/decoder/layers.{layer}/encoder_attn/Softmax_output_0"
            branch.g.node.append(helper.make_node("Identity", [attention], [name]))
            branch.g.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    for layer in ATTENTION_LAYERS:
        choice.output.append(f"attention.{layer}")
        graph.output.append(helper.make_tensor_value_info(f"attention.{layer}", TensorProto.FLOAT, None))


def _quantise(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
        extra_options={"EnableSubgraph": True},
    )


def check(folder: Path, recording: Path) -> None:
    """Raise ValueError unless the converted models hear in the wheel's recording what the shipped ones hear."""
    import numpy as np
    from onnxruntime import InferenceSession

    with wave.open(str(recording)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    samples = sound.astype(np.float32) / np.float32(1 << 15)
    (hidden,) = InferenceSession(folder / ENCODER).run(None, {"input_values": samples[None]})
    decoder = InferenceSession(folder / DECODER)
    past: dict[str, Any] = {}
    others = 0
    for token, following in itertools.pairwise(_HEARD):
        outputs = _run(decoder, hidden, token, past)
        # What it keeps of the recording comes with the first token only.
        past |= {name: value for name, value in outputs.items() if not past or ".encoder." not in name}
        others += int(outputs["logits"][0, -1].argmax()) != following
    if others > _OTHERS:
        raise ValueError(f"the converted Moonshine model chooses {others} of {len(_HEARD) - 1} tokens otherwise")
    for layer in ATTENTION_LAYERS:
        attention = past.get(f"attention.{layer}")
        if attention is None or not np.allclose(attention.sum(axis=-1), 1, atol=1e-3):
            raise ValueError(f"the converted Moonshine model has no attention in layer {layer}")


def _run(decoder: InferenceSession, hidden: Any, token: int, past: dict[str, Any]) -> dict[str, Any]:
    """The decoder's outputs by name for the next token, after those of `past`; empty: the first token."""
    import numpy as np

    ids, cached = np.array([[token]]), np.array([bool(past)])
    step = {"input_ids": ids, "encoder_hidden_states": hidden, "use_cache_branch": cached}
    for entry in decoder.get_inputs():
        if entry.name.startswith("past_key_values."):
            nothing = np.zeros((1, entry.shape[1], 0, entry.shape[3]), np.float32)
            step[entry.name] = past[entry.name.replace("past_key_values", "present")] if past else nothing
    return dict(zip((output.name for output in decoder.get_outputs()), decoder.run(None, step), strict=True))


def main(encoder: str, decoder: str, recording: str, folder: str) -> None:
    """`python -m agents.embedded.moonshine_conversion ENCODER DECODER RECORDING FOLDER`: convert, then check."""
    convert(Path(encoder), Path(decoder), Path(folder))
    check(Path(folder), Path(recording))


if __name__ == "__main__":
    main(*sys.argv[1:])
