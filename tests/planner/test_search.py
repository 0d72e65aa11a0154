"""Searches: executable candidates, improvement on a known problem, no dependence on company."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from planner.draws import Draws
from planner.imagine import Imagination
from planner.planners import PLANNERS
from planner.search import SCALES, Search, Start
from planner.session import Bundle
from schemas.spec_parts import PlannerName, Tier
from schemas.system import load_spec
from tests.planner.test_imagine import posterior_at
from tests.planner.worlds import double_integrator, make_bundle

NAV = load_spec("nav2d")
F64 = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = double_integrator(noise=0.02, gains=(0.9, 0.95, 1.0, 1.05, 1.1))
    return make_bundle(tmp_path_factory.mktemp("bundle"), NAV, world)


def planner(
    bundle: Bundle,
    states: npt.ArrayLike,
    rows: list[int],
    tier: Tier,
    guesses: F64 | None = None,
    seed: int = 1,
) -> Search:
    imagination = Imagination(NAV, bundle, posterior_at(states), tick=4)
    count = len(rows)
    first = np.zeros((count, 3, tier.horizon, 2)) if guesses is None else guesses
    start = Start(np.array(rows), np.zeros((count, 2)), first)
    draws = Draws((seed, 0, 4), 0, tier, 2, bundle.latent)
    return PLANNERS[tier.planner](NAV, imagination, tier, start, draws)


STATES = [[4.0, -3.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.5, 0.5, 0.0, 0.0], [0.0] * 6]
TIER = Tier(candidates=100, horizon=12, iterations=4)


@pytest.fixture(params=get_args(PlannerName))
def tier(request: pytest.FixtureRequest) -> Tier:
    """The usual tier, searched by each planner in turn."""
    return TIER.model_copy(update={"planner": request.param})


def test_it_finds_full_acceleration_towards_the_goal(bundle: Bundle, tier: Tier) -> None:
    cem = planner(bundle, STATES, [0], tier.model_copy(update={"candidates": 255, "horizon": 8}))
    for _ in range(6):
        cem.improve()
    answer = cem.act_now()
    first = answer.sequence[0, :4]
    assert first[:, 0].mean() < -0.7
    assert first[:, 1].mean() > 0.5
    assert answer.gain[0] > 0.5
    assert answer.quantiles[0, 0] <= answer.returned[0] <= answer.quantiles[0, 2]
    assert answer.stakes[0] > 0.1


def test_more_iterations_are_better_and_never_worse_than_the_guesses(
    bundle: Bundle, tier: Tier
) -> None:
    returns = []
    for iterations in (1, 2, 4, 8):
        cem = planner(bundle, STATES, [0, 1], tier)
        for _ in range(iterations):
            cem.improve()
        answer = cem.act_now()
        assert (answer.gain >= 0).all()
        returns.append(answer.returned.sum())
    assert returns[-1] > returns[0] + 0.05
    assert returns[2] > returns[0]


def test_a_perfect_guess_is_kept(bundle: Bundle, tier: Tier) -> None:
    cem = planner(bundle, STATES, [2], tier)  # at rest on the goal: hold still
    cem.improve()
    answer = cem.act_now()
    assert answer.gain[0] == pytest.approx(0.0, abs=1e-9)
    assert np.abs(answer.sequence).max() == 0.0


def test_plans_do_not_depend_on_who_shares_the_call(bundle: Bundle, tier: Tier) -> None:
    together = planner(bundle, STATES, [0, 1, 2], tier)
    alone = [planner(bundle, STATES, [row], tier) for row in range(3)]
    for cem in (together, *alone):
        cem.improve()
        cem.improve()
    joint = together.act_now()
    for row, cem in enumerate(alone):
        single = cem.act_now()
        np.testing.assert_allclose(joint.sequence[row], single.sequence[0], atol=1e-4)
        assert joint.returned[row] == pytest.approx(single.returned[0], abs=1e-4)


def test_the_same_seed_gives_the_same_bits_another_does_not(bundle: Bundle, tier: Tier) -> None:
    answers = []
    for seed in (1, 1, 2):
        cem = planner(bundle, STATES, [0, 1], tier, seed=seed)
        cem.improve()
        answers.append(cem.act_now().sequence.tobytes())
    assert answers[0] == answers[1] != answers[2]


def test_all_candidates_are_executable_and_the_guesses_are_among_them(bundle: Bundle) -> None:
    guesses = np.stack([np.full((12, 2), v) for v in (0.25, -2.0, 0.5)])[None]
    cem = planner(bundle, STATES, [0], TIER, guesses)
    first = cem._population()
    assert first.shape == (1, 100, 12, 2)
    assert np.abs(first).max() <= 1.0
    assert first[0, :3, 0, 0].tolist() == [0.25, -1.0, 0.5]
    cem.improve()
    second = cem._population()
    kept = cem._elites[0, :3]
    np.testing.assert_array_equal(second[0, :3], kept)


def test_the_first_population_has_all_widths_under_every_member(bundle: Bundle) -> None:
    cem = planner(bundle, np.zeros((1, 6)), [0], Tier(candidates=1000, horizon=4, iterations=1))
    population = cem._population()[0, 20:]
    rank = np.arange(20, 1000) // 5 % len(SCALES)
    widths = [population[rank == i].std() for i in range(len(SCALES))]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2.5 * widths[2]


def test_fewer_candidates_than_guesses(bundle: Bundle) -> None:
    guesses = np.zeros((1, 7, 3, 2))
    cem = planner(bundle, STATES, [0], Tier(candidates=5, horizon=3, iterations=1), guesses)
    cem.improve()
    assert cem.act_now().sequence.shape == (1, 3, 2)


def test_a_cautious_planner_follows_the_actor_where_members_differ(
    tmp_path: Path,
) -> None:
    """Its members disagree which way an action pushes; then no plan beats what the actor does."""
    world = double_integrator(noise=0.02, gains=(-1.0, -0.5, 1.0, 1.0, 1.2))
    torn = make_bundle(tmp_path / "bundle", NAV, world)
    budget = NAV.budget.model_copy(update={"caution": 1.0})
    cautious = NAV.model_copy(update={"budget": budget})
    guesses = np.zeros((1, 2, TIER.horizon, 2))
    guesses[0, 0] = 0.125  # where the actor leads
    answers = {}
    for name, spec in (("bold", NAV), ("cautious", cautious)):
        imagination = Imagination(spec, torn, posterior_at(STATES), tick=4)
        start = Start(np.array([0]), np.zeros((1, 2)), guesses, rivals=2)
        draws = Draws((1, 0, 4), 0, TIER, 2, torn.latent)
        cem = PLANNERS[TIER.planner](spec, imagination, TIER, start, draws)
        for _ in range(3):
            cem.improve()
        answers[name] = cem.act_now().sequence
    assert (answers["cautious"] == 0.125).all()
    assert (answers["bold"] != 0.125).any()
