"""Tests of the cluster as a plant: readings, billing, common arrivals, scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.plants.base import Floats, PlantError, Sample, make_plant
from infra.plants.cluster import Cluster
from infra.traces import Trace
from schemas.system import load_spec

SPEC = load_spec("autoscale")


def flat(rate: float, ticks: int = 40) -> Trace:
    """A constant rate in bins of 15 s."""
    return Trace(15.0, np.full(ticks, rate))


def cluster(**options: Any) -> Cluster:
    plant = make_plant(SPEC, **{"services": 2, "mean_replicas": None, **options})
    assert isinstance(plant, Cluster)
    return plant


def replicas(*counts: float) -> Floats:
    return np.array(counts, dtype=np.float64)[:, None]


def readings(sample: Sample, sensor: str, channel: str) -> Floats:
    """`[times, E]` of one channel."""
    batch = next(batch for batch in sample.batches if batch.sensor == sensor)
    return batch.values[channel].reshape(-1, 2)


def test_equal_seeds_and_actions_give_equal_samples_and_other_seeds_do_not() -> None:
    runs = []
    for seed in (3, 3, 4):
        plant = cluster(trace=flat(20.0))
        plant.reset(seed)
        runs.append([plant.step(replicas(9 + k % 3, 8)) for k in range(10)])
    for one, same in zip(runs[0], runs[1], strict=True):
        for name in one.outcomes:
            np.testing.assert_array_equal(one.outcomes[name], same.outcomes[name])
    assert any(
        (one.outcomes["requests"] != other.outcomes["requests"]).any()
        for one, other in zip(runs[0], runs[2], strict=True)
    )


def test_every_policy_meets_the_same_arrivals() -> None:
    arrived = []
    for count in (1, 7, 60):
        plant = cluster(trace=flat(20.0))
        plant.reset(1)
        arrived.append([plant.step(replicas(count, count)).outcomes["requests"] for _ in range(20)])
    np.testing.assert_array_equal(arrived[0], arrived[1])
    np.testing.assert_array_equal(arrived[0], arrived[2])
    assert not np.array_equal(np.array(arrived[0])[:, 0], np.array(arrived[0])[:, 1])


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(PlantError, match=r"no option 'replicas'.*mean_replicas"):
        cluster(replicas=3)
