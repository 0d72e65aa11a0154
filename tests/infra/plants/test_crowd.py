"""Robots in each other's way: the forces, what is seen of others, and nav2d with both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streams
from infra.plants.base import PlantError, make_plant
from infra.plants.crowd import neighbours, pushes
from infra.plants.nav2d import Nav2d
from schemas.system import load_spec

SPEC = load_spec(Path(streams.__file__).parent / "examples" / "crowd.yaml")


def robots(**options: float) -> Nav2d:
    plant = make_plant(SPEC, **{"robots": 6, "arena": 1.0, "nearest": 0.5, **options})
    assert isinstance(plant, Nav2d)
    return plant


def test_two_push_each_other_straight_away() -> None:
    found = pushes(np.array([[0.0, 0.0], [3.0, 4.0]]), 2.0, 5.0)
    np.testing.assert_allclose(found[1], 2.0 * np.exp(-1.0) * np.array([0.6, 0.8]))
    np.testing.assert_allclose(found[0], -found[1])
    assert not pushes(np.zeros((2, 2)), 2.0, 1.0).any()
    assert not pushes(np.ones((1, 2)), 2.0, 1.0).any()


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=40)
def test_others_are_seen_from_here_and_nearest_first(seed: int, count: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    position, velocity = rng.normal(0, 2, (count, 2)), rng.normal(0, 1, (count, 2))
    seen = neighbours(position, velocity, 3.0, most)
    assert seen.shape == (count, most, 4)
    for i, rows in enumerate(seen):
        there = rows[~np.isnan(rows[:, 0])]
        distance = np.hypot(there[:, 0], there[:, 1])
        assert (np.diff(distance) >= 0).all()
        truth = np.hypot(*(position - position[i]).T)
        within = (truth <= 3.0).sum() - 1
        assert len(there) == min(within, most)
        for row in there:
            j = np.argmin(np.abs(position - position[i] - row[:2]).sum(1))
            np.testing.assert_allclose(velocity[j] - velocity[i], row[2:])


def test_robots_are_pushed_apart_only_where_asked() -> None:
    still = np.zeros((6, 2))
    apart = {}
    for push in (0.0, 2.0):
        plant = robots(push=push, actuation_noise=0.0, reach=0.0)
        plant.reset(3)
        for _ in range(20):
            sample = plant.step(still)
        apart[push] = np.ptp(plant.state[:, :2], axis=0).min()
        (batch,) = [b for b in sample.batches if b.sensor == "others"]
        wanted = pushes(plant.state[:, :2], push, 1.0)
        np.testing.assert_allclose(batch.values["push"], wanted)
        assert batch.crowd is not None
        taken = batch.take(np.array([2]))
        assert taken.crowd is not None
        np.testing.assert_array_equal(taken.crowd[0], batch.crowd[2])
    assert apart[2.0] > apart[0.0] + 1.0


def test_what_is_seen_survives_faults_of_the_sensor() -> None:
    faults = {"others": {"delay": 0.1, "dropout": 0.3}}
    plant = make_plant(SPEC, robots=6, arena=1.0, nearest=0.5, faults=faults)
    plant.reset(0)
    shown = [batch for _ in range(4) for batch in plant.step(np.zeros((6, 2))).batches]
    others = [batch for batch in shown if batch.sensor == "others"]
    assert others
    for batch in others:
        assert batch.crowd is not None
        assert len(batch.crowd) == len(batch) < 6 * 4


def test_robots_that_push_cannot_be_copied() -> None:
    plant = robots(push=1.0)
    plant.reset(0)
    with pytest.raises(PlantError, match="push each other cannot be copied"):
        plant.branch(np.arange(2))
    with pytest.raises(PlantError, match="push_decay above 0"):
        robots(push_decay=0.0)
