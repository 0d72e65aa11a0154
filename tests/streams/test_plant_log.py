"""Latencies, outcomes and the table of ticks say what happened, and nothing else."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from infra.plants.base import Sample
from schemas.codes import Mode, Status
from schemas.messages import Applied, action_id
from streams.actuator_state import Report
from streams.plant_log import Latencies, TickTable, outcomes_of, summary_ms
from tests.streams.specs import small_spec

SPEC = small_spec()
NAMES = ("a", "b")


def report(slot: int, tick: int, arrived_ns: int, mode: int = 0, status: int = 2) -> Report:
    applied = Applied("id", NAMES[slot], tick, {"valve": 0.5, "pumps": 1.0}, status, 0)
    return Report(slot, applied, True, arrived_ns, mode)


def test_percentiles_are_of_what_was_measured() -> None:
    measured = array("q", range(0, 1_001_000_000, 1_000_000))
    found = summary_ms(measured)
    assert found == pytest.approx({"p50": 500, "p99": 990, "p999": 999, "max": 1000, "n": 1001})
    assert summary_ms(array("q")) is None


def test_latency_counts_from_when_the_tick_was_due() -> None:
    latencies = Latencies()
    latencies.closing(7, 1_000)
    latencies.closing(8, 5_000)
    latencies.heard(report(0, 7, 6_000))  # late, after the next tick: counted from its own
    latencies.heard(report(0, 8, 5_500, mode=int(Mode.FALLBACK)))
    latencies.heard(report(1, 8, 0, mode=-1))  # a local fallback has no latency
    latencies.heard(report(1, 6, 9_000))  # a tick from before the start
    assert list(latencies.to_action) == [5_000, 500]
    assert latencies.modes == {"plan": 2, "fallback": 1}


def test_outcomes_leave_out_what_is_not_a_number_and_mark_the_end() -> None:
    columns = {"cost": np.array([1.0, np.nan])}
    sample = Sample(4, (), np.zeros(2), np.array([False, True]), columns)
    ended = np.array([False, True])
    found = outcomes_of(NAMES, sample, np.array([-1.0, 0.5]), ended, 4, 4_000_000)
    assert [(o.entity, o.kind, o.values) for o in found] == [
        ("a", "tick", {"reward": -1.0, "cost": 1.0}),
        ("b", "tick", {"reward": 0.5}),
        ("b", "end", {}),
    ]
    assert {(o.tick, o.time) for o in found} == {(4, 4_000_000)}


def test_the_table_has_a_row_per_entity_and_tick() -> None:
    table = TickTable(SPEC, NAMES)
    table.heard(report(0, 1, 1, mode=int(Mode.ACTOR)))
    table.heard(report(1, 1, 1, mode=-1, status=int(Status.LOCAL_FALLBACK)))
    outcomes = {"requests": np.array([10.0, 20.0])}
    for tick in (1, 2):
        sample = Sample(tick + 1, (), np.zeros(2), np.zeros(2, dtype=bool), outcomes)
        table.add(tick, np.array([[0.5, 1.0], [0.25, 3.0]]), np.array([-1.0, -2.0]), sample)
    made = table.table().to_pydict()
    assert made["entity"] == ["a", "b", "a", "b"]
    assert made["time_s"] == [1.0, 1.0, 2.0, 2.0]
    assert made["pumps"] == [1.0, 3.0, 1.0, 3.0]
    assert made["requests"] == [10.0, 20.0, 10.0, 20.0]
    assert made["mode"] == ["actor", "none", "none", "none"]
    assert made["status"] == ["applied", "local_fallback", "unknown", "unknown"]
    assert made["action_id"][1] == action_id(SPEC.system, "b", 1)
