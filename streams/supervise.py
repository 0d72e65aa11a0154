"""Several processes of ours as one: started, watched, restarted, stopped, none left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.settings import as_environment
from streams.spare import AFTER_S, Spare

STOP_SECONDS = 15.0  # after which a process that does not heed SIGTERM is killed
CRASHES = 5  # of one process in a row, after which the whole run is given up
STEADY_S = 300.0  # a process that ran for so long begins a new row
PARENT = "REHEARSE_PARENT"  # environment: the process id without which a child must not live on
WATCH_S = 1.0
STATUS_AWAY = 69  # EX_UNAVAILABLE of sysexits.h: no broker answers
STATUS_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: what happened may not happen again


class TryAgain(RuntimeError):
    """Ends a process with status 75: nothing is lost or misconfigured, start it again."""


class ProcessFailed(RuntimeError):
    """A process ended badly; the message names it and holds the end of its log."""


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of our child processes: one thread each, whose children they are, and Kafka's settings.

    Settings may hold passwords, and everybody on a machine can read a command line.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    given = {} if settings is None else as_environment(settings)
    return {**os.environ, **threads, PARENT: str(os.getpid()), **given}


def end_with_parent(parent: int, end: Callable[[], object]) -> None:
    """Call `end`, in a thread, once process `parent` is no longer ours: it may have been killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        end()

    threading.Thread(target=watch, name="parent", daemon=True).start()


@dataclass
class Process:
    """One of our commands as a child process: its log in a file, its summary on standard output.

    spared: a second process stands ready to go on where this one crashes (`streams.spare`).
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)  # of Kafka's clients
    spared: bool = False
    restarts: int = 0
    crashes: int = 0
    begun: float = 0.0
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    spare: Spare | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Where its standard error goes."""
        return self.folder / f"{self.name}.log"

    @property
    def output(self) -> Path:
        """Where its standard output goes: one JSON object when it is done."""
        return self.folder / f"{self.name}.json"

    def start(self) -> None:
        """Start it, or have its spare begin."""
        self.begun = time.monotonic()
        spare, self.spare = self.spare, None
        self.child = spare.begin() if spare else None
        self.child = self.child or self._launch(subprocess.DEVNULL, {})

    def keep_spare(self) -> None:
        """Starts its spare once it has run for a while; one that ends by itself stays away."""
        steady = time.monotonic() - self.begun > AFTER_S
        if self.spared and self.spare is None and steady and self.poll() is None:
            self.spare = Spare(self._launch)

    def _launch(self, stdin: int, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start it in a group of its own, so that Ctrl-C reaches it only through us.

        Not in a session: Linux shares the processors among sessions first (autogroup), and a lower
        priority (`infra.priority`) would count for nothing against the others of the loop.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "streams.cli", *self.arguments, "--json"]
        with self.log.open("ab") as log, self.output.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=log,
                process_group=0,
                env={**environment(self.settings), **more},
            )

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        if self.child is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self.child.pid

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return None if self.child is None else self.child.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM: finish what is begun, commit, and go. Its spare ends at once."""
        if self.spare is not None:
            self.spare.close()
            self.spare = None
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; kill it when `seconds` have passed. Returns the exit status."""
        if self.child is None:
            return 0
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            return self.child.wait()

    def summary(self) -> dict[str, Any]:
        """The JSON object that it printed; empty when it printed none."""
        try:
            text = self.output.read_text().strip()
        except OSError:
            return {}
        if not text:
            return {}
        content: dict[str, Any] = json.loads(text.splitlines()[-1])
        return content

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


class Supervisor:
    """Starts processes in order, restarts those that crash, stops all in reverse order."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder, self.settings = folder, dict(settings or {})
        self.processes: list[Process] = []

    def start(self, name: str, *arguments: str, spared: bool = False) -> Process:
        """Start `rehearse ARGUMENTS` under `name`, with no more rights than its role needs.

        spared: with a spare, where the command knows how to be one.
        """
        from infra.secure import as_role  # not in every process that knows this module
        from schemas.roles import role_of

        settings = as_role(self.settings, role_of(arguments))
        process = Process(name, arguments, self.folder, settings, spared)
        self.processes.append(process)  # before it starts: stopped even when we are interrupted
        process.start()
        return process

    def check(self) -> None:
        """Restart what crashed. Raises `ProcessFailed` once something crashed too often.

        One that no broker answered is started again without end.
        """
        for process in self.processes:
            status = process.poll()
            if status in (None, 0):
                process.keep_spare()
                continue
            process.restarts += 1
            steady = time.monotonic() - process.begun > STEADY_S
            process.crashes = 0 if steady else process.crashes
            process.crashes += status != STATUS_AWAY
            # Status 2 is for people to mend, but what a new broker lacks looks like that as well.
            if process.crashes > CRASHES or (status == 2 and process.restarts == 1):
                raise ProcessFailed(
                    f"{process.name} ended with status {status}; the end of {process.log}:\n"
                    f"{process.tail()}"
                )
            process.start()

    def stop(self, *names: str) -> None:
        """Stop the named processes, all of them without names; last started first."""
        chosen = [p for p in reversed(self.processes) if not names or p.name in names]
        for process in chosen:
            process.ask_to_stop()
        limit = time.monotonic() + STOP_SECONDS
        for process in chosen:
            process.wait(max(0.1, limit - time.monotonic()))

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
