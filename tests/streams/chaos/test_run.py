"""What a run itself finds: a loop that does not come back. Real processes, and no broker."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from infra.broker import Broker
from planner.library import SHIPPED
from streams.chaos.facts import Findings
from streams.chaos.faults import Injector
from streams.chaos.run import _play, _stop
from streams.chaos.schedule import Fault, Schedule
from streams.chaos.stage import Stage

NOWHERE = Broker("127.0.0.1:1", Path("nowhere"), 0)
LOOP = ("sink", "worker", "align")


class Broken(Stage):
    """A build whose processes do other than they should."""

    does: tuple[str, ...] = ("no-such-command",)

    def start_loop(self) -> None:
        for name in LOOP:
            self.supervisor.start(name, *self.does)


class Gone(Broken):
    """Everything ends by itself, and says that it is well."""

    does = ("chaos", "--help")


@pytest.fixture
def findings() -> Findings:
    return Findings()


def staged(kind: type[Broken], folder: Path) -> Broken:
    return kind(NOWHERE, folder, "chaos-broken", "wall", 60.0, 1, SHIPPED / "nav2d")


def test_a_loop_that_crashes_for_ever_does_not_recover(tmp_path: Path, findings: Findings) -> None:
    stage = staged(Broken, tmp_path)
    told: list[str] = []
    injector = Injector(stage, Schedule(1, 60.0, "wall", ()))
    _play(stage, injector, findings, told.append)
    assert findings.counts == {"recovery": 1}
    assert "ended with status 2" in findings.told[0].detail
    assert all(process.poll() is not None for process in stage.supervisor.processes)


def test_a_process_that_is_not_there_at_the_end_is_named(
    tmp_path: Path, findings: Findings
) -> None:
    stage = staged(Gone, tmp_path)
    stage.start_loop()
    for process in stage.supervisor.processes:
        process.wait(60.0)
    _stop(stage, findings)
    assert findings.counts == {"recovery": 3}
    assert {told.detail.split()[0] for told in findings.told} == set(LOOP)


def test_a_second_of_one_id_does_not_outlive_its_fault(tmp_path: Path) -> None:
    """Else it would take the place of a worker that is killed later (found by seed 700)."""
    stage = staged(Broken, tmp_path)
    stage.worker_arguments = lambda *_: ["replay", "--help"]  # type: ignore[method-assign]
    fault = Fault("twice", "worker", 0.0, 0.2, "same folder")
    injector = Injector(stage, Schedule(1, 60.0, "wall", (fault,)))
    injector.run(time.monotonic(), lambda: True)
    (guest,) = stage.guests
    assert guest.wait() == -signal.SIGKILL
    assert injector.notes == ["the second of one id had not been refused when it was killed"]
