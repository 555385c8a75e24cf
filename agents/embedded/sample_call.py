"""The sample recording: a short call with two synthetic voices, and its text."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING

from agents.embedded.voice import VOICES, speak

if TYPE_CHECKING:
    from pathlib import Path

#: The file's name.
NAME = "two-voices.wav"

#: The call, by speaker: some words are easily misrecognized, so that there is something to reconcile.
CALL = (
    (0, "Good morning, Northwind support, this is Martin speaking. How can I help you?"),
    (1, "Hello Martin, my name is Clara Hughes. My order from last Tuesday has not arrived yet."),
    (0, "I am sorry to hear that. Could you give me the order number, please?"),
    (1, "Yes, it is four seven one nine, and the parcel should go to Bristol."),
    (0, "Thank you. I see that it left our warehouse on Friday, and it will be with you tomorrow before noon."),
    (1, "Wonderful, that is all I wanted to know. Thank you for your help."),
)


def sample_call(folder: Path) -> Path:
    """The path of the recording in this folder; it, and a file with its text, are created if it is missing.

    Creating it blocks for 0.1 s. Raises ServerError when the package with the voices is missing.
    """
    path = folder / NAME
    if not path.exists():
        samples, rate = speak([(VOICES[speaker], text) for speaker, text in CALL])
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(" ".join(text for _, text in CALL) + "\n")
        part = path.with_suffix(".part")
        with wave.open(str(part), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        part.rename(path)
    return path
