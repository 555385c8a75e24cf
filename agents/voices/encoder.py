"""The voice encoder: turns 1.6 s of speech into a vector that is near to others of the same speaker.

The GE2E network of Resemblyzer (Wan et al. 2018, arXiv:1710.10467; Apache-2.0) in numpy: three LSTM layers over a mel
spectrogram, and one linear layer. The file's checksum is verified before (`agents.embedded.weights`), so the places of
its tensors are known; its pickles are never loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: The name and version of the encoder and of what it listens to: prints of another one cannot be compared with these.
MODEL: Final = "resemblyzer-ge2e-1"
#: The file with the weights, in the model's folder.
FILE: Final = "pretrained.pt"
#: Hertz of the sound; samples of a frame and between two frames; frequency bands.
RATE, FRAME, HOP, BANDS = 16_000, 400, 160, 40
#: Frames of a window that becomes a vector, and numbers of a vector.
WINDOW, SIZE = 160, 256
#: Hertz of the band of a telephone.
TELEPHONE_HZ: Final = (300, 3400)
#: Layers of the network.
_LAYERS = 3
#: Bytes before the tensors in the file: the linear layer's bias and weights, the LSTM's weights and biases.
_LINEAR_BIAS, _LINEAR, _LSTM = 6_699, 7_731, 269_883
#: Loudness to which quieter sound is raised: -30 dB of full scale, as root mean square.
_LOUDNESS = 10 ** (-30 / 20)


class Encoder:
    """The network."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        self._linear = _tensor(path, _LINEAR, (SIZE, SIZE)).T
        self._bias = _tensor(path, _LINEAR_BIAS, (SIZE,))
        offset, layers = _LSTM, []
        for inputs in (BANDS, SIZE, SIZE):
            into = _tensor(path, offset, (4 * SIZE, inputs)).T
            offset += 4 * into.size
            within = _tensor(path, offset, (4 * SIZE, SIZE)).T
            offset += 4 * within.size
            layers.append((np.ascontiguousarray(into), np.ascontiguousarray(within)))
        biases = _tensor(path, offset, (_LAYERS, 2, 4 * SIZE)).sum(axis=1)
        self._layers = [(*layer, bias) for layer, bias in zip(layers, biases, strict=True)]

    def vectors(self, windows: Floats) -> Floats:
        """(windows, SIZE), each of length 1, from (windows, WINDOW, BANDS)."""
        # The steps of a sequence first: each is then contiguous.
        hidden = np.ascontiguousarray(windows.transpose(1, 0, 2))
        for into, within, bias in self._layers:
            hidden = _lstm(hidden @ into + bias, within)
        vectors = np.maximum(hidden[-1] @ self._linear + self._bias, 0)
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return unit


def _tensor(path: Path, offset: int, shape: tuple[int, ...]) -> Floats:
    return np.fromfile(path, dtype="<f4", count=int(np.prod(shape)), offset=offset).reshape(shape)


def _lstm(gates: Floats, within: Floats) -> Floats:
    """The outputs (steps, windows, SIZE) of a layer, from what its inputs add to its gates (steps, windows, 4 SIZE)."""
    steps, windows, _ = gates.shape
    outputs = np.empty((steps, windows, SIZE), dtype=np.float32)
    output = cell = np.zeros((windows, SIZE), dtype=np.float32)
    for step in range(steps):
        gate = gates[step] + output @ within
        # The sigmoid by tanh, which is faster and cannot overflow.
        into, keep, out = (np.tanh(gate[:, n * SIZE : (n + 1) * SIZE] / 2) / 2 + 0.5 for n in (0, 1, 3))
        cell = keep * cell + into * np.tanh(gate[:, 2 * SIZE : 3 * SIZE])
        output = out * np.tanh(cell)
        outputs[step] = output
    return outputs


def mel(samples: Floats) -> Floats:
    """(frames, BANDS): the power in each frequency band, one frame each 10 ms, its middle at 0, 10, 20 ms..."""
    padded = np.pad(samples, FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    window = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    power = np.concatenate(
        [np.abs(np.fft.rfft(frames[n : n + 1000] * window, axis=1)) ** 2 for n in range(0, len(frames), 1000)]
    )
    bands: Floats = (power @ _filters()).astype(np.float32)
    return bands


def loud(samples: Floats) -> Floats:
    """The samples, raised to the loudness with which the network was trained if they are quieter."""
    loudness = float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
    return samples * np.float32(_LOUDNESS / loudness) if 0 < loudness < _LOUDNESS else samples


def telephone_band(samples: Floats) -> Floats:
    """What a telephone lets through: 300 to 3400 Hz."""
    spectrum, hertz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hertz < TELEPHONE_HZ[0]) | (hertz > TELEPHONE_HZ[1])] = 0
    narrow: Floats = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    return narrow


def _filters() -> Floats:
    """(bins, BANDS): triangles on Slaney's mel scale, each of area 1."""
    edges = _hertz(np.linspace(_mels(0.0), _mels(RATE / 2), BANDS + 2))
    bins = np.linspace(0, RATE / 2, FRAME // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters: Floats = (np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)).astype(np.float32)
    return filters


def _mels(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) * 27 / np.log(6.4)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
