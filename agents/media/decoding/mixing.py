"""Mixes the channels or tracks of a recording to one, so that every speaker remains audible.

The mean of two channels is silence where one is the other inverted: by a wire crossed in a jack, a "wide" effect, or a
conference bridge. Therefore a channel that correlates negatively with the loudest one is inverted first, window by
window. Two speakers on two channels do not correlate negatively, and the mean contains both. Channels that were silent
so far are left out of the mean, so that they do not attenuate the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Peak amplitude, full scale being 1 (-60 dB): what never gets louder is called silent.
SILENT_PEAK = 0.001
#: Seconds of a window: as long as a word, so that a negative correlation is not chance.
WINDOW_S = 0.25
#: Windows that are mixed together, for speed.
_WINDOWS = 16
#: Correlation with the loudest channel below which a channel opposes it.
OPPOSED = -0.5
#: Seconds of the cross-fade between two sets of weights.
_FADE_S = 0.02


class Mixer:
    """Mixes a recording that comes in portions. The result does not depend on the portions."""

    def __init__(self, channels: int, rate: int) -> None:
        import numpy as np

        self._window, self._fade = round(WINDOW_S * rate), round(_FADE_S * rate)
        self._signs = np.ones(channels, dtype=np.float32)
        self._audible = np.zeros(channels, dtype=bool)
        self._weights: NDArray[np.float32] | None = None
        self._held: list[NDArray[np.float32]] = []
        self._length = 0

    def mix(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Add samples (channels by samples); the mixed samples of all windows that are complete."""
        import numpy as np

        if len(self._signs) == 1:
            yield samples[0]
            return
        self._held.append(samples)
        self._length += samples.shape[1]
        if self._length >= _WINDOWS * self._window:
            joined = np.concatenate(self._held, axis=1)
            end = self._length // self._window * self._window
            self._held, self._length = [joined[:, end:]], self._length - end
            yield self._windows(joined[:, :end])

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """The mixed samples of the last, incomplete window."""
        import numpy as np

        if self._length:
            yield self._windows(np.concatenate(self._held, axis=1))
        self._held, self._length = [], 0

    def _windows(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mix window by window, or all at once if the weights stay the same."""
        import numpy as np

        starts = range(0, samples.shape[1], self._window)
        windows = [samples[:, start : start + self._window] for start in starts]
        if self._weights is not None and (np.abs(samples).max(axis=1) <= SILENT_PEAK)[~self._audible].all():
            signed = samples * self._signs[:, None]
            if not any(opposed(signed[:, start : start + self._window]).any() for start in starts):
                mixed: NDArray[np.float32] = self._weights @ samples
                return mixed
        return np.concatenate([self._mixed(window) for window in windows])

    def _mixed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        self._audible |= np.abs(window).max(axis=1) > SILENT_PEAK
        self._signs[opposed(window * self._signs[:, None])] *= -1
        counting = self._audible if self._audible.any() else np.ones_like(self._audible)
        weights = (self._signs * counting / counting.sum()).astype(np.float32)
        before = weights if self._weights is None else self._weights
        self._weights = weights
        mixed: NDArray[np.float32] = weights @ window
        if not np.array_equal(before, weights):
            fade = min(self._fade, window.shape[1])
            share = np.linspace(0, 1, fade, dtype=np.float32)
            mixed[:fade] = share * mixed[:fade] + (1 - share) * (before @ window[:, :fade])
        return mixed


def opposed(window: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Per channel of a window (channels by samples): whether it is audible and the inverse of the loudest channel."""
    import numpy as np

    power = np.einsum("cs,cs->c", window, window)
    loudest = int(power.argmax())
    audible = power > SILENT_PEAK**2 * window.shape[1]
    alike = window @ window[loudest] / np.sqrt(np.maximum(power * power[loudest], 1e-20))
    inverse: NDArray[np.bool_] = audible & (alike < OPPOSED)
    return inverse
