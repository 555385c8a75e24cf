"""Servers that are written in Go, built once into the shared cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from agents.embedded.process import DEFAULT_CACHE


def go_built(module: str, version: str) -> Path:
    """The executable, built if it does not exist.

    Raises:
        FileNotFoundError: it does not exist, and Go is not installed.
    """
    name = module.rpartition("/")[2]
    cache = Path(os.environ.get("CONCORD_CACHE", DEFAULT_CACHE)).expanduser() / "bin"
    built = cache / f"{name}-{version}"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        raise FileNotFoundError(f"{name} needs Go once, to be built: install it, or put the executable at {built}")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test sessions side by side build it once
        if not built.exists():
            _build(go, f"{module}@{version}", built)
    return built


def _build(go: str, what: str, target: Path) -> None:
    folder = target.with_suffix(".building")
    command = ["nice", "-n", "10", go, "install", "-ldflags=-s -w", what]
    # Without SSL_CERT_FILE, which tests set: Go downloads modules, and checks who sends them.
    env = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"} | {"GOBIN": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FileNotFoundError(f"it could not be built (go install {what}): {done.stderr[-2000:]}")
    next(folder.iterdir()).rename(target)
    folder.rmdir()
