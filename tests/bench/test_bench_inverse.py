"""What the benchmark of learned rewards says, on trainings of seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from tests.bench.bench_inverse import REWARD, WHO, WORLD, Sizes, run, table
from tests.bench.inverse_world import acted, chance, cloned, pendulum
from tests.bench.pendulum_optimum import Optimum, advance, reward, wrapped


@pytest.fixture(scope="module")
def optimum() -> Optimum:
    return Optimum(61, 41, 7, sweeps=120)


def test_the_dynamics_are_those_of_the_environment() -> None:
    env = gymnasium.make("Pendulum-v1").unwrapped
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle, speed, torque = rng.uniform([-3, -8, -2], [3, 8, 2])
        env.reset(seed=0)
        env.state = np.array([angle, speed])  # type: ignore[attr-defined]
        seen, paid, *_ = env.step(np.array([torque]))
        after, faster = advance(*(np.array([x]) for x in (angle, speed, torque)))
        np.testing.assert_allclose(seen, [*np.cos(after), *np.sin(after), *faster], atol=1e-5)
        assert reward(np.array(angle), np.array(speed), np.array(torque)) == pytest.approx(paid)
    assert wrapped(np.array([3 * np.pi / 2]))[0] == pytest.approx(-np.pi / 2)


def test_the_optimum_swings_up_and_cloning_follows_it(optimum: Optimum) -> None:
    spec = pendulum()
    assert spec.reward is None
    returns, record = acted(spec, optimum, 8, 1)
    aimless, _ = acted(spec, chance(spec, 8, 1), 8, 1)
    assert returns.each.mean() > -250 > -800 > aimless.each.mean()
    copied, _ = acted(spec, cloned(spec, record, 0), 8, 2)
    assert copied.each.mean() > aimless.each.mean() + 400


def test_a_run_says_all_that_the_table_has(optimum: Optimum, tmp_path: Path) -> None:
    few = replace(WORLD, steps=8, model=replace(WORLD.model, memory=4, units=8, members=2))
    again = replace(REWARD, steps=4, actor_steps=2)
    found = run(0, 2, optimum, tmp_path, few, again, Sizes(wandered=2, judged=2))
    assert {*WHO, "rank correlation", "optimum"} <= found.keys()
    assert -1 <= found["rank correlation"] <= 1
    assert all(found[name] < 0 for name in WHO)
    assert table({2: [found, found]}).count("\n") == 2
