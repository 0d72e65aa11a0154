"""Each planner where the optimum is known: a regulator by Riccati, a small MDP by its values."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from planner.draws import Draws
from planner.imagine import Imagination
from planner.planners import PLANNERS
from planner.search import Answer, Start
from planner.session import Bundle
from schemas.spec_parts import PlannerName, Tier
from schemas.system import SystemSpec, parse_spec
from tests.planner.test_imagine import posterior_at
from tests.planner.worlds import World, make_bundle

F64 = npt.NDArray[np.float64]
DT = 0.2
SPEC = """
system: known
tick: 200 ms
sensors: {{s: {{every: 200 ms, max_age: 1 s, channels: {{
  x: {{unit: m, range: [-100, 100]}}, v: {{unit: m/s, range: [-100, 100]}}}}}}}}
actions: {{u: {{unit: N, low: {low}, high: {high}, kind: {kind}}}}}
reward: "{reward}"
fallback: {{kind: value, value: 0}}
budget: {{tiers: {{only: {{candidates: 5, horizon: 3, iterations: 1}}}}}}
"""


def best(spec: SystemSpec, bundle: Bundle, states: F64, planner: PlannerName, tier: Tier) -> Answer:
    """What `planner` finds from `states` [E,2], beginning with nothing done at all."""
    imagination = Imagination(spec, bundle, posterior_at(states), tick=0)
    count = len(states)
    nothing = np.zeros((count, 1, tier.horizon, 1))
    start = Start(np.arange(count), np.zeros((count, 1)), nothing)
    draws = Draws((7, 0, 0), 0, tier, 1, bundle.latent)
    search = PLANNERS[planner](spec, imagination, tier, start, draws)
    for _ in range(tier.iterations):
        search.improve()
    return search.act_now()


# A double integrator with quadratic costs: x' = x F + u G.
F, G = np.array([[1.0, 0.0], [DT, 1.0]]), np.array([[DT * DT / 2, DT]])
Q, R = np.diag([1.0, 0.1]), 0.05
REGULATED = parse_spec(
    SPEC.format(low=-10, high=10, kind="continuous", reward="-(x*x + 0.1*v*v + 0.05*u*u)")
)
STATES = np.array([[2.0, 0.0], [-1.0, 1.5], [0.5, -2.0], [-3.0, -1.0]])
HORIZON = 15


def riccati(horizon: int) -> F64:
    """[2,2] P of the least cost x P xᵀ over `horizon` steps; a step's end is paid for."""
    cost = np.zeros((2, 2))
    for _ in range(horizon):
        paid = Q + cost
        gain = (F @ paid @ G.T) / (R + (G @ paid @ G.T).item())
        cost = F @ paid @ F.T - gain @ (G @ paid @ F.T)
    return cost


@pytest.fixture(scope="module")
def regulator(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = World(F, G, np.zeros((2, 1)))
    return make_bundle(tmp_path_factory.mktemp("regulator"), REGULATED, world)


@pytest.mark.parametrize(("planner", "within"), [("icem", 0.05), ("cem", 0.05), ("mppi", 0.04)])
def test_costs_of_a_regulator_are_near_the_least(
    regulator: Bundle, planner: PlannerName, within: float
) -> None:
    tier = Tier(candidates=1023, horizon=HORIZON, iterations=15, colour=0.0)
    answer = best(REGULATED, regulator, STATES, planner, tier)
    least = np.einsum("ei,ij,ej->e", STATES, riccati(HORIZON), STATES)
    found = -answer.returned
    assert (found >= least * (1 - 1e-5)).all(), "nobody is better than the optimum"
    assert (found <= least * (1 + within)).all()


# Places on a line with two valleys: the nearer one is not the deeper.
PLACES, MOVES, STEPS = 12, 2, 6
WALKED = parse_spec(
    SPEC.format(
        low=-MOVES,
        high=MOVES,
        kind="integer",
        reward="-min(abs(x - 5), abs(x + 4) + 2) - 0.1 * abs(u)",
    )
)


def gained(place: int, move: int) -> float:
    """The reward of `move` to `place`."""
    return -min(abs(place - 5), abs(place + 4) + 2) - 0.1 * abs(move)


def values(steps: int) -> dict[int, float]:
    """The most that can be gained in `steps` moves from each place, by value iteration."""
    value = dict.fromkeys(range(-99, 100), 0.0)
    for step in range(1, steps + 1):
        reach = 99 - MOVES * step
        moves = range(-MOVES, MOVES + 1)
        value = {
            place: max(gained(place + move, move) + value[place + move] for move in moves)
            for place in range(-reach, reach + 1)
        }
    return value


@pytest.mark.parametrize("planner", get_args(PlannerName))
def test_four_walks_of_five_are_the_best_there_are(tmp_path: Path, planner: PlannerName) -> None:
    world = World(np.eye(2), np.array([[1.0, 0.0]]), np.zeros((2, 1)))
    bundle = make_bundle(tmp_path, WALKED, world)
    places = np.arange(-PLACES, PLACES + 1)
    states = np.stack([places, np.zeros(len(places))], axis=1).astype(float)
    tier = Tier(candidates=255, horizon=STEPS, iterations=6, planner=planner, colour=0.0)
    answer = best(WALKED, bundle, states, planner, tier)
    most = np.array([values(STEPS)[int(place)] for place in places])
    assert (answer.returned <= most + 1e-5).all(), "nobody gains more than there is"
    assert (answer.returned >= most - 1e-5).sum() >= 0.8 * len(places)
    assert most.mean() - answer.returned.mean() <= 0.05 * (most.max() - most.min())
    np.testing.assert_array_equal(answer.sequence, np.rint(answer.sequence))
