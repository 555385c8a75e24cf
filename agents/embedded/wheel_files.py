"""Files of models that wheels carry, found without running any of the wheel's code, and checked as they are copied."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class WheelFile:
    """A file of a model: its name, its sha256, and the package resources whose concatenation it is."""

    name: str
    sha256: str
    parts: tuple[tuple[str, str], ...]


def missing(files: Iterable[WheelFile]) -> list[str]:
    """The packages of these files that are not installed."""
    packages = {package for file in files for package, _ in file.parts}
    return sorted(package.replace("_", "-") for package in packages if importlib.util.find_spec(package) is None)


def copy(file: WheelFile, target: Path) -> None:
    """Write the file; raise ServerError if it has another checksum, or its package is not installed."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for block in _blocks(file):
            digest.update(block)
            out.write(block)
    if digest.hexdigest() != file.sha256:
        packages = ", ".join(sorted({package.replace("_", "-") for package, _ in file.parts}))
        raise ServerError(
            f"{file.name} of {packages} has sha256 {digest.hexdigest()}, expected {file.sha256}: damaged or "
            "replaced, not used. Reinstall with `make clean install`; if it stays so, the package has changed: use "
            "WHISPER_MODEL_DIR."
        )


def _blocks(file: WheelFile) -> Iterator[bytes]:
    for package, resource in file.parts:
        spec = importlib.util.find_spec(package)  # finds without importing
        if spec is None or spec.origin is None:
            raise ServerError(f"the package {package.replace('_', '-')} is not installed: run `make install`.")
        with (Path(spec.origin).parent / resource).open("rb") as stream:
            while block := stream.read(1 << 20):
                yield block
