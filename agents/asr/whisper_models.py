"""Which folders hold Whisper models that can be used, and where they compute: on CPUs, or on CUDA devices."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import ProviderError

#: By device, the types in which weights are computed with, the best first. On CPUs int8 is the fastest, without errors
#: more than float32 has on read speech.
PREFERRED: Final = {"cpu": ("int8", "float32"), "cuda": ("float16", "int8_float16", "float32")}

#: How the binary file of a model of CTranslate2 says that it is a Whisper model, within its first bytes.
_SPECIFICATION, _HEAD = b"WhisperSpec", 32

#: Files of models that are not converted yet.
_UNCONVERTED = ("model.safetensors", "pytorch_model.bin", "model.pt")

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
