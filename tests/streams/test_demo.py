"""The demo's own parts: where its load comes from, its run folder, and when a stream is dry."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from infra.traces import TraceError, generate_trace, read_trace
from schemas.system import load_spec
from streams.backtest_setup import BacktestSetup, prepare
from streams.baselines import split
from streams.demo_report import seconds_text, stolen_note, unplanned_note
from streams.demo_scene import (
    DATA_FILE,
    NAV2D_TICKS,
    DemoOptions,
    choose_trace,
    set_scene,
    write_trace,
)
from streams.demo_stage import QuietTime
from streams.demo_text import print_summary


def table(days: int = 3) -> pl.DataFrame:
    """A load under names that nobody would guess."""
    trace = generate_trace(days=days, seed=5)
    minutes = pl.Series([60 * i for i in range(trace.rates.size)])
    return pl.DataFrame({"when we looked": minutes, "hits / min": trace.rates * 60.0})


@pytest.fixture(autouse=True)
def _without_recorded_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REHEARSE_DATA", raising=False)


def test_without_data_the_load_is_generated_from_the_seed() -> None:
    trace, name = choose_trace(DemoOptions(seed=4))
    assert name == "generated traffic, 14 days, seed 4"
    assert trace.rates.tolist() == generate_trace(days=14, seed=4).rates.tolist()


def test_recorded_data_is_taken_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHEARSE_DATA", str(tmp_path))
    assert choose_trace(DemoOptions())[1].startswith("generated")
    write_trace(generate_trace(seed=9), tmp_path / DATA_FILE)
    trace, name = choose_trace(DemoOptions())
    assert name == DATA_FILE
    assert trace.rates == pytest.approx(generate_trace(seed=9).rates)


def test_a_trace_of_ones_own_comes_before_recorded_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHEARSE_DATA", str(tmp_path))
    write_trace(generate_trace(seed=9), tmp_path / DATA_FILE)
    file = tmp_path / "odd names.csv"
    table().write_csv(file)
    with pytest.raises(TraceError, match="no column with a usual name"):
        choose_trace(DemoOptions(trace=file))
    options = DemoOptions(trace=file, time_column="when we looked", value_column="hits / min")
    trace, name = choose_trace(options)
    assert (name, trace.bin_seconds) == ("odd names.csv", 60.0)
    assert trace.rates == pytest.approx(generate_trace(days=3, seed=5).rates)


def test_a_trace_is_written_as_it_is_read(tmp_path: Path) -> None:
    trace = generate_trace(days=1, seed=2)
    again = read_trace(write_trace(trace, tmp_path / "load.parquet"))
    assert (again.bin_seconds, again.start_us) == (trace.bin_seconds, trace.start_us)
    assert again.rates == pytest.approx(trace.rates)


def test_a_scene_has_a_spec_folder_and_day_of_its_own(tmp_path: Path) -> None:
    options = DemoOptions(seed=1, day=3, plant_options={"services": 4})
    scene = set_scene(options, tmp_path)
    assert scene.spec.system != "autoscale"
    assert scene.spec.system == scene.folder.name
    assert scene.folder.parent == tmp_path / "runs"
    assert scene.spec.sensors["load"].topic.startswith(scene.spec.system)
    assert scene.plant["services"] == 4
    wanted = split(choose_trace(options)[0], 3).scored
    assert read_trace(scene.plant["trace"]).start_us == wanted.start_us
    assert scene.window is not None
    assert all(day.start_us < wanted.start_us for day in scene.window.training)


def test_a_day_that_the_trace_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--day 99: the trace has 14 full days"):
        set_scene(DemoOptions(day=99), tmp_path)


@pytest.mark.parametrize(
    "given",
    [{"trace": Path("load.csv")}, {"day": 1}, {"time_column": "t"}, {"value_column": "v"}],
)
def test_what_is_of_a_load_is_refused_where_there_is_none(
    given: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"--[a-z-]+ is of a load, and nav2d has none"):
        set_scene(DemoOptions(system="nav2d", **given), tmp_path)
    assert not any(tmp_path.iterdir())
    setup = BacktestSetup(load_spec("nav2d"), None, 1, "fallback", 0.5, 0, (), {})
    with pytest.raises(ValueError, match="--day is of a load, and nav2d has none"):
        prepare(setup)


def test_the_columns_of_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--value-column is of a file"):
        set_scene(DemoOptions(value_column="v"), tmp_path)


def test_robots_run_for_half_a_minute_unless_asked_otherwise(tmp_path: Path) -> None:
    assert set_scene(DemoOptions(system="nav2d"), tmp_path).ticks == NAV2D_TICKS
    asked = set_scene(DemoOptions(system="nav2d", ticks=7), tmp_path)
    assert (asked.ticks, asked.window) == (7, None)


def test_a_stream_is_dry_when_its_count_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    quiet = QuietTime(1.0)
    assert not quiet.since(5)
    now[0] += 0.9
    assert not quiet.since(5)
    now[0] += 0.2
    assert quiet.since(5)
    assert not quiet.since(6)
    now[0] += 1.0
    assert quiet.since(6)


def test_a_child_ends_when_its_parent_was_killed() -> None:
    child = (
        "import os, time; from streams.supervise import end_with_parent;"
        "end_with_parent(os.getppid(), lambda: os._exit(0)); print(os.getpid(), flush=True);"
        "time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
        limit = time.monotonic() + 20.0
        while _is_there(number):
            assert time.monotonic() < limit, "the orphan lives on"
            time.sleep(0.05)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_stolen_time_is_told_where_there_was_any() -> None:
    assert "gave 1,234 ms" in stolen_note({"stolen_ms": 1_234})
    assert stolen_note({"stolen_ms": 0}) == stolen_note({"stolen_ms": None}) == ""


def test_it_is_told_loudly_that_the_fallback_decided(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"modes": {"plan": 60, "fallback": 140}, "decisions": 200, "deadline_ms": 20.0}
    assert "fallback decided 70 % of the time" in unplanned_note(told)
    assert "deadline of 20 ms" in unplanned_note(told)
    more = {"system": "s", "ticks": 5, "entities": 40, "seconds": 1.0, "frames": 5, "gate": {}}
    print_summary({**told, **more, "frames_lost": 0})
    assert "fallback decided 70 %" in " ".join(capsys.readouterr().out.split())
    assert unplanned_note({**told, "modes": {"plan": 190, "fallback": 10}}) == ""
    assert unplanned_note({"modes": {}, "decisions": 0}) == ""
    assert unplanned_note({**told, "phases": {}}) == "", "nothing was trained yet"


def test_nobody_arrived_is_no_number() -> None:
    assert (seconds_text(6.211), seconds_text(float("nan")), seconds_text(None)) == (
        "6.21 s",
        "–",
        "–",
    )
