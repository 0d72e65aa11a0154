"""Kafka Streams as a peer: a small Maven project, built where there is a JDK.

Maven itself is fetched where it is not installed: from Maven Central, or the mirror of it that
`REHEARSE_MAVEN` names, by pinned hash, into the cache of the project's jars.
"""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from infra.jars import cache_folder, repository

HOME: Final = Path(__file__).parent / "kafka-streams"
_MAVEN: Final = "3.9.11"
_SHA512: Final = (
    "bcfe4fe305c962ace56ac7b5fc7a08b87d5abd8b7e89027ab251069faebee516"
    "b0ded8961445d6d91ec1985dfe30f8153268843c89aa392733d1a3ec956c9978"
)
_WAIT_S: Final = 60.0
_BUILD_S: Final = 600.0


def build() -> str | None:
    """Builds the project; why not, where that cannot be done."""
    if not (shutil.which("java") and shutil.which("javac")):
        return "there is no JDK (java and javac)"
    try:
        command = [maven(), "-q", "-B", *_mirror(), "package"]
        done = subprocess.run(
            command, cwd=HOME, capture_output=True, text=True, check=False, timeout=_BUILD_S
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"Maven: {error}"
    return None if done.returncode == 0 else f"mvn package failed:\n{done.stdout[-2_000:]}"


def command() -> tuple[str, ...]:
    """What starts the peer that was built."""
    classpath = os.pathsep.join((str(HOME / "target" / "classes"), f"{HOME}/target/lib/*"))
    return "java", "-Xmx512m", "-cp", classpath, "Peer"


def maven() -> str:
    """The program `mvn`, fetched where it is not installed. Raises `OSError` or `ValueError`."""
    if installed := shutil.which("mvn"):
        return installed
    folder = cache_folder().parent / f"apache-maven-{_MAVEN}"
    program = folder / "bin" / "mvn"
    if not program.is_file():
        name = f"org/apache/maven/apache-maven/{_MAVEN}/apache-maven-{_MAVEN}-bin.tar.gz"
        with urlopen(f"{repository()}/{name}", timeout=_WAIT_S) as answer:
            unpack(answer.read(), _SHA512, folder)
    return str(program)


def unpack(archive: bytes, sha512: str, folder: Path) -> None:
    """Unpacks `folder`, all of it or nothing. Raises `ValueError` where the hash is another one."""
    found = hashlib.sha512(archive).hexdigest()
    if found != sha512:
        raise ValueError(f"{folder.name} has SHA-512 {found}, but {sha512} is pinned")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            # Python has filters since 3.11.4; what is unpacked is the pinned archive either way.
            filtered: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            files.extractall(unfinished, **filtered)
        (unfinished / folder.name).rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _mirror() -> list[str]:
    """Settings that name the mirror, where one is asked for."""
    if "REHEARSE_MAVEN" not in os.environ:
        return []
    settings = HOME / "target" / "settings.xml"
    settings.parent.mkdir(exist_ok=True)
    mirror = f"<id>asked</id><mirrorOf>central</mirrorOf><url>{repository()}</url>"
    settings.write_text(f"<settings><mirrors><mirror>{mirror}</mirror></mirrors></settings>\n")
    return ["-s", str(settings)]
