"""The Kalman filter: the posterior of the joint Gaussian, consistent on nav2d, and no more sure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.plants.nav2d import Nav2d
from models.evaluation.kalman import LinearGaussian, kalman_filter, nav2d_positions
from schemas.system import load_spec

SPEC = load_spec("nav2d")
FREE: dict[str, Any] = {"reach": 0.0, "nearest": 0.0, "wall": 500.0}


def _robots(robots: int, **options: Any) -> Nav2d:
    return Nav2d(SPEC, robots=robots, **{**FREE, **options})


def _odd() -> LinearGaussian:
    """A system without any symmetry: three states, two inputs, two readings."""
    rng = np.random.default_rng(4)
    root = 0.3 * rng.standard_normal((3, 3))
    a = np.eye(3) + 0.2 * rng.standard_normal((3, 3))
    b, c = rng.standard_normal((3, 2)), rng.standard_normal((2, 3))
    return LinearGaussian(a, b, root @ root.T, c, np.array([0.3, 0.05]))


def test_its_belief_is_the_posterior_of_the_joint_gaussian() -> None:
    """Held against plain conditioning on all readings at once, some of which are lost."""
    system, rng, ticks = _odd(), np.random.default_rng(5), 5
    mean, covariance = rng.standard_normal(3), np.diag([1.0, 2.0, 0.5])
    inputs, readings = rng.standard_normal((ticks, 1, 2)), rng.standard_normal((ticks, 1, 2))
    readings[1], readings[3, 0, 0] = np.nan, np.nan
    # All states as one vector: x_t is `ways[t]` times (x_0, w_1 … w_t), plus what inputs add.
    ways, added = [np.eye(3, 3 * ticks)], [mean]
    for t in range(1, ticks):
        fresh = np.eye(3, 3 * ticks, 3 * t)
        ways.append(system.a @ ways[-1] + fresh)
        added.append(system.a @ added[-1] + system.b @ inputs[t, 0])
    source = np.kron(np.eye(ticks), system.q)
    source[:3, :3] = covariance
    way, centre = np.concatenate(ways), np.concatenate(added)
    joint = way @ source @ way.T
    shows = np.kron(np.eye(ticks), system.c)
    y = readings.ravel()
    there = np.isfinite(y)
    shows, noise = shows[there], np.diag(np.tile(system.r, ticks)[there])
    gain = joint @ shows.T @ np.linalg.inv(shows @ joint @ shows.T + noise)
    wanted = (centre + gain @ (y[there] - shows @ centre))[-3:]
    spread = (joint - gain @ shows @ joint)[-3:, -3:]
    found = kalman_filter(system, mean[None], covariance[None], inputs, readings)
    np.testing.assert_allclose(found.mean[-1, 0], wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.covariance[-1, 0], spread, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.std()[-1, 0], np.sqrt(np.diag(spread)))


def test_where_nothing_is_read_it_predicts() -> None:
    system = _odd()
    mean, covariance = np.ones((2, 3)), np.tile(np.eye(3), (2, 1, 1))
    inputs = np.full((2, 2, 2), 0.7)
    found = kalman_filter(system, mean, covariance, inputs, np.full((2, 2, 2), np.nan))
    np.testing.assert_allclose(found.mean[0], mean)
    np.testing.assert_allclose(found.mean[1, 0], system.a @ mean[0] + system.b @ inputs[1, 0])
    grown = system.a @ system.a.T + system.q
    np.testing.assert_allclose(found.covariance[1], np.tile(grown, (2, 1, 1)))


def test_nav2d_moves_as_its_matrices_say() -> None:
    """Over a tick of two steps of integration, with drag, and a mass that halves what is asked."""
    plant = _robots(20, actuation_noise=0.0, position_noise=0.0, drag=0.4, mass=2.0)
    plant.reset(0)
    known = nav2d_positions(plant)
    push = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    for _ in range(3):
        before = plant.state
        plant.step(push)
        np.testing.assert_allclose(plant.state, before @ known.a.T + push @ known.b.T)


def test_nav2d_spreads_as_its_matrices_say() -> None:
    plant = _robots(20_000, ticks=10, mass=2.0, actuation_noise=0.3)
    plant.reset(1)
    known, before = nav2d_positions(plant), plant.state
    plant.step(np.zeros((20_000, 2)))
    found = np.cov((plant.state - before @ known.a.T).T)
    deviation = np.sqrt(np.diag(known.q))
    np.testing.assert_allclose(
        found / np.outer(deviation, deviation), known.q / np.outer(deviation, deviation), atol=0.04
    )


@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_on_nav2d_it_is_consistent_without_bias_and_better_than_its_readings(noise: float) -> None:
    ticks, robots, rng = 80, 200, np.random.default_rng(2)
    plant = _robots(robots, ticks=ticks, position_noise=noise)
    plant.reset(2)
    truth, pushes, push = [], [], np.zeros((robots, 2))
    for _ in range(ticks):
        truth.append(plant.state)
        pushes.append(push)
        push = np.where(rng.random((robots, 1)) < 0.15, rng.uniform(-1, 1, (robots, 2)), push)
        plant.step(push)
    state = np.stack(truth)
    read = state[..., :2] + rng.normal(0.0, noise, (ticks, robots, 2))
    read[rng.random((ticks, robots)) < 0.4] = np.nan
    known = nav2d_positions(plant)
    wide = np.tile(np.diag([40.0, 40.0, 4.0, 4.0]), (robots, 1, 1))
    found = kalman_filter(known, np.zeros((robots, 4)), wide, np.stack(pushes), read)
    error = (found.mean - state)[20:]
    # The mean of 200 robots' NEES, which are correlated over ticks: 4 within 4 standard errors.
    per_robot = found.nees(state)[20:].mean(0)
    assert abs(per_robot.mean() - 4.0) < 4 * per_robot.std() / np.sqrt(robots)
    assert np.all(np.abs(error.mean((0, 1))) < 4 * error.mean(0).std(0) / np.sqrt(robots))
    here = np.isfinite(read[20:, :, 0])
    raw = np.square((read - state[..., :2])[20:][here]).mean()
    assert np.square(error[..., :2][here]).mean() < 0.6 * raw
    # Who doubts its sensor too little or too much is told by the same figure.
    for factor, least in ((4.0, 0.0), (0.25, 5.0)):
        wrong = replace(known, r=factor * known.r)
        off = kalman_filter(wrong, np.zeros((robots, 4)), wide, np.stack(pushes), read)
        nees = off.nees(state)[20:].mean()
        assert nees < 3.0 if factor > 1.0 else nees > least


def test_a_plant_that_is_not_linear_is_refused() -> None:
    for options in ({"action_delay": 0.1}, {"reach": 0.5}):
        with pytest.raises(ValueError, match="action_delay 0 and reach 0"):
            nav2d_positions(_robots(2, **options))
