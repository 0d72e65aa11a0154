"""Plans for a frame: always an answer, spent as recorded, and better than the guesses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from planner.budget import Budget, FreeBudget, RecordedBudget, Spent
from planner.draft import Draft, Plan
from planner.gate import gate
from planner.memory import PlannerMemory
from planner.mppi import Mppi
from planner.plan import expect, plan, plan_ahead
from planner.planners import PLANNERS
from planner.session import Bundle, Posterior
from schemas.codes import Mode
from schemas.frames import ControlView
from schemas.spec_parts import Risk, Tier
from schemas.system import SystemSpec, load_spec
from tests.planner.worlds import double_integrator, make_bundle, make_frame, with_tiers

NAV = load_spec("nav2d")
QUICK = with_tiers(
    NAV,
    shallow=Tier(candidates=300, horizon=8, iterations=2),
    deep=Tier(candidates=400, horizon=10, iterations=3),
)
PATIENT = with_tiers(NAV, only=Tier(candidates=160, horizon=25, iterations=1))
GAINS = (0.9, 0.95, 1.0, 1.05, 1.1)
SEED = 11
OTHERS = {**PLANNERS, "icem": Mppi}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b"), QUICK, double_integrator(gains=GAINS))


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle without a trusted actor."""
    world = double_integrator(gains=GAINS)
    return make_bundle(tmp_path_factory.mktemp("m"), QUICK, world, actor_trusted=False)


