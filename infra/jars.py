"""The jars of Apache Kafka: pinned by SHA-256, fetched once, checked at every start.

`kafka-jars.sha256` lists them by their path in a Maven repository, in the format of `sha256sum -c`.
Nothing is resolved at run time: the file is the whole classpath. `python -m infra.jars` resolves
the coordinates again and writes the file anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra.kraft import BrokerError

KAFKA_VERSION = "4.3.1"
# slf4j-simple is what makes the broker's log visible: Kafka itself ships without a logger.
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
PINS = Path(__file__).with_name("kafka-jars.sha256")

Progress = Callable[[str], None]


class JarsError(BrokerError):
    """The jars of the broker cannot be had; the message says why and what helps."""


@dataclass(frozen=True, order=True)
class Pin:
    """One jar: its path in a Maven repository, and the SHA-256 that its bytes must have."""

    path: str
    sha256: str

    @property
    def coordinate(self) -> tuple[str, str, str]:
        """Group, artifact and version, as Maven names them."""
        *group, artifact, version, _ = self.path.split("/")
        return ".".join(group), artifact, version


def repository() -> str:
    """Address of the Maven repository: `$REHEARSE_MAVEN` (a mirror of Central), else Central."""
    from jgo.constants import (
        MAVEN_CENTRAL_URL,
    )  # late: only a download needs jgo, which loads slowly

    return (os.environ.get("REHEARSE_MAVEN") or str(MAVEN_CENTRAL_URL)).rstrip("/")


def cache_folder() -> Path:
    """Where jars are kept for all homes: `$REHEARSE_CACHE`, else `rehearse` in the user's cache."""
    if given := os.environ.get("REHEARSE_CACHE"):
        return Path(given).expanduser() / "jars"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rehearse" / "jars"


def pins(file: Path = PINS) -> tuple[Pin, ...]:
    """The pinned jars, in the order of the classpath.

    Raises JarsError that names the file and the line where one is not `SHA256  PATH`.
    """
    found = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        sha256, _, path = line.partition("  ")
        if len(sha256) != 64 or not path.endswith(".jar") or path.count("/") < 3:
            raise JarsError(f"{file}:{number}: expected 'SHA256  PATH.jar', found {line!r}")
        found.append(Pin(path, sha256))
    return tuple(found)


def classpath(folder: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """The jars on this machine, each checked against its pin; what is missing or wrong is fetched.

    Raises JarsError when a jar cannot be fetched, or when what comes has another hash.
    """
    folder, wanted = folder or cache_folder(), pins()
    if _wrong(wanted, folder):
        with _staging(folder) as staging:
            # Whoever held the lock before may have fetched them meanwhile.
            if wrong := _wrong(wanted, folder):
                _fetch(wrong, staging, folder, progress or (lambda _: None))
    return [folder / pin.path for pin in wanted]


def _wrong(wanted: Sequence[Pin], folder: Path) -> list[Pin]:
    return [pin for pin in wanted if _sha256(folder / pin.path) != pin.sha256]


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """The folder for unfinished downloads, empty, for one process at a time.

    What a killed process left there is thrown away; the kernel frees its lock.
    """
    staging = folder / ".unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise JarsError(
            f"cannot write the jars of the broker to {folder}: {error}. "
            "Name a folder that can be written in REHEARSE_CACHE."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _fetch(wanted: Sequence[Pin], staging: Path, folder: Path, say: Progress) -> None:
    """Fetch jars at once over several connections, with a line of progress now and then."""
    say(f"fetching {len(wanted)} jars of Apache Kafka {KAFKA_VERSION} from {repository()}")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(_fetch_one, pin, staging, folder) for pin in wanted]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                if done % 10 == 0 or done == len(jobs):
                    say(f"fetched {done} of {len(jobs)} jars")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(pin: Pin, staging: Path, folder: Path) -> None:
    """Fetch one jar. It appears in `folder` whole and checked, or not at all."""
    for attempt in (1, 2, 3):
        try:
            came = _download(pin, staging / str(attempt))
            break
        except (OSError, RuntimeError) as error:  # the errors of requests are OSErrors
            reason = error
    else:
        raise JarsError(_unreachable(pin, folder, reason)) from reason
    found = _sha256(came)
    if found != pin.sha256:
        raise JarsError(
            f"{repository()}/{pin.path} has SHA-256 {found}, but {PINS.name} says {pin.sha256}. "
            "The file was altered on its way, or the repository is not a mirror of Maven Central."
        )
    target = folder / pin.path
    target.parent.mkdir(parents=True, exist_ok=True)
    came.replace(target)


def _download(pin: Pin, into: Path) -> Path:
    from jgo.maven import MavenContext

    group, artifact, version = pin.coordinate
    context = MavenContext(repo_cache=into, remote_repos={"maven": repository()}, timeout=20)
    return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def _unreachable(pin: Pin, folder: Path, reason: Exception) -> str:
    why = f"{type(reason).__name__}: {reason}"[:300]
    return (
        f"cannot fetch {pin.path} from {repository()} ({why}). "
        "Check the network and HTTPS_PROXY; or name a mirror of Maven Central in REHEARSE_MAVEN; "
        f"or copy the jars from another machine to {folder}; "
        "or use a cluster of your own with --bootstrap-servers."
    )


def _sha256(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve(folder: Path) -> list[Pin]:
    """Resolve COORDINATES with all they depend on, fetch them to `folder`, and give their pins."""
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    context = MavenContext(repo_cache=folder, remote_repos={"maven": repository()}, timeout=20)
    coordinates = [replace(Coordinate.parse(text), scope="compile") for text in COORDINATES]
    roots = [context.create_dependency(coordinate) for coordinate in coordinates]
    inputs, transitive = context.resolver.resolve(roots)
    kept = [*inputs, *(dep for dep in transitive if dep.scope in ("compile", "runtime"))]
    jars = {Path(dep.artifact.resolve()) for dep in kept}
    return sorted(Pin(str(jar.relative_to(folder)), str(_sha256(jar))) for jar in jars)


def main() -> None:
    """Write `kafka-jars.sha256` anew."""
    with tempfile.TemporaryDirectory() as folder:
        found = resolve(Path(folder))
    head = f"# {' '.join(COORDINATES)} with all they depend on; written by: python -m infra.jars\n"
    PINS.write_text(head + "".join(f"{pin.sha256}  {pin.path}\n" for pin in found))
    print(f"{PINS}: {len(found)} jars")


if __name__ == "__main__":
    main()
