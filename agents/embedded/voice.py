"""Text to speech for the demo's recording: eSpeak NG from a wheel (library and voices), through its C interface.

It works offline, a second of speech in two milliseconds. It sounds synthetic, and is recognized like a telephone call:
3 % (Whisper base) and 7 % (tiny.en) of the words are wrong. GPL-3.0, loaded at run time by the demo and by tests only.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

#: The two voices with the lowest word error rates: a man's and a woman's.
VOICES = ("en-us", "en-us+f3")

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when the callback has got all samples
_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_RATE = 1  # espeakRATE


def speak(
    lines: Sequence[tuple[str, str]], *, words_per_minute: int = 160, pause_ms: int = 400
) -> tuple[npt.NDArray[np.int16], int]:
    """Speak (voice, text) lines one after the other, with pauses between them.

    Not thread-safe: the library has global state.

    Returns:
        The samples, mono, of shape (n,), and their rate in Hz.

    Raises:
        ServerError: the package is missing, or eSpeak NG fails.
        ValueError: there is no such voice.
    """
    try:
        import espeakng_loader
    except ImportError as exc:
        raise ServerError(
            "speaking a recording needs the extra `local` (espeakng-loader): run `make install`."
        ) from exc
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0:
        raise ServerError(f"eSpeak NG did not start (status {rate}): reinstall with `make clean install`.")
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    pause = np.zeros(rate * pause_ms // 1000, np.int16)
    samples = [part for voice, text in lines for part in (_synthesize(library, voice, text), pause)]
    return np.concatenate(samples or [pause]), rate


def _synthesize(library: ctypes.CDLL, voice: str, text: str) -> npt.NDArray[np.int16]:
    blocks: list[bytes] = []

    def keep(samples: int | None, count: int, _events: int | None) -> int:
        if samples is not None and count:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(keep)  # a variable, so that it is not freed while the library may call it
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"eSpeak NG has no voice {voice!r}")
    encoded = text.encode() + b"\0"
    status = library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, _UTF8, None, None)
    library.espeak_SetSynthCallback(None)  # the callback is freed at the end of this function
    if status != 0:
        raise ServerError(f"eSpeak NG could not speak (status {status}): {text[:60]!r}")
    return np.frombuffer(b"".join(blocks), np.int16)
