"""CEM: executable candidates, improvement on a known problem, no dependence on company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.cem import (
    SCALES,
    Cem,
    Start,
    coloured,
    doubtful,
    executable,
    fair,
    first_spread,
)
from planner.draws import Draws
from planner.gate import envelope
from planner.imagine import Imagination
from planner.session import Bundle
from schemas.spec_parts import Tier
from schemas.system import load_spec
from tests.planner.test_imagine import posterior_at
from tests.planner.worlds import double_integrator, edited, make_bundle

NAV = load_spec("nav2d")
AUTOSCALE = load_spec("autoscale")
UNEVEN = edited(
    "autoscale",
    ("kind: integer", "kind: continuous"),
    ("rate: {up: 10, down: 3}", "rate: {up: 0.1, down: 0.7}"),
)
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
) -> Cem:
    imagination = Imagination(NAV, bundle, posterior_at(states), tick=4)
    count = len(rows)
    first = np.zeros((count, 3, tier.horizon, 2)) if guesses is None else guesses
    start = Start(np.array(rows), np.zeros((count, 2)), first)
    return Cem(NAV, imagination, tier, start, Draws((seed, 0, 4), 0, tier, 2, bundle.latent))


STATES = [[4.0, -3.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.5, 0.5, 0.0, 0.0], [0.0] * 6]
TIER = Tier(candidates=100, horizon=12, iterations=4)


def test_it_finds_full_acceleration_towards_the_goal(bundle: Bundle) -> None:
    cem = planner(bundle, STATES, [0], Tier(candidates=255, horizon=8, iterations=6))
    for _ in range(6):
        cem.improve()
    answer = cem.act_now()
    first = answer.sequence[0, :4]
    assert first[:, 0].mean() < -0.7
    assert first[:, 1].mean() > 0.5
    assert answer.gain[0] > 0.5
    assert answer.quantiles[0, 0] <= answer.returned[0] <= answer.quantiles[0, 2]
    assert answer.stakes[0] > 0.1


def test_more_iterations_are_better_and_never_worse_than_the_guesses(bundle: Bundle) -> None:
    returns = []
    for iterations in (1, 2, 4, 8):
        cem = planner(bundle, STATES, [0, 1], TIER)
        for _ in range(iterations):
            cem.improve()
        answer = cem.act_now()
        assert (answer.gain >= 0).all()
        returns.append(answer.returned.sum())
    assert returns[-1] > returns[0] + 0.05
    assert returns[2] > returns[0]


def test_a_perfect_guess_is_kept(bundle: Bundle) -> None:
    cem = planner(bundle, STATES, [2], TIER)  # at rest on the goal: hold still
    cem.improve()
    answer = cem.act_now()
    assert answer.gain[0] == pytest.approx(0.0, abs=1e-9)
    assert np.abs(answer.sequence).max() == 0.0


def test_plans_do_not_depend_on_who_shares_the_call(bundle: Bundle) -> None:
    together = planner(bundle, STATES, [0, 1, 2], TIER)
    alone = [planner(bundle, STATES, [row], TIER) for row in range(3)]
    for cem in (together, *alone):
        cem.improve()
        cem.improve()
    joint = together.act_now()
    for row, cem in enumerate(alone):
        single = cem.act_now()
        np.testing.assert_allclose(joint.sequence[row], single.sequence[0], atol=1e-4)
        assert joint.returned[row] == pytest.approx(single.returned[0], abs=1e-4)


def test_the_same_seed_gives_the_same_bits_another_does_not(bundle: Bundle) -> None:
    answers = []
    for seed in (1, 1, 2):
        cem = planner(bundle, STATES, [0, 1], TIER, seed=seed)
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


@pytest.mark.parametrize("spec", [AUTOSCALE, UNEVEN], ids=["integer", "uneven"])
@given(
    sequences=hnp.arrays(np.float64, (2, 3, 5, 1), elements=st.floats(-1e6, 1e6)),
    applied=hnp.arrays(np.float64, (2, 1), elements=st.floats(-10, 300) | st.just(np.nan)),
)
def test_executable_is_what_the_gate_lets_out_step_by_step(
    spec: object, sequences: F64, applied: F64
) -> None:
    assert isinstance(spec, type(AUTOSCALE))
    out = executable(spec, applied, sequences)
    before = np.broadcast_to(applied[:, None], (2, 3, 1))
    for t in range(5):
        low, high = envelope(spec, before)
        step = out[:, :, t]
        assert (step >= low).all()
        assert (step <= high).all()
        wanted = np.clip(sequences[:, :, t], spec.action_low, spec.action_high)
        wanted = np.where(spec.action_integer, np.rint(wanted), wanted)
        np.testing.assert_array_equal(step, np.clip(wanted, low, high))
        before = step
    np.testing.assert_array_equal(executable(spec, applied, out), out)


@given(
    sequences=hnp.arrays(np.float64, (2, 3, 5, 1), elements=st.floats(-1e3, 1e3)),
    past=hnp.arrays(np.float64, (2, 2, 1), elements=st.floats(-10, 300) | st.just(np.nan)),
    known=st.booleans(),
)
def test_executable_keeps_to_the_acceleration_that_the_gate_lets_out(
    sequences: F64, past: F64, known: bool
) -> None:
    spec = edited("autoscale", ("down: 3}", "down: 9}, accel: {up: 3, down: 2.5}"))
    before, applied = past
    out = executable(spec, applied, sequences, before if known else None)
    older = np.broadcast_to(before[:, None] if known else np.full((2, 1, 1), np.nan), (2, 3, 1))
    last = np.broadcast_to(applied[:, None], (2, 3, 1))
    for t in range(5):
        low, high = envelope(spec, last, older)
        wanted = np.rint(np.clip(sequences[:, :, t], spec.action_low, spec.action_high))
        np.testing.assert_array_equal(out[:, :, t], np.clip(wanted, low, high))
        older, last = last, out[:, :, t]


def test_the_first_spread_follows_bounds_and_rates() -> None:
    spread = first_spread(AUTOSCALE, np.array([[3.0], [np.nan], [198.0]]), 4)
    assert spread[0, :, 0].tolist() == [(13 - 1) / 4, (23 - 1) / 4, (33 - 1) / 4, (43 - 1) / 4]
    assert spread[1, :, 0].tolist() == [199 / 4] * 4
    assert spread[2, 0, 0] == (200 - 195) / 4


def test_coloured_noise_has_unit_variance_and_is_smooth() -> None:
    white = np.random.default_rng(0).standard_normal((16, 20_000, 1)).astype(np.float32)
    out = coloured(white)
    assert out.shape == (20_000, 16, 1)
    np.testing.assert_allclose(out.std(axis=0), 1.0, atol=0.03)
    step = np.diff(out[..., 0], axis=1).std()
    assert step < 0.6  # of white noise: 1.41


def test_fair_scores_forgive_member_and_noise() -> None:
    """Luck that all share who live under a member or a noise sequence makes no elites."""
    generator = np.random.default_rng(0)
    merit = generator.standard_normal((2, 240))
    luck = 5.0 * generator.standard_normal((2, 5))[:, np.arange(240) % 5]
    luck += 5.0 * generator.standard_normal((2, 6))[:, np.arange(240) // 5 % 6]
    judged = fair(merit + luck, members=5, sequences=6)
    for row in range(2):
        assert np.corrcoef(judged[row], merit[row])[0, 1] > 0.9
    assert np.corrcoef((merit + luck)[0], merit[0])[0, 1] < 0.3


def test_fair_scores_keep_what_is_not_a_number_last() -> None:
    score = np.where(np.arange(60) % 5 == 2, -np.inf, 1.0)[None]  # one member fails throughout
    judged = fair(score, members=5, sequences=2)
    assert (judged[0, 2::5] == -np.inf).all()
    assert np.isfinite(np.delete(judged[0], np.arange(2, 60, 5))).all()


def test_what_the_members_do_not_agree_on_is_doubtful() -> None:
    led = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])  # [M, draws]
    sure, lucky, worse = led + 0.1, led + np.array([[3.0], [-0.5], [-0.5]]), led - 0.1
    samples = np.stack([sure, lucky, worse, led, led]).reshape(1, 5, 6)
    broken = np.zeros((1, 5))
    assert doubtful(samples, broken, 3, 3, 1.0).tolist() == [[False, True, True, False, True]]
    assert doubtful(samples, broken, 3, 3, 0.0).tolist() == [[False, False, True, False, True]]


def test_what_breaks_fewer_hard_constraints_is_never_doubtful() -> None:
    led = np.ones((3, 2))
    samples = np.stack([led - 5.0, led - 5.0, led]).reshape(1, 3, 6)
    broken = np.array([[0.5, 2.0, 2.0]])  # the second of the dear ones gains nothing by its price
    assert doubtful(samples, broken, 2, 3, 1.0).tolist() == [[False, True, False]]


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
        cem = Cem(spec, imagination, TIER, start, Draws((1, 0, 4), 0, TIER, 2, torn.latent))
        for _ in range(3):
            cem.improve()
        answers[name] = cem.act_now().sequence
    assert (answers["cautious"] == 0.125).all()
    assert (answers["bold"] != 0.125).any()
