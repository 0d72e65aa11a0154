"""Tests of the robots in a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.plants.base import Floats, PlantError, Sample, make_plant
from infra.plants.nav2d import Nav2d
from schemas.system import load_spec

SPEC = load_spec("nav2d")


def robots(**options: Any) -> Nav2d:
    plant = make_plant(SPEC, **{"robots": 20, **options})
    assert isinstance(plant, Nav2d)
    return plant


def last(sample: Sample, sensor: str, channel: str) -> Floats:
    """`[E, 2]` the newest readings of one channel."""
    batch = next(batch for batch in sample.batches if batch.sensor == sensor)
    newest: Floats = batch.values[channel].reshape(-1, len(sample.done), 2)[-1]
    return newest


def drive(plant: Nav2d, seed: int, gain: float = 1.0) -> list[Sample]:
    """A proportional-derivative controller for a whole episode."""
    samples = [plant.reset(seed)]
    for _ in range(plant.options.ticks):
        x, v = last(samples[-1], "odometry", "position"), last(samples[-1], "odometry", "velocity")
        goal = last(samples[-1], "mission", "goal")
        samples.append(plant.step(np.clip(gain * (goal - x) - 1.8 * v, -1.0, 1.0)))
    return samples


def test_a_controller_brings_every_robot_home_and_idling_brings_none() -> None:
    plant = robots(ticks=200)
    drive(plant, seed=0)
    assert plant.score()["reached"] == 1.0
    idle = robots(ticks=200, actuation_noise=0.0)
    idle.reset(0)
    for _ in range(200):
        idle.step(np.zeros((20, 2)))
    assert idle.score()["reached"] == 0.0
    assert plant.score()["return"] > idle.score()["return"]


def test_equal_seeds_give_equal_episodes() -> None:
    one, same, other = (drive(robots(ticks=30), seed) for seed in (5, 5, 6))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(
            a.batches[0].values["position"], b.batches[0].values["position"]
        )
    assert (one[0].batches[0].values["position"] != other[0].batches[0].values["position"]).any()


def test_an_action_of_the_wrong_shape_is_refused() -> None:
    plant = robots()
    plant.reset(0)
    with pytest.raises(PlantError, match=r"shape \(20, 3\), the plant needs \(20, 2\)"):
        plant.step(np.zeros((20, 3)))
