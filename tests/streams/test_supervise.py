"""The supervisor: real child processes, restarted when they crash, gone when it is done."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from streams.supervise import CRASHES, STATUS_AWAY, STEADY_S, ProcessFailed, Supervisor


def wait_for(process: psutil.Process | int, seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    pid = process if isinstance(process, int) else process.pid
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit, f"process {pid} is still there"
        time.sleep(0.02)


def test_a_summary_is_what_the_process_printed(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start("topics", "bundle", "list")
        assert process.wait(60) == 0
        assert isinstance(process.summary(), dict)


def test_settings_reach_a_child_unseen(tmp_path: Path) -> None:
    with Supervisor(tmp_path, {"sasl.password": "hush", "no.such.setting": "1"}) as supervisor:
        process = supervisor.start("sink", "sink", "nav2d", "--bootstrap-servers", "127.0.0.1:9")
        assert not any("hush" in word for word in psutil.Process(process.pid).cmdline())
        assert process.wait(60) == 2
    assert "no.such.setting" in process.tail()
    assert "hush" not in process.log.read_text() + repr(process)


def test_a_process_that_refuses_its_arguments_is_an_error_with_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start("sink", "sink", str(tmp_path / "no.yaml"))
        assert process.wait(60) == 2
        with pytest.raises(ProcessFailed, match="no such spec"):
            supervisor.check()


def test_what_failed_in_its_second_life_is_tried_again(tmp_path: Path) -> None:
    # It had worked: so the broker is away, rather than an argument wrong.
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start("sink", "sink", str(tmp_path / "no.yaml"))
        process.restarts = 1
        assert process.wait(60) == 2
        supervisor.check()
        assert process.poll() is None
        assert process.restarts == 2


def test_what_was_killed_is_started_again_and_stopped_at_the_end(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start("broker", "broker", "status", "--help")
        process.wait(60)
        sleeper = supervisor.start("plant", "plant", "nav2d", "--bootstrap-servers", "127.0.0.1:9")
        first = sleeper.pid
        os.kill(first, signal.SIGKILL)
        wait_for(first)
        supervisor.check()
        assert sleeper.restarts == 1
        second = sleeper.pid
        assert second != first
    wait_for(second)


def test_only_crashes_in_a_row_end_a_run(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start("plant", "plant", "nav2d", "--bootstrap-servers", "127.0.0.1:9")
        for ran_for, crashes in ((STEADY_S + 1, 1), (0, 2)):
            process.crashes, process.begun = CRASHES if crashes == 1 else 1, process.begun - ran_for
            os.kill(process.pid, signal.SIGKILL)
            wait_for(process.pid)
            supervisor.check()
            assert process.crashes == crashes
        process.crashes = CRASHES
        os.kill(process.pid, signal.SIGKILL)
        wait_for(process.pid)
        with pytest.raises(ProcessFailed, match="ended with status -9"):
            supervisor.check()


def test_a_broker_that_is_away_ends_no_run(tmp_path: Path) -> None:
    """Each life of a process ends with a status of its own; it is started again and again."""
    with Supervisor(tmp_path) as supervisor:
        where = ("--bootstrap-servers", "127.0.0.1:9")
        process = supervisor.start("plant", "plant", "nav2d", *where)
        process.crashes = CRASHES
        assert process.child is not None
        assert process.child.wait(60) == STATUS_AWAY
        supervisor.check()
        assert (process.restarts, process.crashes) == (1, CRASHES)
        assert process.poll() is None
