"""Tests of the robots in a plane."""

from __future__ import annotations

from itertools import pairwise
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


def goals(first: Sample) -> Floats:
    """`[E, 2]` where the robots shall go: all say it with the first tick."""
    return last(first, "mission", "goal")


def drive(plant: Nav2d, seed: int, gain: float = 1.0) -> list[Sample]:
    """A proportional-derivative controller for a whole episode."""
    samples = [plant.reset(seed)]
    for _ in range(plant.options.ticks):
        x, v = last(samples[-1], "odometry", "position"), last(samples[-1], "odometry", "velocity")
        samples.append(plant.step(np.clip(gain * (goals(samples[0]) - x) - 1.8 * v, -1.0, 1.0)))
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


def test_motion_follows_the_closed_form() -> None:
    """With drag c and constant a: v = a (1 - e^(-c t)) / c and x = x0 + (a t - v) / c."""
    plant = robots(actuation_noise=0.0, position_noise=0.0, velocity_noise=0.0, reach=0.0)
    start = last(plant.reset(0), "odometry", "position")
    action = np.tile([0.8, -0.3], (20, 1))
    sample = [plant.step(action) for _ in range(20)][-1]
    c, t = 0.1, 2.0
    speed = action * (1.0 - np.exp(-c * t)) / c
    np.testing.assert_allclose(last(sample, "odometry", "velocity"), speed)
    np.testing.assert_allclose(
        last(sample, "odometry", "position"), start + (action * t - speed) / c
    )


def test_without_drag_it_is_a_double_integrator() -> None:
    plant = robots(drag=0.0, actuation_noise=0.0, position_noise=0.0, reach=0.0)
    start = last(plant.reset(0), "odometry", "position")
    sample = [plant.step(np.ones((20, 2))) for _ in range(10)][-1]
    np.testing.assert_allclose(last(sample, "odometry", "position"), start + 0.5)


def test_a_robot_that_is_done_is_parked() -> None:
    plant = robots(ticks=150, position_noise=0.0, velocity_noise=0.0)
    samples = drive(plant, seed=1)
    done = np.stack([sample.done for sample in samples])
    assert (np.diff(done.astype(int), axis=0) >= 0).all()
    at = int(np.argmax(done[:, 0]))
    assert 0 < at < 150
    where = np.stack([last(sample, "odometry", "position")[0] for sample in samples])
    assert (where[at:] == where[at]).all()
    assert (last(samples[-1], "odometry", "velocity")[0] == 0.0).all()
    assert np.linalg.norm(where[at] - goals(samples[0])[0]) <= 0.5
    rewards = np.stack([sample.reward for sample in samples])
    assert (rewards[at + 1 :, 0] == 0.0).all()
    assert (rewards[1 : at + 1, 0] < 0.0).all()
    assert samples[-1].outcomes["reached"][0] == 1.0


def test_the_reward_is_minus_the_distance_and_the_score_adds_up() -> None:
    plant = robots(ticks=100, position_noise=0.0)
    samples = drive(plant, seed=2)
    for before, sample in pairwise(samples):
        gap = last(sample, "odometry", "position") - goals(samples[0])
        expected = np.where(before.done, 0.0, -np.linalg.norm(gap, axis=1))
        np.testing.assert_allclose(sample.reward, expected)
    score = plant.score()
    total = np.sum([sample.reward for sample in samples], axis=0)
    assert score["return"] == pytest.approx(total.mean())
    done = np.stack([sample.done for sample in samples])
    first = np.argmax(done, axis=0)[done[-1]] * 0.1
    assert score["time_to_goal"] == pytest.approx(first.mean(), abs=0.051)


def test_odometry_reads_twice_a_tick_and_with_its_noise() -> None:
    plant = robots(robots=500, position_noise=0.2, velocity_noise=0.0)
    sample = plant.reset(0)
    batch = sample.batches[0]
    assert sorted(set(batch.time_us.tolist())) == [-50_000, 0]
    quiet = robots(robots=500, position_noise=0.0).reset(0).batches[0].values["position"]
    assert (batch.values["position"] - quiet).std() == pytest.approx(0.2, rel=0.1)
    assert (batch.values["velocity"] == 0.0).all()


def test_walls_stop_robots_within_the_range_of_the_sensors() -> None:
    plant = robots(ticks=400)
    plant.reset(0)
    sample = [plant.step(np.ones((20, 2))) for _ in range(400)][-1]
    moving = ~sample.done
    assert moving.any()
    assert np.abs(last(sample, "odometry", "position")).max() < 20.0
    assert (np.abs(last(sample, "odometry", "velocity")[moving]) < 0.3).all()


def test_starts_and_goals_are_apart_and_do_not_depend_on_actions() -> None:
    plant = robots(robots=400, nearest=5.0)
    sample = plant.reset(9)
    start, goal = last(sample, "odometry", "position"), goals(sample)
    assert np.linalg.norm(goal - start, axis=1).min() > 4.9
    assert np.abs(goal).max() <= 10.0
    (later,) = (b for b in plant.step(np.ones((400, 2))).batches if b.sensor == "mission")
    np.testing.assert_array_equal(later.values["goal"], goal[later.entity])


def test_the_gate_calls_no_sensor_stale_of_which_one_reading_is_lost() -> None:
    limit = SPEC.gate.stale_after_us
    assert limit is not None
    assert all(2 * sensor.every_us < limit for sensor in SPEC.sensors.values())


def test_robots_take_turns_to_tell_their_goals() -> None:
    plant = robots(robots=23)
    samples = [plant.reset(0), *(plant.step(np.zeros((23, 2))) for _ in range(30))]
    told: dict[int, list[int]] = {robot: [] for robot in range(23)}
    for sample in samples:
        missions = [batch for batch in sample.batches if batch.sensor == "mission"]
        assert sum(map(len, missions)) in ((23,) if sample is samples[0] else (11, 12))
        for batch in missions:
            for robot, time_us in zip(batch.entity.tolist(), batch.time_us.tolist(), strict=True):
                told[robot].append(time_us)
    few = robots(robots=1)
    few.reset(0)
    empty = [few.step(np.zeros((1, 2))) for _ in range(3)][-1]
    assert [batch.sensor for batch in empty.batches] == ["odometry"], "nobody's turn"
    for times in told.values():
        assert times[0] == -50_000
        assert set(np.diff(times[1:]).tolist()) == {200_000}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1.0}, "no option 'speed'"),
        ({"robots": 0}, "at least one robot"),
        ({"nearest": 11.0}, "nearest <= arena"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlantError, match=message):
        robots(**options)
