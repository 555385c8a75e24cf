"""Which folders hold Whisper models that can be used, and where they compute: on CPUs, or on CUDA devices."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.media import sandbox
from schemas.errors import ProviderError

#: By device, the types in which weights are computed with, the best first. On CPUs int8 is the fastest, without errors
#: more than float32 has on read speech.
PREFERRED: Final = {"cpu": ("int8", "float32"), "cuda": ("float16", "int8_float16", "float32")}

#: How the binary file of a model of CTranslate2 says that it is a Whisper model, within its first bytes.
_SPECIFICATION, _HEAD = b"WhisperSpec", 32

_ROOT: Final = Path(__file__).parents[2]

#: Files of models that are not converted yet.
_UNCONVERTED = ("model.safetensors", "pytorch_model.bin", "model.pt")

#: What CTranslate2 opens at the first recording that it hears with CUDA, by platform.
_CUBLAS: Final = {"linux": "libcublas.so.12", "win32": "cublas64_12.dll"}

#: Seconds within which CTranslate2 must tell what there is: the driver may take some to start.
_CHECK_S: Final = 60.0

_CONVERT = (
    "convert it: ct2-transformers-converter --model FOLDER --output_dir NEW --quantization float16 "
    "--copy_files tokenizer.json preprocessor_config.json"
)


@dataclass(frozen=True, slots=True)
class Devices:
    """Where a model is to compute, each process with a copy of it."""

    #: "cpu", "cuda", or "auto": CUDA if the driver shows a device.
    device: str = "cpu"
    #: How weights are computed with, in CTranslate2's names; empty for the best of `PREFERRED`.
    compute_type: str = ""
    #: Numbers of the CUDA devices; on CPUs their count matters only.
    numbers: tuple[int, ...] = (0,)
    #: Processes on each of them.
    processes: int = 1
    #: Windows of speech that are recognized at once; None: several on CUDA, and on CPUs one, see `agents.asr.whisper`.
    batch: int | None = None

    @property
    def arguments(self) -> tuple[tuple[str, ...], ...]:
        """The arguments of each process."""
        batch = "" if self.batch is None else str(self.batch)
        of_each = [(self.device, str(number), self.compute_type, batch) for number in self.numbers]
        return tuple(arguments for arguments in of_each for _ in range(self.processes))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a process computes."""

    device: str
    number: int
    compute_type: str


def placed(
    device: str, number: int, compute_type: str, devices: int, supported: Callable[[str], Collection[str]]
) -> Placement:
    """Where a process computes, if the driver shows so many CUDA `devices`. `supported` has a device's compute types.

    Raises:
        ProviderError: There is no such device, or it does not support the type.
    """
    if device == "cpu" or (device == "auto" and not devices):
        device, number = "cpu", 0
    else:
        device = "cuda"
        if number >= devices:
            raise ProviderError(
                f"WHISPER_DEVICES: there is no CUDA device {number}; the driver shows {devices}. Set WHISPER_DEVICE=cpu"
                ", or see that CUDA 12 with cuBLAS and cuDNN is installed and the device visible (nvidia-smi)"
            )
    there = supported(device)
    best = compute_type or next((name for name in PREFERRED[device] if name in there), "default")
    if compute_type and compute_type not in there:
        known = ", ".join(sorted(there))
        raise ProviderError(f"WHISPER_COMPUTE_TYPE: {device} does not support {compute_type} here; it supports {known}")
    return Placement(device, number, best)


def may_use_cuda(device: str) -> bool:
    """Whether a process may turn out to compute with CUDA: known before the driver is asked."""
    return device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists())


def checked_folder(folder: Path) -> Path:
    """The folder, if a Whisper model lies there as faster-whisper takes it. Raises `ProviderError` with what to do."""
    if not folder.is_dir():
        raise ProviderError(f"{folder} is no folder: give the folder of a Whisper model in CTranslate2 form")
    if not (folder / "model.bin").is_file() and any((folder / name).is_file() for name in _UNCONVERTED):
        raise ProviderError(f"{folder} has a model of another form: {_CONVERT}")
    for name in ("model.bin", "config.json", "tokenizer.json"):  # faster-whisper would download a missing tokenizer
        if not (folder / name).is_file():
            raise ProviderError(f"{folder} has no {name}: take the whole folder of a CTranslate2 Whisper model")
    with (folder / "model.bin").open("rb") as file:
        if _SPECIFICATION not in file.read(_HEAD):
            raise ProviderError(f"{folder}/model.bin is no Whisper model of CTranslate2: {_CONVERT}")
    return folder


def check_devices(devices: Devices) -> None:
    """Whether models can be computed with as these settings say, asked in a subprocess: CTranslate2 and CUDA's driver
    would stay in this process. Takes a second; nothing is asked about the defaults, with which nothing can be wrong.

    Raises:
        ProviderError: A device, the type or a library is missing; says what to do.
    """
    if devices.device == "cpu" and not devices.compute_type:
        return
    command = [sys.executable, "-m", __name__, devices.device, devices.compute_type, *map(str, devices.numbers)]
    try:
        done = subprocess.run(
            command, env=sandbox.environment(), cwd=_ROOT, capture_output=True, text=True, timeout=_CHECK_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProviderError(f"WHISPER_DEVICE: CTranslate2 does not say within {_CHECK_S:.0f} s what devices there are; "
                            "see what `nvidia-smi` says, or set WHISPER_DEVICE=cpu") from None  # fmt: skip
    if done.returncode:
        lines = [line for line in (done.stdout or done.stderr).splitlines() if line.strip()]
        raise ProviderError(lines[-1].strip() if lines else f"CTranslate2 ends with exit code {done.returncode}")


def _check(device: str, compute_type: str, *numbers: str) -> None:
    """What the subprocess does. Raises `ProviderError`."""
    try:
        import ctranslate2

        count = ctranslate2.get_cuda_device_count() if device != "cpu" else 0
    except (ImportError, OSError, RuntimeError) as exc:
        raise ProviderError(
            f"WHISPER_DEVICE: CTranslate2 cannot be used: {exc}. Run `make install` (the extra `local`), "
            "and see that the driver fits its CUDA 12 (nvidia-smi)"
        ) from exc
    places = [placed(device, int(n), compute_type, count, ctranslate2.get_supported_compute_types) for n in numbers]
    if any(place.device == "cuda" for place in places) and (library := _CUBLAS.get(sys.platform)):
        try:
            ctypes.CDLL(library)
        except OSError as exc:
            raise ProviderError(
                f"WHISPER_DEVICE: CUDA's cuBLAS does not load ({exc}): install cuBLAS 12, and put its folder into "
                "LD_LIBRARY_PATH; or set WHISPER_DEVICE=cpu"
            ) from exc


if __name__ == "__main__":
    try:
        _check(*sys.argv[1:])
    except ProviderError as problem:
        sys.stdout.write(f"{problem}\n")
        sys.exit(1)
