"""A watched search is the search: the same bits, and an account that says what it did."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from planner.account import account
from planner.budget import FreeBudget
from planner.draft import Draft, Plan
from planner.memory import PlannerMemory
from planner.plan import plan, plan_ahead
from planner.planners import PLANNERS
from planner.session import Bundle, Posterior
from planner.watch import Watch
from schemas.frames import Frame
from schemas.spec_parts import Tier
from schemas.system import SystemSpec
from tests.planner.worlds import double_integrator, edited, make_bundle, make_frame, with_tiers

BASE = edited("nav2d")


def tiers(planner: str = "icem") -> SystemSpec:
    return with_tiers(
        BASE,
        narrow=Tier(candidates=12, horizon=4, iterations=1, planner=planner),
        wide=Tier(candidates=130, horizon=6, iterations=3, planner=planner),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = double_integrator(noise=0.05, gains=(0.8, 0.9, 1.0, 1.1, 1.2))
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(BASE.columns)}
    folder = tmp_path_factory.mktemp("bundle")
    return make_bundle(folder, BASE, world, calibration=calibration)


def begun(bundle: Bundle, spec: SystemSpec) -> tuple[Frame, Posterior, PlannerMemory]:
    rng = np.random.default_rng(3)
    frame = make_frame(spec, rng.uniform(-4, 4, (4, 6)), tick=7, applied=np.zeros((4, 2)))
    h = frame.values.astype(np.float32)
    z = np.zeros((4, bundle.latent), np.float32)
    posterior = Posterior(h, z, z + 1, np.zeros(4, np.float32))
    return frame, posterior, PlannerMemory.fresh(spec, 4)


def equal(a: Plan, b: Plan) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Plan)]
    arrays = [p for p in pairs if isinstance(p[0], np.ndarray)]
    arrays += list(zip(a.memory.arrays().values(), b.memory.arrays().values(), strict=True))
    return a.spent == b.spent and all(x.tobytes() == y.tobytes() for x, y in arrays)


@pytest.mark.parametrize("planner", sorted(PLANNERS))
def test_a_watched_plan_is_equal_to_the_last_bit(bundle: Bundle, planner: str) -> None:
    spec, watch = tiers(planner), Watch()
    frame, posterior, memory = begun(bundle, spec)
    plain = plan(spec, bundle, posterior, frame, memory, FreeBudget(), 5)
    seen = plan(spec, bundle, posterior, frame, memory, FreeBudget(), 5, planners=watch.planners)
    assert equal(plain, seen)
    assert [s.tier.candidates for s in watch.searches] == [12, 130]
    for row in range(4):
        told = [account(spec, search, row) for search in watch.of(row)]
        assert [(one.tier, one.planner) for one in told] == [("narrow", planner), ("wide", planner)]
        assert [len(one.iterations) for one in told] == [1, 3]
        last = told[-1]
        assert last.answer.sequence.tobytes() == seen.memory.sequence[row, :6].tobytes()
        assert np.float32(last.answer.returned) == seen.returned[row, 0]
        assert last.answer.quantiles.astype(np.float32).tolist() == seen.returned[row, 1:].tolist()
        # The finals begin with the mean and the best elite of the last population.
        elite = last.iterations[-1].elites[0]
        assert last.finalists[1].sequence[0].tolist() == elite.action.tolist()


def test_ahead_is_told_from_now_and_all_begins_with_what_was_issued(bundle: Bundle) -> None:
    spec, watch = tiers(), Watch()
    frame, posterior, memory = begun(bundle, spec)
    made = plan(spec, bundle, posterior, frame, memory, FreeBudget(1), 5, planners=watch.planners)
    issued = made.proposal
    plain = plan_ahead(spec, bundle, posterior, frame, made, issued, FreeBudget(), 5)
    watched = plan_ahead(
        spec, bundle, posterior, frame, made, issued, FreeBudget(), 5, planners=watch.planners
    )
    for name, array in plain[0].arrays().items():
        assert array.tobytes() == watched[0].arrays()[name].tobytes(), name
    assert [search.ahead for search in watch.searches] == [False, False, True, True]
    told = account(spec, watch.of(2)[-1], 2, age=1)
    assert told.ahead
    assert told.answer.sequence[0].tolist() == issued[2].tolist()
    assert told.answer.sequence.tobytes() == watched[0].sequence[2, :6].tobytes()
    assert told.step == 1
    assert len({tuple(a) for a in told.iterations[0].actions.tolist()}) > 50, "no longer issued"


@pytest.mark.parametrize("drives", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
def test_guesses_are_named_as_they_stand(bundle: Bundle, drives: bool, trusted: bool) -> None:
    spec = tiers()
    frame, _, memory = begun(bundle, spec)
    draft = Draft.begin(spec, frame, memory)
    draft.fallback[:] = 0.25
    if trusted:
        draft.actor = np.full((4, 2), 0.5)
        draft.driven = np.full((4, 6, 2), 0.5) if drives else None
    draft.memory.length[:], draft.memory.planned_at[:] = 6, 6
    draft.memory.sequence[:] = 0.75
    start = draft.start(np.arange(4), 6)
    names = Draft.guess_names(start.guesses.shape[1], start.rivals)
    wanted = {
        "the value in force": [0.0, 0.0],
        "the fallback": [0.25, 0.25],
        "the actor": [0.5, 0.5],
        "the actor now, then the last plan": [0.5, 0.75],
        "the last plan": [0.75, 0.75],
    }
    found = [sequence[:2, 0].tolist() for sequence in start.guesses[0]]
    assert [wanted[name] for name in names] == found
    assert len(found) == (5 if trusted else 3)
