"""The arithmetic of the benchmarks: schedules, percentiles, and which runs count."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from planner.session import load_bundle
from schemas.topics import cohort_of
from streams.bench_decide import _frames
from streams.bench_latency import _in_turn, _Run, bench_latency, percentiles, summary
from streams.bench_load import Order, due_us, offsets, pulses, readings_of
from streams.bench_systems import CASES, Case, make_system

SMALL = Case(50, 5, 10, 1)


def _run(samples: list[float], late_ms: float = 0.1, missing: int = 0) -> _Run:
    return _Run(samples, late_ms, missing, {"actor": len(samples)})


def test_a_burst_is_sent_a_hundred_readings_each_millisecond() -> None:
    found = offsets(SMALL, "burst")
    assert found.tolist() == [0] * 100 + [1_000] * 100 + [2_000] * 50


def test_spread_readings_lie_in_the_period_before_their_tick() -> None:
    found = offsets(SMALL, "spread")
    assert (found[0], found[-1]) == (-99_000, 0)
    counts = np.unique(found, return_counts=True)[1]
    assert len(counts) == 100
    assert set(counts.tolist()) == {2, 3}


def test_a_tick_is_due_with_the_last_of_its_readings() -> None:
    assert due_us(SMALL, "burst") == 2_000
    assert due_us(SMALL, "spread") == 0


def test_payloads_say_the_time_of_the_tick_or_of_their_own_sending(tmp_path: Path) -> None:
    spec, _, _ = make_system(SMALL, "x", tmp_path)
    readings = readings_of(SMALL, spec, {name: f"t.{name}" for name in spec.sensors})
    assert len(readings) == 250
    assert {r.partition for r in readings} == {cohort_of("device-00000", 1)}
    order = Order(readings, offsets(SMALL, "burst"), 7_000_000, 100_000, 2, "send")
    plan = pulses(order)
    assert [due for due, _, _ in plan] == sorted(due for due, _, _ in plan)
    assert sum(len(messages) for _, _, messages in plan) == 500
    for due, topic, messages in plan:
        assert all(m["value"].startswith(b'{"ts":%d,"' % due) for m in messages)
        assert topic.startswith("t.")
    ticks = {m["value"][:13] for _, _, ms in pulses(order._replace(stamp="tick")) for m in ms}
    assert ticks == {b'{"ts":7000000', b'{"ts":7100000'}


def test_percentiles_are_those_of_all_samples() -> None:
    found = percentiles([float(i) for i in range(1001)])
    assert found == {"p50": 500.0, "p90": 900.0, "p99": 990.0, "p999": 999.0, "max": 1000.0}
    assert percentiles([]) == {}


def test_a_run_with_a_late_generator_does_not_count() -> None:
    loops = [_run([4.0]), _run([400.0], late_ms=1.1), _run([6.0]), _run([800.0])]
    echoes = [_run([1.0]), _run([1.0]), _run([3.0]), _run([1.0], late_ms=9.0)]
    found = summary(SMALL, "burst", loops, echoes)
    assert (found["runs"], found["counted"], found["echo_counted"]) == (4, 3, 3)
    assert (found["loop_ms"]["p50"], found["echo_ms"]["p50"]) == (6.0, 1.0)
    assert found["ratio"]["p50"] == 6.0
    assert [run["p50"] for run in found["all_loop_ms"]] == [4.0, 400.0, 6.0, 800.0]
    assert found["decided_by"] == {"actor": 4}


class _Side:
    """Both sides of a bench, whose generator is late in the first run of each and in all echoes
    but the fifth."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def loop(self, pattern: str) -> _Run:
        self.made.append("loop")
        return _run([1.0], late_ms=2.0 if len(self.made) == 1 else 0.1)

    def floor(self, pattern: str) -> _Run:
        self.made.append("echo")
        return _run([1.0], late_ms=0.1 if len(self.made) == 10 else 2.0)


def test_runs_go_on_in_turn_until_enough_of_each_side_count() -> None:
    side = _Side()
    loops, echoes = _in_turn(cast(Any, side), "burst", 2)
    assert side.made == ["loop", "echo"] * 16, "eight times as many at most"
    side = _Side()
    loops, echoes = _in_turn(cast(Any, side), "burst", 1)
    assert [run.counts for run in loops] == [False, True, True, True, True]
    assert [run.counts for run in echoes] == [False, False, False, False, True]


def test_without_a_run_that_counts_nothing_is_quoted() -> None:
    found = summary(SMALL, "burst", [_run([1.0], late_ms=2.0)], [_run([1.0])])
    assert (found["counted"], found["loop_ms"], found["ratio"]) == (0, {}, {})


def test_an_unknown_case_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="200x5x10"):
        bench_latency("nowhere:1", cases=["3x3"])


@pytest.mark.parametrize("name", CASES)
def test_cases_have_specs_and_bundles_that_fit(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    spec, file, folder = make_system(case, "x", tmp_path)
    assert len(spec.sensors) == case.sensors
    assert spec.period_us * case.hz == 1_000_000
    assert file.read_text().startswith("\nsystem: x")
    bundle = load_bundle(folder, "cpu")
    bundle.check(spec)
    assert bundle.trusted_actor(spec)


def test_a_state_is_not_dealt_out_to_two_sensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 sensors"):
        make_system(Case(4, 2, 10, 1), "x", tmp_path)


def test_rounds_of_frames_follow_one_another_and_hold_every_entity(tmp_path: Path) -> None:
    spec, _, _ = make_system(Case(40, 1, 10, 4), "x", tmp_path)
    first, second = _frames(spec, 40, ticks=3, runs=2)
    assert first.decisions == second.decisions == 120
    assert {cohort for cohort, _ in first.frames} == {0, 1, 2, 3}
