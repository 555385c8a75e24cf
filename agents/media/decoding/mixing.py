"""Channels of a recording made one, so that nobody in it is lost.

The mean of two channels is silence where one is the other turned over: a wire crossed in a jack, a "wide" effect, a
bridge. So a channel that opposes the loudest one is turned over first, window by window. Two people on two channels do
not oppose each other, and are both there in the mean. Channels in which nothing was heard yet do not thin it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Peak amplitude, full scale being 1 (-60 dB): what never gets louder is called silent.
SILENT_PEAK = 0.001
#: Seconds of a window: as long as a word, so that chance does not look like opposition.
WINDOW_S = 0.25
#: Windows that are mixed together, for speed.
_WINDOWS = 16
#: Correlation with the loudest channel below which a channel opposes it.
OPPOSED = -0.5
#: Seconds in which one way of mixing goes over into the next.
_FADE_S = 0.02


class Mixer:
    """Mixes a recording in any portions; the same recording always comes out the same."""

    def __init__(self, channels: int, rate: int) -> None:
        import numpy as np

        self._window, self._fade = round(WINDOW_S * rate), round(_FADE_S * rate)
        self._signs = np.ones(channels, dtype=np.float32)
        self._heard = np.zeros(channels, dtype=bool)
        self._weights: NDArray[np.float32] | None = None
        self._held: list[NDArray[np.float32]] = []
        self._length = 0

    def mix(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """One channel of what came so far (channels by samples), in whole windows."""
        import numpy as np

        if len(self._signs) == 1:
            yield samples[0]
            return
        self._held.append(samples)
        self._length += samples.shape[1]
        if self._length >= _WINDOWS * self._window:
            whole = np.concatenate(self._held, axis=1)
            end = self._length // self._window * self._window
            self._held, self._length = [whole[:, end:]], self._length - end
            yield self._windows(whole[:, :end])

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """The rest."""
        import numpy as np

        if self._length:
            yield self._windows(np.concatenate(self._held, axis=1))
        self._held, self._length = [], 0

    def _windows(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Window by window, or at once where nothing changes."""
        import numpy as np

        starts = range(0, samples.shape[1], self._window)
        windows = [samples[:, start : start + self._window] for start in starts]
        if self._weights is not None and (np.abs(samples).max(axis=1) <= SILENT_PEAK)[~self._heard].all():
            turned = samples * self._signs[:, None]
            if not any(opposed(turned[:, start : start + self._window]).any() for start in starts):
                mixed: NDArray[np.float32] = self._weights @ samples
                return mixed
        return np.concatenate([self._mixed(window) for window in windows])

    def _mixed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        self._heard |= np.abs(window).max(axis=1) > SILENT_PEAK
        self._signs[opposed(window * self._signs[:, None])] *= -1
        counting = self._heard if self._heard.any() else np.ones_like(self._heard)
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
    """Which channels are the loudest one turned over, as far as there is anything to hear in both."""
    import numpy as np

    power = np.einsum("cs,cs->c", window, window)
    loudest = int(power.argmax())
    audible = power > SILENT_PEAK**2 * window.shape[1]
    alike = window @ window[loudest] / np.sqrt(np.maximum(power * power[loudest], 1e-20))
    found: NDArray[np.bool_] = audible & (alike < OPPOSED)
    return found
