"""Environments by name: DeepMind Control's tasks, actions that are held, and what is refused."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from infra.plants.base import PlantError
from infra.plants.gym import GymPlant, spec_for
from infra.plants.gym_envs import Repeat, episode_ticks, make_env, period_us
from schemas.system import parse_spec


def test_a_held_action_collects_the_rewards_of_all_its_steps() -> None:
    plain, held = gymnasium.make("Pendulum-v1"), make_env("Pendulum-v1", {"action_repeat": 3})
    plain.reset(seed=5)
    held.reset(seed=5)
    action = np.array([1.5], np.float32)
    steps = [plain.step(action) for _ in range(3)]
    observation, reward, terminated, truncated, _ = held.step(action)
    np.testing.assert_array_equal(observation, steps[-1][0])
    assert reward == pytest.approx(sum(float(step[1]) for step in steps))
    assert (terminated, truncated) == (False, False)
    assert isinstance(held, Repeat)
    assert (period_us(held), period_us(plain)) == (150_000, 50_000)
    assert (episode_ticks(held), episode_ticks(plain)) == (67, 200)
    ended = [held.step(action)[3] for _ in range(66)]
    assert ended == [False] * 65 + [True], "the last one is held as long as the episode lasts"


def test_a_task_of_deepmind_control_is_a_plant() -> None:
    pytest.importorskip("dm_control")
    spec = parse_spec(spec_for("dm_control/cartpole-swingup", entities=2, action_repeat=2))
    assert spec.system == "dm_control-cartpole-swingup"
    assert spec.period_us == 20_000
    assert len(spec.columns) == 5
    assert (spec.action_low[0], spec.action_high[0]) == (-1.0, 1.0)
    plant = GymPlant(spec, env="dm_control/cartpole-swingup", entities=2, action_repeat=2)
    assert plant.episode == 500
    first, again = (plant.reset(3).batches[0].values["state"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any(), "every entity begins in its own way"
    samples = [plant.step(np.full((2, 1), 0.5)) for _ in range(4)]
    assert all(0 <= r <= 2 for sample in samples for r in sample.reward)
    assert plant.score()["episodes"] == 0


@pytest.mark.parametrize("times", [0, -1, 1.5, True, "2"])
def test_a_strange_action_repeat_is_refused(times: object) -> None:
    with pytest.raises(PlantError, match="action_repeat: a whole number from 1"):
        make_env("Pendulum-v1", {"action_repeat": times})


def test_an_unknown_task_is_refused() -> None:
    pytest.importorskip("dm_control")
    with pytest.raises(PlantError, match="dm_control/no-such: Gymnasium cannot make"):
        make_env("dm_control/no-such", {})
