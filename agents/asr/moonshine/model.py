"""Moonshine's encoder and decoder in ONNX Runtime: from the samples of a window to pieces of words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.asr.speech_windows import RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Files of a model's folder; `agents.embedded.moonshine_weights` makes them.
ENCODER, DECODER, VOCABULARY = "encoder.onnx", "decoder.onnx", "tokenizer.bin"
#: Tokens of a second of speech at most, as Moonshine's authors have it: what is longer repeats itself.
TOKENS_PER_S = 6.5

_START, _END = 1, 2
#: What stands for a space in the vocabulary.
_SPACE = "▁".encode()


@dataclass(frozen=True, slots=True)
class Heard:
    """What the model heard in a window: tokens, and how it came to them."""

    #: Bytes of UTF-8 of each token; those that begin a word begin with a space.
    pieces: list[bytes]
    #: The probability that the model gave each token.
    probabilities: list[float]
    #: Cross attention, of shape (heads, tokens, frames); of the token that ends the window, too.
    attention: NDArray[np.float32]
    #: The model stopped at `TOKENS_PER_S`, and not because it had heard the end.
    cut_off: bool


class Model:
    """A converted Moonshine model."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the files of this folder, in about a second."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Both for memory: the arena keeps what the longest window needed (40 MB) and is no faster; weights in a second
        # form, packed, take 75 MB and save a tenth of the time.
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )
        self._pieces = pieces((folder / VOCABULARY).read_bytes())
        self._outputs = [output.name for output in self._decoder.get_outputs()]
        cached = [entry for entry in self._decoder.get_inputs() if entry.name.startswith("past_key_values.")]
        self._no_past = {entry.name: np.zeros((1, entry.shape[1], 0, entry.shape[3]), np.float32) for entry in cached}

    def hear(self, samples: NDArray[np.float32]) -> Heard:
        """The most probable token at each step, until the model has heard the end."""
        (hidden,) = self._encoder.run(None, {"input_values": samples[None]})
        past, token = self._no_past, _START
        tokens: list[int] = []
        probabilities: list[float] = []
        attention: list[NDArray[np.float32]] = []
        for _ in range(int(len(samples) / RATE * TOKENS_PER_S) + 4):
            outputs = self._step(token, hidden, past, first=token == _START)
            past = {name: _kept(name, outputs, past) for name in past}
            token, probability = _most_probable(outputs["logits"][0, -1])
            probabilities.append(probability)
            attention.append(_heads(outputs))
            if token == _END:
                break
            tokens.append(token)
        return Heard([self._piece(token) for token in tokens], probabilities, np.stack(attention, 1), token != _END)

    def _step(self, token: int, hidden: Any, past: dict[str, Any], *, first: bool) -> dict[str, Any]:
        step = {
            "input_ids": np.array([[token]]),
            "encoder_hidden_states": hidden,
            "use_cache_branch": np.array([not first]),
        }
        return dict(zip(self._outputs, self._decoder.run(None, step | past), strict=True))

    def _piece(self, token: int) -> bytes:
        """Empty for the tokens behind the vocabulary, which mean no text."""
        return self._pieces[token] if token < len(self._pieces) else b""


def _kept(name: str, outputs: dict[str, Any], past: dict[str, Any]) -> Any:
    """What the decoder needs at the next step: its keys and values, those about the recording from the first step."""
    if ".encoder." in name and past[name].shape[2]:
        return past[name]
    return outputs[name.replace("past_key_values", "present")]


def _most_probable(logits: NDArray[np.float32]) -> tuple[int, float]:
    """A token and its probability."""
    token = int(logits.argmax())
    return token, float(1 / np.exp(logits.astype(np.float64) - logits[token]).sum())


def _heads(outputs: dict[str, Any]) -> NDArray[np.float32]:
    """The attention of the last token, of all heads in all layers that the converted model puts out."""
    return np.concatenate([value[0, :, -1] for name, value in outputs.items() if name.startswith("attention.")])


def pieces(vocabulary: bytes) -> list[bytes]:
    """The vocabulary by token: each entry is its length (7 bits, or 15 in two bytes of which the first is the lower 7
    bits and has the high bit), then its bytes.
    """
    found, at = [], 0
    while at < len(vocabulary):
        length = vocabulary[at]
        at += 1
        if length >= 128:
            length += vocabulary[at] * 128 - 128
            at += 1
        found.append(vocabulary[at : at + length].replace(_SPACE, b" "))
        at += length
    return found
