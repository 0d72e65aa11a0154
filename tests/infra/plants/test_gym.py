"""Tests of Gymnasium environments as plants."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from infra.plants.base import Floats, PlantError, make_plant
from infra.plants.gym import GymPlant, spec_for
from schemas.system import SystemSpec, parse_spec


def spec_of(env_id: str, **options: Any) -> SystemSpec:
    return parse_spec(spec_for(env_id, **options), env_id)


def plant_of(env_id: str, entities: int = 3, **options: Any) -> GymPlant:
    plant = make_plant(spec_of(env_id, entities=entities), **options)
    assert isinstance(plant, GymPlant)
    return plant


def state(sample: Any) -> Floats:
    """`[E, size]` of the one reading of each entity."""
    (batch,) = sample.batches
    np.testing.assert_array_equal(batch.entity, np.arange(len(sample.done)))
    return np.asarray(batch.values["state"])


def test_the_spec_of_a_continuous_environment_follows_from_its_spaces() -> None:
    spec = spec_of("Pendulum-v1")
    assert spec.period_us == 50_000
    assert spec.columns == ("state[0]", "state[1]", "state[2]")
    assert (spec.channels[0].low, spec.channels[0].high) == (-8.0, 8.0)
    assert spec.action_columns == ("action[0]",)
    assert (spec.action_low[0], spec.action_high[0]) == (-2.0, 2.0)
    assert not spec.action_integer[0]


def test_the_spec_of_a_discrete_environment_follows_from_its_spaces() -> None:
    spec = spec_of("CartPole-v1")
    assert spec.period_us == 20_000
    assert (spec.action_low[0], spec.action_high[0], spec.action_integer[0]) == (0.0, 1.0, True)
    assert spec.actions["action"].kind == "categorical"


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "MountainCarContinuous-v0", "FrozenLake-v1"])
def test_other_environments_step(env_id: str) -> None:
    plant = plant_of(env_id)
    first = plant.reset(0)
    action = np.tile(plant.spec.action_high, (3, 1))
    samples = [plant.step(action) for _ in range(5)]
    assert [sample.tick for sample in samples] == [1, 2, 3, 4, 5]
    shown = [sample.batches[0].values["state"] for sample in (first, *samples)]
    assert any((value != shown[0]).any() for value in shown)


def test_a_plant_does_what_the_environment_does() -> None:
    plant = plant_of("Pendulum-v1")
    first = plant.reset(5)
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=0)
    angle = np.arctan2(state(first)[1, 1], state(first)[1, 0])
    env.unwrapped.state = np.array([angle, state(first)[1, 2]])  # type: ignore[attr-defined]
    for torque in (1.5, -2.0, 0.3, 9.0):
        sample = plant.step(np.full((3, 1), torque))
        observation, reward, *_ = env.step(np.array([min(torque, 2.0)], np.float32))
        np.testing.assert_allclose(state(sample)[1], observation, atol=1e-5)
        assert sample.reward[1] == pytest.approx(float(reward), abs=1e-4)


def test_equal_seeds_give_equal_episodes_and_entities_differ() -> None:
    shown = []
    for seed in (1, 1, 2):
        plant = plant_of("CartPole-v1")
        shown.append(
            [state(plant.reset(seed)), *(state(plant.step(np.ones((3, 1)))) for _ in "ab")]
        )
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (np.array(shown[0]) != np.array(shown[2])).any()
    assert (shown[0][0][0] != shown[0][0][1]).any()


def test_an_episode_ends_with_done_and_the_next_tick_begins_another() -> None:
    plant = plant_of("CartPole-v1")
    sample = plant.reset(0)
    assert sample.outcomes["reset"].all()
    ends = 0
    for _ in range(60):
        before, sample = sample, plant.step(np.zeros((3, 1)))
        np.testing.assert_array_equal(sample.outcomes["reset"], before.done)
        ended = state(sample)[sample.done]
        assert (np.abs(ended[:, 2]) > 0.2095).all()  # 12 degrees: the last observation is shown
        began = state(sample)[before.done]
        assert (np.abs(began) <= 0.05).all()
        assert (sample.reward[before.done] == 0.0).all()
        assert (sample.reward[~before.done] == 1.0).all()
        np.testing.assert_array_equal(sample.outcomes["terminated"], sample.done)
        ends += int(sample.done.sum())
    score = plant.score()
    assert score["episodes"] == ends > 10
    assert 8.0 < score["return"] < 12.0  # always pushing to the left lasts about ten steps


def test_a_time_limit_is_truncation_and_not_termination() -> None:
    plant = plant_of("Pendulum-v1", 2)
    plant.reset(0)
    samples = [plant.step(np.zeros((2, 1))) for _ in range(201)]
    assert samples[199].done.all()
    assert samples[199].outcomes["truncated"].all()
    assert not samples[199].outcomes["terminated"].any()
    assert samples[200].outcomes["reset"].all()


def test_a_slower_sensor_reads_every_other_tick() -> None:
    text = spec_for("Pendulum-v1").replace("every: 50 ms", "every: 100 ms")
    plant = make_plant(parse_spec(text))
    plant.reset(0)
    read = [len(plant.step(np.zeros((8, 1))).batches) for _ in range(6)]
    assert read == [0, 1, 0, 1, 0, 1]


def test_what_cannot_be_made_is_refused_with_a_remedy() -> None:
    with pytest.raises(PlantError, match="NoSuch-v0: Gymnasium cannot make"):
        spec_for("NoSuch-v0")
    wrong = parse_spec(spec_for("Pendulum-v1"))
    with pytest.raises(PlantError, match=r"'state' of size 4.*spec_for\('CartPole-v1'\)"):
        make_plant(wrong, env="CartPole-v1")
    with pytest.raises(PlantError, match="call reset"):
        plant_of("CartPole-v1").step(np.zeros((3, 1)))
