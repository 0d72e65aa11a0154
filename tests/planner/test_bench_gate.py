"""The benchmark of the gate: every kind of limit is met, and what is outside would be counted."""

from __future__ import annotations

import numpy as np
import pytest

from planner import bench_gate
from planner.gate import Gated, gate


def test_nothing_leaves_the_gate_outside_its_envelope() -> None:
    found = bench_gate.bench_gate(20_001)
    assert found["proposals"] == 21_000  # whole frames
    assert found["outside"] == 0
    assert 0 < found["refused"] < found["changed"] < found["proposals"]
    assert found["proposals_per_s"] == pytest.approx(21_000 / found["seconds"], rel=0.01)


def test_what_is_outside_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **more: object) -> Gated:
        gated = gate(*given, **more)  # type: ignore[arg-type]
        gated.action[:10, 0], gated.mode[:10] = 1.5, 0
        gated.action[10:15], gated.mode[10:15] = np.nan, 0
        return gated

    monkeypatch.setattr(bench_gate, "gate", broken)
    assert bench_gate.bench_gate(1_000)["outside"] == 15
