"""Imagination and its worth, against the same dynamics rolled out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from planner.imagine import QUANTILES, Imagination, quantiles
from planner.objective import HARD_COST, SOFT_COST, Objective, Worth
from planner.session import Bundle, Futures, Posterior
from schemas.context import context_values
from schemas.system import SystemSpec, load_spec, parse_spec
from tests.planner.worlds import MEMBERS, World, double_integrator, edited, make_bundle

NAV = load_spec("nav2d")
CLOCK = """
system: clock
tick: 1 min
sensors: {s: {every: 1 s, max_age: 1 s, channels: {x: {unit: m, range: [0, 1]}}}}
context: [time_of_day]
actions: {u: {unit: m, low: 0, high: 1}}
reward: "time_of_day[0] + 0 * x + 0 * u"
fallback: {kind: value}
budget: {tiers: {only: {candidates: 5, horizon: 3, iterations: 1}}}
"""
REWARD_LINES = (
    "reward: >-\n"
    "  -sqrt((position[0] - goal[0]) * (position[0] - goal[0])\n"
    "  + (position[1] - goal[1]) * (position[1] - goal[1]))\n"
)
GAINS = (0.8, 0.9, 1.0, 1.1, 1.2)
F64 = npt.NDArray[np.float64]


def posterior_at(states: npt.ArrayLike, latent: int = 2, std: float = 0.0) -> Posterior:
    h = np.asarray(states, dtype=np.float32)
    mean = np.zeros((len(h), latent), np.float32)
    return Posterior(h, mean, mean + np.float32(std), np.zeros(len(h), np.float32))


def roll(
    world: World, start: F64, actions: F64, gain: float, noise: npt.NDArray[np.floating]
) -> F64:
    """[T,O] states after each step; noise [T,Z] enters the first columns."""
    x, out = start.astype(float), []
    for action, e in zip(actions, noise, strict=True):
        x = x @ world.transition + gain * (action @ world.control)
        x[: len(e)] += world.noise * e
        out.append(x)
    return np.array(out)


def distances(states: F64) -> F64:
    return np.asarray(-np.linalg.norm(states[:, :2] - states[:, 4:], axis=1))


def setting(
    tmp_path: Path, spec: SystemSpec = NAV, **world: Any
) -> tuple[World, Bundle, F64, F64, npt.NDArray[np.float32]]:
    """World, bundle, 3 states, candidates [3,7,4,2], noise [5,6,2]."""
    made = double_integrator(gains=GAINS, **world)
    generator = np.random.default_rng(5)
    states = generator.uniform(-5, 5, (3, 6))
    candidates = generator.uniform(-1, 1, (3, 7, 4, 2))
    noise = generator.standard_normal((5, 6, 2)).astype(np.float32)
    return made, make_bundle(tmp_path, spec, made, actor_trusted=False), states, candidates, noise


def test_each_candidate_lives_under_its_member_with_its_noise(tmp_path: Path) -> None:
    """Seven candidates are not a multiple of five members: the padding leaves no trace."""
    world, bundle, states, candidates, noise = setting(tmp_path, noise=0.3)
    imagination = Imagination(NAV, bundle, posterior_at(states, std=0.5), tick=9)
    rows = np.array([2, 0])
    worth = imagination.returns(rows, candidates[rows], noise)
    assert worth.returned.shape == (2, 7)
    for e, row in enumerate(rows):
        for c in range(7):
            draw = c // MEMBERS  # the rank among its member's candidates chooses the sequence
            start = states[row].copy()
            start[:2] += world.noise * 0.5 * noise[0, draw]  # z = mean + std × noise, then L0
            path = roll(world, start, candidates[row, c], GAINS[c % MEMBERS], noise[1:, draw])
            assert worth.returned[e, c] == pytest.approx(distances(path).sum(), rel=1e-4)


def test_finalists_under_all_members(tmp_path: Path) -> None:
    world, bundle, states, candidates, noise = setting(tmp_path, noise=0.3)
    imagination = Imagination(NAV, bundle, posterior_at(states), tick=9)
    rows = np.array([0, 2])
    verdict = imagination.under_all(rows, candidates[rows, :3], noise[:, :2])
    assert verdict.samples.shape == (2, 3, MEMBERS * 2)
    for e, row in enumerate(rows):
        for f in range(3):
            paths = np.array(
                [
                    [roll(world, states[row], candidates[row, f], g, noise[1:, d]) for d in (0, 1)]
                    for g in GAINS
                ]
            )  # [M,D,T,O]
            returns = [distances(path).sum() for member in paths for path in member]
            np.testing.assert_allclose(verdict.samples[e, f], returns, rtol=1e-4)
            assert verdict.score[e, f] == pytest.approx(np.mean(returns), rel=1e-4)
            np.testing.assert_allclose(
                verdict.channels[:, :, e, f], paths.transpose(2, 0, 1, 3), atol=1e-4
            )


def test_disagreement_is_the_spread_of_members_in_units_of_scale(tmp_path: Path) -> None:
    world = double_integrator(gains=GAINS)
    scale = [2.0, 2.0, 0.5, 0.5, 1.0, 1.0]
    bundle = make_bundle(
        tmp_path, NAV, world, calibration={"innovation_band": 1.0, "channel_scale": scale}
    )
    imagination = Imagination(NAV, bundle, posterior_at(np.zeros((1, 6))), tick=0)
    noise = np.zeros((4, 1, 2), np.float32)
    actions = np.ones((1, 2, 3, 2))
    actions[0, 1] = 0.0
    verdict = imagination.under_all(np.array([0]), actions, noise)
    found = [imagination.disagreement(verdict.channels[:, :, :, f])[0] for f in range(2)]
    paths = np.array(
        [roll(world, np.zeros(6), np.ones((3, 2)), g, np.zeros((3, 2))) for g in GAINS]
    )
    expected = np.sqrt(((paths - paths.mean(0)) ** 2 / np.square(scale)).mean())
    assert found[0] == pytest.approx(expected, rel=1e-4)
    assert found[1] == 0.0


def test_members_that_share_noise_do_not_disagree_about_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, NAV, double_integrator(noise=3.0))
    imagination = Imagination(NAV, bundle, posterior_at(np.ones((1, 6)), std=1.0), tick=0)
    noise = np.random.default_rng(0).standard_normal((6, 4, 2)).astype(np.float32)
    verdict = imagination.under_all(np.array([0]), np.ones((1, 1, 5, 2)), noise)
    assert imagination.disagreement(verdict.channels[:, :, :, 0])[0] < 1e-6
    assert verdict.samples.std() > 0.1


def objective_of(tmp_path: Path, spec: SystemSpec, tick: int = 0, **manifest: Any) -> Objective:
    world = World(
        np.eye(len(spec.columns)),
        np.zeros((1, len(spec.columns))),
        np.zeros((len(spec.columns), 1)),
    )
    if spec.system == "nav2d":
        world = double_integrator()
    return Objective(spec, make_bundle(tmp_path, spec, world, **manifest), tick)


def futures(
    channels: npt.ArrayLike, alive: float = 1.0, value: float = 0.0, reward: float = 0.0
) -> Futures:
    """Of channels [T,M,N,O]."""
    array = np.asarray(channels, dtype=np.float32)
    ones = np.ones(array.shape[:-1], np.float32)
    return Futures(array, alive * ones, np.float32(value) * ones[-1], reward * ones)


def test_soft_constraints_cost_and_hard_ones_rank(tmp_path: Path) -> None:
    channels = np.zeros((2, 1, 1, 6))
    channels[:, ..., 0] = 16.0
    actions = np.zeros((2, 1, 1, 2), np.float32)
    soft = objective_of(tmp_path / "a", NAV).worth(futures(channels), actions)
    assert soft.returned[0, 0] == pytest.approx(2 * (-16.0 - SOFT_COST))
    assert soft.hard[0, 0] == 0
    spec = edited("nav2d", ("kind: soft", "kind: hard"))
    hard = objective_of(tmp_path / "b", spec).worth(futures(channels), actions)
    assert hard.returned[0, 0] == pytest.approx(-32.0)
    assert hard.hard[0, 0] == 2
    assert hard.score[0, 0] == pytest.approx(-32.0 - 2 * HARD_COST)


def test_value_closes_the_horizon_only_for_its_own_objective(tmp_path: Path) -> None:
    channels = np.zeros((3, 1, 1, 6))
    channels[..., 0] = 1.0
    actions = np.zeros((3, 1, 1, 2), np.float32)
    calibration = {"innovation_band": 1.0, "channel_scale": [1.0] * 6, "discount": 0.5}
    given = futures(channels, alive=0.5, value=-8.0)
    weights = 1 + 0.25 + 0.0625
    own = objective_of(tmp_path / "a", NAV, calibration=calibration)
    assert own.worth(given, actions).returned[0, 0] == pytest.approx(-weights - 8 * 0.25**3)
    for change in ({"objective_hash": "0" * 16}, {"actor_trusted": False}):
        other = objective_of(tmp_path / "b", NAV, calibration=calibration, **change)
        assert other.worth(given, actions).returned[0, 0] == pytest.approx(-weights)


def test_termination_ends_a_future(tmp_path: Path) -> None:
    spec = edited("nav2d", ("constraints:", 'termination: "position[0] <= 2"\nconstraints:'))
    channels = np.zeros((3, 1, 1, 6))
    channels[:, 0, 0, 0] = [3.0, 2.0, 1.0]  # the transition into the end counts, later ones do not
    actions = np.zeros((3, 1, 1, 2), np.float32)
    worth = objective_of(tmp_path, spec).worth(futures(channels, value=-100.0), actions)
    assert worth.returned[0, 0] == pytest.approx(-5.0)


def test_without_an_expression_the_learned_reward_counts(tmp_path: Path) -> None:
    spec = edited("nav2d", (REWARD_LINES, ""))
    assert spec.reward is None
    actions = np.zeros((3, 1, 2, 2), np.float32)
    worth = objective_of(tmp_path, spec).worth(futures(np.zeros((3, 1, 2, 6)), reward=2.0), actions)
    assert worth.returned.tolist() == [[6.0, 6.0]]


def test_context_of_future_ticks_is_known_and_not_predicted(tmp_path: Path) -> None:
    spec = parse_spec(CLOCK)
    objective = objective_of(tmp_path, spec, tick=1234)
    channels = np.full((3, 1, 1, 3), 99.0)
    worth = objective.worth(futures(channels), np.zeros((3, 1, 1, 1), np.float32))
    times = spec.epoch_us + (1234 + np.arange(1, 4)) * spec.period_us
    expected = context_values(spec.context, times)
    np.testing.assert_allclose(objective.known(3), expected, rtol=1e-6)
    assert worth.returned[0, 0] == pytest.approx(expected[:, 0].sum(), rel=1e-5)


def test_scores_that_are_not_numbers_are_last() -> None:
    worth = Worth(np.array([np.nan, 1.0, np.inf]), np.zeros(3))
    assert worth.score.tolist() == [-np.inf, 1.0, -np.inf]


def test_quantiles_are_numpys() -> None:
    samples = np.random.default_rng(3).standard_normal((4, 10))
    np.testing.assert_allclose(quantiles(samples), np.quantile(samples, QUANTILES, axis=1).T)
    assert quantiles(np.array([[2.0]])).tolist() == [[2.0, 2.0, 2.0]]
