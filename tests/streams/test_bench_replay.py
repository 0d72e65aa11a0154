"""A pinned replay of 100,000 planned decisions is equal to the last bit."""

from __future__ import annotations

from pathlib import Path

from planner.library import SHIPPED
from streams.bench_replay import bench_replay
from streams.replay import replay


def test_a_hundred_thousand_decisions_come_out_the_same(tmp_path: Path) -> None:
    found = bench_replay(100_000, tmp_path / "r")
    assert found["decisions"] >= 100_000
    assert found["differences"] == 0
    assert found["compared"] == found["frames"]
    assert found["bit_exact"]
    planned = found["modes"].get("follow", 0) + found["modes"].get("plan", 0)
    assert planned, "how much, is up to the machine"
    assert min(found["times_real_time"], found["frames_per_s"]) > 0
    late = replay(tmp_path / "r", bundles=[SHIPPED], from_us=29_000_000, provider="cpu")
    assert (late["differences"], late["lead"]) == (0, 290 - 256 - 1), "from the last key frame"
