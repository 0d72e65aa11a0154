"""The soak for some seconds: the whole loop runs, is measured, and goes without a trace."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from infra.broker import Broker
from streams.bench_soak import bench_soak

pytestmark = [pytest.mark.broker, pytest.mark.system]
PROCESSES = ("sink", "worker", "twin", "align", "plant")


def test_a_soak_sees_frames_commits_and_the_memory_of_all_processes(broker: Broker) -> None:
    told: list[str] = []
    found = bench_soak(broker.bootstrap, minutes=0.1, every_s=0.5, say=told.append)
    assert found["restarts"] == dict.fromkeys(PROCESSES, 0)
    assert set(found["memory"]) == set(PROCESSES)
    samples = found["samples"]
    assert found["columns"] == ["s", *(f"{name}_mb" for name in PROCESSES), "frames_behind"]
    assert len(samples) == len(told) >= 3
    times, behind = [row[0] for row in samples], [row[-1] for row in samples]
    assert times == sorted(set(times))
    assert times[-1] <= 60 * found["minutes"] + 0.1
    # Ten frames a second and cohort, of which the worker's group commits the first ones by then.
    assert found["frames"] > 20
    assert min(behind) >= 0
    assert behind[-1] < found["frames"]
    assert found["most_behind"] == max(behind)
    assert all(20 < mb < 1_000 for row in samples for mb in row[1:-1]), "of Python processes"
    names = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).topics
    assert [name for name in names if name.startswith("soak")] == []
