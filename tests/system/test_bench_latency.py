"""The benchmarks of latency and of deciding, for an instant: all that is sent comes back."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from infra.broker import Broker
from streams.bench_decide import bench_decide
from streams.bench_latency import bench_latency
from streams.bench_systems import CASES, Case

pytestmark = [pytest.mark.broker, pytest.mark.system]


def _left(broker: Broker) -> list[str]:
    names = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).topics
    return [name for name in names if name.startswith("bench")]


def test_every_reading_has_its_echo_and_every_tick_its_actions(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "tiny", Case(6, 3, 5, 1))
    both = bench_latency(
        broker.bootstrap, cases=["tiny"], patterns=["burst", "spread"], runs=1, seconds=0.6
    )
    for found in both.values():
        assert (found["missing"], found["echo_missing"]) == (0, 0)
        # Where the generator was late, it runs again.
        assert found["decided_by"] == {"actor": 6 * 3 * len(found["all_loop_ms"])}
        for run in (*found["all_loop_ms"], *found["all_echo_ms"]):
            assert 0 < run["p50"] <= run["p99"] <= run["p999"] <= run["max"]
    assert list(both) == ["tiny burst", "tiny spread"]
    assert _left(broker) == []


def test_two_workers_decide_every_frame_once(broker: Broker) -> None:
    found = bench_decide(broker.bootstrap, decisions=480, entities=10, workers=2, runs=1)
    assert found["decisions"] == 480
    # Nobody has a belief to act on at a first frame.
    assert found["modes"] == {"actor": 480 - 40, "fallback": 40}
    assert min(found["decisions_per_s"], found["step_per_s"], found["raw_per_s"]) > 0
    assert found["cpu_s_per_million"] > 0
    assert _left(broker) == []
