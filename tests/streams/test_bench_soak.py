"""What a soak says of its samples."""

from __future__ import annotations

import pytest

from streams.bench_soak import GROWTH_MB_PER_H, Sample, bench_soak, summary


def _samples(mb_per_h: float, stuck_at: int = 99) -> list[Sample]:
    """An hour by minutes; the first third grows by itself, and counts for nothing."""
    return [
        Sample(
            60.0 * i,
            {"worker": 100.0 + 5.0 * min(i, 20) + mb_per_h * i / 60.0, "sink": 80.0},
            600 * (i + 1),
            600 * (min(i, stuck_at) + 1) - 3,
        )
        for i in range(61)
    ]


def test_flat_memory_and_commits_hold() -> None:
    found = summary(_samples(0.0))
    assert (found["held"], found["stalls"], found["most_behind"]) == (True, 0, 3)
    assert found["memory"]["worker"] == {
        "mb_first": 200.0,
        "mb_last": 200.0,
        "mb_most": 200.0,
        "mb_per_h": pytest.approx(0.0, abs=0.1),
    }
    assert (found["minutes"], found["ticks"], found["frames"]) == (60.0, 36_000, 36_600)


def test_a_process_that_grows_does_not_hold() -> None:
    found = summary(_samples(GROWTH_MB_PER_H + 1.0))
    assert not found["held"]
    assert found["memory"]["worker"]["mb_per_h"] == pytest.approx(GROWTH_MB_PER_H + 1.0, abs=0.1)
    assert summary(_samples(GROWTH_MB_PER_H - 1.0))["held"]


def test_commits_that_stop_do_not_hold() -> None:
    found = summary(_samples(0.0, stuck_at=57))
    assert (found["held"], found["stalls"], found["most_behind"]) == (False, 3, 1_803)


def test_a_soak_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        bench_soak("nowhere:1", minutes=0.0)
