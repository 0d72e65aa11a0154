"""Spares: they wait when all is imported, begin when told to, and end with whoever needed them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from streams.spare import AFTER_S, Spare
from streams.supervise import Process, Supervisor

PROGRAM = (
    "from streams.spare import stand_ready; {}stand_ready(); import os; print(len(os.environ))"
)


def spare(slow: bool = False) -> Spare:
    def launch(stdin: int, more: dict[str, str]) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", PROGRAM.format("import time; time.sleep(0.5); " * slow)]
        environment = {**os.environ, **more}
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, env=environment)

    return Spare(launch)


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_it_waits_and_then_begins_and_hands_nothing_on() -> None:
    made = spare()
    until(lambda: made.ready)
    assert made.child.poll() is None
    child = made.begin()
    assert child is made.child
    assert int(child.communicate()[0]) == len(os.environ)
    assert child.returncode == 0


def test_one_that_is_needed_before_it_is_ready_does_not_wait() -> None:
    made = spare(slow=True)
    assert not made.ready
    child = made.begin()
    assert child is not None
    assert child.communicate()[0]


def test_one_that_nobody_can_need_any_more_ends() -> None:
    made = spare()
    until(lambda: made.ready)
    made._line.close()  # as the kernel does, when a supervisor is killed
    assert made.child.communicate()[0] == b""
    assert made.child.returncode == 0


def test_one_that_is_no_more_does_not_begin() -> None:
    made = spare()
    until(lambda: made.ready)
    made.child.send_signal(signal.SIGKILL)
    made.child.wait()
    assert made.begin() is None


@pytest.fixture
def worker(tmp_path: Path) -> tuple[Supervisor, Process]:
    """One that ends with status 2 when it has imported all, and is started again all the same."""
    supervisor = Supervisor(tmp_path)
    process = supervisor.start("worker", "worker", str(tmp_path / "no.yaml"), spared=True)
    process.restarts = 1
    return supervisor, process


def test_it_goes_on_where_a_worker_ended(worker: tuple[Supervisor, Process]) -> None:
    supervisor, process = worker
    with supervisor:
        supervisor.check()
        assert process.spare is None, "all have enough to do at the start"
        process.begun -= AFTER_S + 1
        supervisor.check()
        made = process.spare
        assert made is not None
        assert process.wait(60) == 2
        until(lambda: made.ready)
        supervisor.check()
        assert (process.pid, process.spare) == (made.child.pid, None)
        assert process.wait(60) == 2
        assert process.log.read_text().count("no such spec") == 2


def test_it_ends_with_the_supervisor(worker: tuple[Supervisor, Process]) -> None:
    supervisor, process = worker
    with supervisor:
        process.begun -= AFTER_S + 1
        supervisor.check()
        made = process.spare
        assert made is not None
    assert not psutil.pid_exists(made.child.pid)
