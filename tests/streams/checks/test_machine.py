"""The machine's limits, graded."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from streams.checks import machine
from streams.checks.finding import Place


def test_limits_are_graded_from_below() -> None:
    limits = (2.0, 5.0)
    grades = [machine.grade(value, limits) for value in (1.9, 2.0, 4.9, 5.0)]
    assert grades == ["problem", "warning", "warning", "ok"]


def test_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    found = list(machine.disk(Place(tmp_path / "not" / "yet")))
    assert found[0].check == "disk"
    assert str(tmp_path / "not" / "yet") in found[0].what


def test_too_little_is_a_problem_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    huge = (float("inf"), float("inf"))
    checks = {"DISK": machine.disk, "MEMORY": machine.memory}
    for name, check in checks.items():
        monkeypatch.setattr(machine, name, huge)
        found = next(iter(check(Place(tmp_path))))
        assert found.level == "problem"
        assert found.remedy


def test_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    assert machine.container_limit(file) is None
    file.write_text("max\n")
    assert machine.container_limit(file) is None
    file.write_text("100000000\n")
    monkeypatch.setattr(machine, "CGROUP", file)
    (found,) = machine.memory(Place(tmp_path))
    assert found.level == "problem"
    assert "0.1 GB available (this container may have 0.1 GB)" in found.what


def test_cores_and_files_are_those_of_this_process(tmp_path: Path) -> None:
    (cores,) = machine.cores(Place(tmp_path))
    assert int(cores.what.split()[0]) >= 1
    (files,) = machine.open_files(Place(tmp_path))
    assert float(files.what.split()[0]) > 0


def test_the_smallest_step_of_a_clock() -> None:
    steps = itertools.accumulate(itertools.cycle((0, 700, 300, 5_000)))
    assert machine.smallest_step(steps.__next__) == 300
    assert 0 < machine.smallest_step(time.monotonic_ns) < 10**9


def test_a_coarse_clock_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = itertools.count(step=16_000_000)
    monkeypatch.setattr(time, "time_ns", ticks.__next__)
    (found,) = machine.clocks(Place(tmp_path))
    assert found.level == "warning"
    assert "wall clock steps 16000.00 µs" in found.what
