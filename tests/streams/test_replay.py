"""Pinned replay is equal to the last bit, finds every change, and says where it is."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from planner.budget import FreeBudget
from planner.session import Bundle
from schemas.codes import Mode, Reason
from schemas.frames import Frame
from schemas.system import parse_spec
from schemas.trajectories import Decisions
from streams.belief import Row
from streams.recording import Recording, RecordingError
from streams.replay import ReplayError, replay
from streams.twin import without_plans
from tests.planner.worlds import edited
from tests.streams.runs import RUN_SPEC, SMALL, decide_all, run_bundle, run_frames, write_recording
from tests.support import shipped_text

TICKS = range(100)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return run_bundle(tmp_path_factory.mktemp("bundles") / "b")


@pytest.fixture(scope="module")
def recording(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cohorts, 100 ticks, planned with what a busy machine had time for."""
    logged = [item for cohort in (0, 1) for item in decide_all(bundle, run_frames(cohort, TICKS))]
    return write_recording(tmp_path_factory.mktemp("recording"), logged)


@pytest.fixture(scope="module")
def short(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cohort, 20 ticks."""
    logged = decide_all(bundle, run_frames(0, range(20)))
    return write_recording(tmp_path_factory.mktemp("short"), logged)


def us(tick: int) -> int:
    return RUN_SPEC.epoch_us + tick * RUN_SPEC.period_us


def test_a_pinned_replay_is_equal_to_the_last_bit(recording: Path, bundle: Bundle) -> None:
    result = replay(recording, bundles=[bundle.path.parent])
    assert (result["frames"], result["decisions"]) == (200, 600)
    assert (result["compared"], result["differences"]) == (200, 0)
    assert result["bundles"] == [bundle.digest]
    assert result["modes"]["plan"] > 0
    assert result["modes"]["follow"] > 0, "the budget did not reach everybody"


def test_it_starts_in_the_middle_from_a_key_frame(recording: Path, bundle: Bundle) -> None:
    result = replay(recording, bundles=[bundle.path.parent], from_us=us(70), to_us=us(90))
    assert (result["frames"], result["differences"]) == (2 * 21, 0)


def test_a_recording_that_begins_in_the_middle_starts_behind_its_key_frame(
    bundle: Bundle, tmp_path: Path
) -> None:
    logged = decide_all(bundle, run_frames(0, TICKS))
    cut = [item for item in logged if item[0].tick >= 50]
    result = replay(write_recording(tmp_path, cut), bundles=[bundle.path])
    assert (result["lead"], result["frames"]) == (15, 100 - 65)
    assert result["differences"] == 0


def test_every_change_is_found_and_named(bundle: Bundle, tmp_path: Path) -> None:
    logged = decide_all(bundle, run_frames(0, range(30)))
    frame, decisions, row = logged[20]
    action = decisions.action.copy()
    action[1, 0] += 1e-12
    mode = decisions.mode.copy()
    mode[2] = Mode.OVERRIDE
    logged[20] = (frame, replace(decisions, action=action, mode=mode), row)
    folder = write_recording(tmp_path / "r", logged)
    result = replay(folder, bundles=[bundle.path], report=tmp_path / "report.html")
    assert result["columns"] == {"action:acceleration[0]": 1, "mode": 1}
    assert (result["changed"], result["compared"]) == (1, 30)
    places = [(d["tick"], d["entity"], d["column"]) for d in result["first"]]
    assert places == [(20, "r01", "action:acceleration[0]"), (20, "r02", "mode")]
    assert result["first"][0]["recorded"] == action[1, 0] != result["first"][0]["replayed"]
    page = (tmp_path / "report.html").read_text()
    assert "action:acceleration[0]" in page
    assert "r02" in page
    tolerant = replay(folder, bundles=[bundle.path], tolerance=1e-9)
    assert tolerant["columns"] == {"mode": 1}, "codes have no tolerance"
    assert replay(folder, bundles=[bundle.path], entity="r00")["differences"] == 0


def test_after_a_difference_it_goes_on_from_the_next_key_frame(
    bundle: Bundle, tmp_path: Path
) -> None:
    frames = run_frames(0, range(70), blind=True)
    logged = decide_all(bundle, frames[:50])
    shaken = replace(logged[-1][2], hidden=logged[-1][2].hidden + np.float32(0.25))
    logged += decide_all(bundle, frames[50:], shaken)  # a state that no replay can know
    result = replay(write_recording(tmp_path, logged), bundles=[bundle.path])
    assert result["columns"]["belief"] == 64 - 50 + 1
    assert (result["frames"], result["changed"]) == (70, 64 - 50 + 1)
    assert min(d["tick"] for d in result["first"]) == 50


def test_without_the_bundle_it_says_which_one(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"bundle [0-9a-f]{64}.*--bundles"):
        replay(recording, bundles=[tmp_path])


def test_re_inference_shows_what_more_time_would_have_changed(short: Path, bundle: Bundle) -> None:
    result = replay(short, "reinfer", bundles=[bundle.path])
    assert result["frames"] == 20
    assert result["differences"] > 0
    assert result["modes"]["plan"] > replay(short, bundles=[bundle.path])["modes"]["plan"]
    fallback = replay(short, "reinfer", bundles=[])
    assert fallback["modes"] == {"fallback": 60}


def test_re_inference_with_another_objective_and_the_refusal_of_another_interface(
    short: Path, bundle: Bundle
) -> None:
    eager = parse_spec(shipped_text("nav2d", **SMALL, reward=f"10 * ({RUN_SPEC.reward_text})"))
    assert eager.objective_hash != RUN_SPEC.objective_hash
    before = replay(short, "reinfer", bundles=[bundle.path])["largest"]
    result = replay(short, "reinfer", bundles=[bundle.path], spec=eager)
    assert result["largest"]["return:mean"] > 3 * before["return:mean"]
    slower = edited("nav2d", ("tick: 100 ms", "tick: 200 ms"))
    with pytest.raises(ReplayError, match="interface"):
        replay(short, "reinfer", bundles=[bundle.path], spec=slower)
    with pytest.raises(ReplayError, match="reinfer"):
        replay(short, bundle=bundle.path)


def test_references_are_written_and_compared_with(
    short: Path, bundle: Bundle, tmp_path: Path
) -> None:
    refs, found = tmp_path / "refs.parquet", [bundle.path]
    written = replay(short, "reinfer", bundles=found, diff=refs, update_refs=True)
    assert (written["differences"], pl.read_parquet(refs).height) == (0, 20)
    assert replay(short, "reinfer", bundles=found, diff=refs)["differences"] == 0
    assert replay(short, "pinned", bundles=found, diff=refs)["differences"] > 0
    with pytest.raises(ReplayError, match="--update-refs"):
        replay(short, bundles=found, diff=tmp_path / "none.parquet")
    with pytest.raises(ReplayError, match="references"):
        replay(short, bundles=found, update_refs=True)


def test_the_last_attempt_is_what_the_next_tick_began_from(bundle: Bundle, tmp_path: Path) -> None:
    frames = run_frames(0, range(40))
    first = decide_all(bundle, frames[:25])
    row: Row = first[19][2]  # a restarted worker does ticks 20 … again, with other budgets
    second = decide_all(bundle, frames[20:], row, lambda tick: FreeBudget(), attempt=1)
    shadow = decide_all(None, frames, None, shadow=True)
    folder = write_recording(tmp_path, [*first, *second, *shadow], frames=frames)
    result = replay(folder, bundles=[bundle.path])
    assert (result["frames"], result["differences"]) == (40, 0)


def test_a_twin_that_took_over_is_repeated_from_the_first_workers_rows(
    bundle: Bundle, tmp_path: Path
) -> None:
    """It had no plans when it did, whatever it held back before."""
    frames = run_frames(0, range(40))
    first = decide_all(bundle, frames[:25])
    held: list[tuple[Frame, Decisions, Row]] = []
    row: Row | None = None
    for frame in frames[:25]:
        bare = without_plans(row, RUN_SPEC)
        (kept,) = decide_all(bundle, [frame], bare, twin=True, held=True, fresh=True)
        held, row = [*held, kept], kept[2]
    fresh = decide_all(bundle, frames[25:26], without_plans(row, RUN_SPEC), twin=True, fresh=True)
    alone = decide_all(bundle, frames[26:], fresh[0][2], twin=True)
    folder = write_recording(tmp_path, [*first, *held, *fresh, *alone], frames=frames)
    result = replay(folder, bundles=[bundle.path])
    assert (result["frames"], result["differences"]) == (40, 0)
    assert result["modes"].get("plan", 0) > 0


def test_a_twin_that_took_over_is_repeated_with_its_own_latch(
    bundle: Bundle, tmp_path: Path
) -> None:
    spec = parse_spec(shipped_text("nav2d", **SMALL, gate={"latch": {"count": 1}}))
    frames = [
        replace(frame, header=replace(frame.header, spec_hash=spec.spec_hash))
        for frame in run_frames(0, range(12))
    ]
    first = decide_all(bundle, frames[:6], spec=spec)
    shut = {frames[0].entities[1]: [0, 4, 4, 0]}  # it was latched where the first worker was not
    row = without_plans(first[-1][2], spec, shut)
    fresh = decide_all(bundle, frames[6:7], row, spec=spec, twin=True, fresh=True)
    alone = decide_all(bundle, frames[7:], fresh[0][2], spec=spec, twin=True)
    assert (fresh[0][1].reasons & Reason.LATCHED != 0).tolist() == [False, True, False]
    folder = write_recording(tmp_path, [*first, *fresh, *alone], spec, frames=frames)
    result = replay(folder, bundles=[bundle.path])
    assert (result["frames"], result["differences"]) == (12, 0)


def test_frames_twice_undecided_and_late_ones(bundle: Bundle, tmp_path: Path) -> None:
    frames = run_frames(0, range(30))
    logged = decide_all(
        bundle, frames[:25], budget=lambda tick: None if tick == 7 else FreeBudget(1)
    )
    folder = write_recording(tmp_path, logged, frames=[*frames, *frames[10:12]])
    result = replay(folder, bundles=[bundle.path])
    assert (result["frames"], result["differences"]) == (25, 0)
    assert (result["undecided"], result["repeated"]) == (5, 2)
    again = replay(folder, "reinfer", bundles=[bundle.path])
    assert (again["frames"], again["uncompared"]) == (30, 5)


def test_pace_pause_loop_and_stop(short: Path, bundle: Bundle) -> None:
    stop, waits, shown = threading.Event(), [], []

    def progress(done: int, total: int) -> None:
        shown.append(done)
        if len(shown) > total + 5:
            stop.set()

    result = replay(
        short, bundles=[bundle.path], rate=1e6, start_paused=True, loop=True,
        stop=stop, wait=lambda: waits.append(len(shown)), on_progress=progress,
    )  # fmt: skip
    assert waits == [0]
    assert shown[20:23] == [1, 2, 3], "it began again"
    assert result["frames"] == len(shown) - 20


def test_a_changed_or_missing_file_is_noticed(bundle: Bundle, tmp_path: Path) -> None:
    folder = write_recording(tmp_path, decide_all(bundle, run_frames(0, range(3))))
    chunk = folder / "trajectories-00000.parquet"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-9] + b"x" + data[-8:])
    with pytest.raises(RecordingError, match="was changed"):
        replay(folder)
    chunk.unlink()
    with pytest.raises(RecordingError, match="is missing"):
        replay(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(RecordingError, match="cut off"):
        Recording.open(folder)
    with pytest.raises(RecordingError, match="rehearse record"):
        Recording.open(tmp_path / "nothing")