class First:
    """A budget for the first `groups` groups of two, one iteration each."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def some(self) -> bool:
        return self.groups > 0

    def more(self, group: int, iteration: int, work: float) -> bool:
        return group < self.groups and iteration == 0

    def size(self, group: int, each: float, most: int) -> int:
        return min(2, most)


def scene(count: int = 5, tick: int = 7, **frame: Any) -> tuple[Any, Posterior]:
    generator = np.random.default_rng(3)
    states = np.zeros((count, 6))
    states[:, :2] = generator.uniform(-6, 6, (count, 2))
    states[:, 2:4] = generator.uniform(-0.5, 0.5, (count, 2))
    h = states.astype(np.float32)
    zeros = np.zeros((count, 2), np.float32)
    posterior = Posterior(h, zeros, zeros, np.zeros(count, np.float32))
    frame = {"applied": np.zeros((count, 2))} | frame
    return make_frame(QUICK, states, tick=tick, **frame), posterior


def make(
    bundle: Bundle | None,
    count: int = 5,
    budget: Budget | None = None,
    tick: int = 7,
    memory: PlannerMemory | None = None,
    spec: SystemSpec = QUICK,
    **more: Any,
) -> Plan:
    believed = more.pop("believed", None)
    frame, posterior = scene(count, tick, **more)
    remembered = PlannerMemory.fresh(spec, count) if memory is None else memory
    return plan(
        spec, bundle, posterior, frame, remembered, budget or FreeBudget(), SEED, believed=believed
    )


def test_without_a_model_the_fallback_answers_for_everyone() -> None:
    made = make(None)
    assert (made.mode == Mode.FALLBACK).all()
    frame, _ = scene()
    np.testing.assert_array_equal(made.proposal, np.clip(-2 * frame.values[:, 2:4], -1, 1))
    assert made.spent == Spent()
    for array in (made.returned, made.gain, made.uncertainty):
        assert np.isnan(array).all()
    assert (made.tier == -1).all()


def test_without_time_the_actor_answers(bundle: Bundle, mute: Bundle) -> None:
    made = make(bundle, budget=First(0))
    assert (made.mode == Mode.ACTOR).all()
    _, posterior = scene()
    expected = np.clip(bundle.act(posterior.h, posterior.mean), -1, 1)
    np.testing.assert_allclose(made.proposal, expected, atol=1e-6)
    assert (make(mute, budget=First(0)).mode == Mode.FALLBACK).all()


def test_with_time_everyone_is_planned_at_every_tier(bundle: Bundle) -> None:
    made = make(bundle)
    assert (made.mode == Mode.PLAN).all()
    assert (made.tier == 1).all()
    assert (made.iterations == 3).all()
    # 8000 // (300 × 8) = 3 and 8000 // (400 × 10) = 2 entities per call
    assert made.spent == Spent((0, 0, 1, 1, 1), (2, 2, 3, 3, 3), (3, 2, 2, 2, 1))
    assert (made.gain >= 0).all()
    assert made.gain.max() > 0.01
    plans = made.memory.ahead(7, 10)
    assert plans.shape == (5, 10, 2)
    np.testing.assert_array_equal(plans[:, 0], made.proposal)
    assert (np.diff(made.returned[:, 1:], axis=1) >= 0).all()


def test_a_tier_is_searched_by_the_planner_that_it_names(bundle: Bundle) -> None:
    frame, posterior = scene()
    found = {}
    for name, planners in (("icem", PLANNERS), ("mppi", PLANNERS), ("other", OTHERS)):
        tier = Tier(candidates=160, horizon=8, iterations=2)
        if name == "mppi":
            tier = tier.model_copy(update={"planner": name})
        spec = with_tiers(NAV, only=tier)
        memory = PlannerMemory.fresh(spec, 5)
        made = plan(
            *(spec, bundle, posterior, frame, memory, FreeBudget(), SEED), planners=planners
        )
        found[name] = made.proposal
    np.testing.assert_array_equal(found["mppi"], found["other"])
    assert (found["mppi"] != found["icem"]).any()


def test_what_a_spec_fears_reaches_the_choice(bundle: Bundle) -> None:
    """With members that differ, the worst of the returns is not the mean of them."""
    feared = NAV.budget.model_copy(update={"risk": Risk(spread=50.0), "tiers": QUICK.budget.tiers})
    shy, bold = make(bundle, spec=QUICK.model_copy(update={"budget": feared})), make(bundle)
    assert (shy.proposal != bold.proposal).any()
    assert shy.returned[:, 0].mean() < bold.returned[:, 0].mean(), "return is given up for it"


def test_predictions_are_one_step_of_the_mean_member(bundle: Bundle) -> None:
    made = make(bundle)
    frame, posterior = scene()
    world, action = double_integrator(), made.proposal.copy()
    action[3, 1] = np.nan
    mean, spread = expect(QUICK, bundle, posterior, frame, action, SEED)
    expected = frame.values @ world.transition + action @ world.control
    np.testing.assert_allclose(mean[:3], expected[:3], atol=1e-5)
    effect = np.abs(action @ world.control) * np.std(GAINS)
    np.testing.assert_allclose(spread[:3], effect[:3], atol=1e-5)
    assert np.isnan(mean[3]).all()
    assert np.isnan(spread[3]).all()
    idle = make(bundle, budget=FreeBudget(0))
    assert (idle.uncertainty > 0).all()
    # What is planned is as doubtful as the whole plan, not only its first step.
    np.testing.assert_allclose(
        made.uncertainty, np.maximum(made.memory.uncertainty, made.uncertainty), rtol=1e-6
    )


def test_the_budget_goes_to_the_most_urgent(bundle: Bundle) -> None:
    memory = make(bundle).memory
    frame, posterior = scene(tick=8)
    innovation = np.array([0, 0, 3.0, 0, 1.0], np.float32)
    surprised = replace(posterior, innovation=innovation)
    made = plan(QUICK, bundle, surprised, frame, memory, First(1), SEED)
    assert np.flatnonzero(made.mode == Mode.PLAN).tolist() == [2, 4]
    assert (made.mode[[0, 1, 3]] == Mode.FOLLOW).all()
    assert made.group.tolist() == [-1, -1, 0, -1, 0]
    assert made.tier.tolist() == [-1, -1, 0, -1, 0]


def test_a_young_plan_is_followed_step_by_step_and_then_dropped(
    bundle: Bundle, mute: Bundle
) -> None:
    for model, after in ((bundle, Mode.ACTOR), (mute, Mode.FALLBACK)):
        memory = make(model).memory
        sequence = memory.sequence.copy()
        for step in range(1, 8):  # three quarters of the horizon of 10
            made = make(model, tick=7 + step, memory=memory, budget=First(0))
            assert (made.mode == Mode.FOLLOW).all()
            np.testing.assert_array_equal(made.proposal, sequence[:, step])
            assert np.isnan(made.returned).all()
            memory = made.memory
        assert (make(model, tick=15, memory=memory, budget=First(0)).mode == after).all()


def test_a_surprise_ends_following(bundle: Bundle) -> None:
    memory = make(bundle).memory
    frame, posterior = scene(tick=8)
    surprised = replace(posterior, innovation=np.array([0, 9.0, 0, 0, np.nan], np.float32))
    made = plan(QUICK, bundle, surprised, frame, memory, First(0), SEED)
    assert made.mode.tolist() == [Mode.FOLLOW, Mode.ACTOR, Mode.FOLLOW, Mode.FOLLOW, Mode.FOLLOW]


def test_a_lost_belief_brings_the_fallback_and_drops_the_plan(bundle: Bundle) -> None:
    memory = make(bundle).memory
    believed = np.array([True, False, True, True, True])
    made = make(bundle, tick=8, memory=memory, believed=believed)
    assert made.mode.tolist() == [0, Mode.FALLBACK, 0, 0, 0]
    assert made.tier[1] == -1
    later = make(bundle, tick=9, memory=made.memory, budget=First(0))
    assert later.mode[1] == Mode.ACTOR


def test_a_belief_that_is_not_finite_is_not_planned_on(bundle: Bundle) -> None:
    frame, posterior = scene()
    h = posterior.h.copy()
    h[3, 0] = np.nan
    made = plan(
        QUICK,
        bundle,
        replace(posterior, h=h),
        frame,
        PlannerMemory.fresh(QUICK, 5),
        FreeBudget(),
        SEED,
    )
    assert made.mode.tolist() == [0, 0, 0, Mode.FALLBACK, 0]
    assert np.isfinite(made.proposal).all()


def test_operators_entities_cost_nothing(bundle: Bundle) -> None:
    made = make(bundle, control=ControlView(holds=("e001",)))
    assert made.tier.tolist() == [1, -1, 1, 1, 1]
    everyone = make(bundle, control=ControlView(holds=("*",)))
    assert everyone.spent == Spent()


def test_an_operator_may_limit_the_tier(bundle: Bundle) -> None:
    made = make(bundle, control=ControlView(budget="shallow"))
    assert (made.tier == 0).all()
    assert set(made.spent.tiers) == {0}


def test_a_recorded_budget_gives_the_same_plan_bit_for_bit(bundle: Bundle) -> None:
    for groups in (1, 2, 5):
        memory = PlannerMemory.fresh(QUICK, 5)
        for tick in range(3):
            live = make(bundle, tick=tick, memory=memory, budget=First(groups))
            spent = Spent.from_dict(live.spent.as_dict())
            again = make(bundle, tick=tick, memory=memory, budget=RecordedBudget(spent))
            for name in Plan.__dataclass_fields__:
                one, two = getattr(live, name), getattr(again, name)
                if isinstance(one, np.ndarray):
                    assert one.tobytes() == two.tobytes(), name
                elif isinstance(one, PlannerMemory):
                    arrays = two.arrays()
                    for key, array in one.arrays().items():
                        assert array.tobytes() == arrays[key].tobytes(), key
                else:
                    assert one == two
            memory = live.memory


def test_planning_ahead_begins_with_what_was_issued_and_is_followed_next(bundle: Bundle) -> None:
    frame, posterior = scene(control=ControlView(holds=("e001",)))
    made = make(bundle, budget=FreeBudget(0), control=ControlView(holds=("e001",)))
    issued = np.full((5, 2), 0.25)
    issued[2] = np.nan  # the gate let nothing out

    def ahead(budget: Budget) -> tuple[PlannerMemory, Spent]:
        return plan_ahead(QUICK, bundle, posterior, frame, made, issued, budget, SEED)

    memory, spent = ahead(FreeBudget())
    planned = [0, 3, 4]
    assert np.flatnonzero(memory.planned_at == frame.tick).tolist() == planned
    np.testing.assert_array_equal(memory.sequence[planned, 0], issued[planned])
    assert (np.abs(memory.sequence[planned, 1] - 0.25) > 0.05).any()
    again, _ = ahead(RecordedBudget(spent))
    np.testing.assert_array_equal(again.sequence, memory.sequence)

    inline = make(bundle, control=ControlView(holds=("e001",)))
    assert not np.array_equal(inline.memory.sequence[planned, 1], memory.sequence[planned, 1])
    _, none = ahead(FreeBudget(0))
    assert none == Spent()


def test_the_seed_and_the_tick_choose_the_noise(bundle: Bundle) -> None:
    def stakes(**more: Any) -> bytes:
        return make(bundle, budget=First(1), **more).memory.stakes.tobytes()

    assert stakes() == stakes() != stakes(tick=8)


def test_an_empty_frame(bundle: Bundle) -> None:
    made = make(bundle, count=0)
    assert made.proposal.shape == (0, 2)
    assert made.spent == Spent()


def test_arguments_are_left_as_they_were(bundle: Bundle) -> None:
    memory = make(bundle).memory
    for array in memory.arrays().values():
        array.flags.writeable = False
    frame, posterior = scene(tick=8)
    for array in (frame.values, frame.applied, posterior.h, posterior.mean, posterior.std):
        array.flags.writeable = False
    made = plan(QUICK, bundle, posterior, frame, memory, FreeBudget(), SEED)
    assert (made.mode == Mode.PLAN).all()


def test_closed_loop_robots_reach_their_goal(bundle: Bundle) -> None:
    """Plan, gate and world together: planned every third tick, everyone arrives and stays."""
    world = double_integrator()
    generator = np.random.default_rng(4)
    count = 6
    x = np.zeros((count, 6))
    x[:, :2], x[:, 4:] = generator.uniform(-3, 3, (count, 2)), generator.uniform(-3, 3, (count, 2))
    memory, applied = PlannerMemory.fresh(PATIENT, count), np.full((count, 2), np.nan)
    h = np.zeros((count, 6), np.float32)
    z = np.zeros((count, 2), np.float32)
    modes: list[npt.NDArray[np.uint8]] = []
    for tick in range(150):
        frame = make_frame(PATIENT, x, tick=tick, applied=applied)
        obs = x.astype(np.float32)
        action = np.nan_to_num(applied).astype(np.float32)
        posterior = bundle.believe(h, z, action, obs, np.ones_like(obs))
        h = posterior.h
        made = plan(PATIENT, bundle, posterior, frame, memory, First(1), SEED)
        gated = gate(
            PATIENT, made.proposal, made.fallback, frame, applied, made.uncertainty, mode=made.mode
        )
        memory = made.memory.after_gate(gated.reasons != 0, made.memory.latch)
        applied = gated.action
        modes.append(gated.mode)
        x = x @ world.transition + applied @ world.control
    assert np.linalg.norm(x[:, :2] - x[:, 4:], axis=1).max() < 0.5
    shares = np.bincount(np.concatenate(modes), minlength=8) / (150 * count)
    assert shares[Mode.PLAN] == pytest.approx(1 / 3)
    assert shares[Mode.FOLLOW] > 0.5


def test_a_plan_is_held_against_what_the_actor_would_do(bundle: Bundle) -> None:
    frame, _ = scene()
    draft = Draft.begin(QUICK, frame, PlannerMemory.fresh(QUICK, 5))
    draft.actor = np.full((5, 2), 0.25)
    assert draft.start(np.arange(5), 8).rivals == 1
    draft.driven = np.random.default_rng(1).uniform(-1, 1, (5, 10, 2))
    start = draft.start(np.array([3, 1]), 8)
    assert start.rivals == 2
    np.testing.assert_array_equal(start.guesses[:, -2], draft.driven[[3, 1], :8])
    np.testing.assert_array_equal(start.guesses[:, -1], draft.driven[[3, 1], :8])  # no plan yet


@pytest.mark.parametrize("candidates", [40, 300])
def test_what_the_actor_would_do_reaches_the_finals(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    """A drive to the best that can be found in many iterations is not given up for less."""
    slow = with_tiers(NAV, only=Tier(candidates=400, horizon=10, iterations=8))
    best = make(bundle, spec=slow)
    quick = with_tiers(NAV, only=Tier(candidates=candidates, horizon=10, iterations=1))
    without = make(bundle, spec=quick)
    after = best.memory.ahead(7, 10)[:, 1:]

    def drive(h: Any, z: Any, first: Any, noise: Any) -> Any:
        rows = np.resize(np.arange(5), (1, 5)).T
        return after[rows].transpose(2, 0, 1, 3).astype(np.float32)

    monkeypatch.setattr(Bundle, "drives", property(lambda _: True))
    monkeypatch.setattr(Bundle, "drive", lambda _, *inputs: drive(*inputs))
    monkeypatch.setattr("planner.plan.actor", lambda *_: best.proposal)
    led = make(bundle, spec=quick)
    assert (led.returned[:, 0] >= without.returned[:, 0] - 1e-3).all()
    assert led.returned[:, 0].sum() > without.returned[:, 0].sum() + 0.01
