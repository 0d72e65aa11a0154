"""Who is planned first, and in which groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from planner import schedule
from planner.memory import PlannerMemory
from schemas.frames import ControlView
from schemas.spec_parts import Tier
from schemas.system import load_spec
from tests.planner.worlds import make_frame

NAV = load_spec("nav2d")
F64 = npt.NDArray[np.float64]
FIVE = PlannerMemory.fresh(NAV, 5)


def need(memory: PlannerMemory, innovation: object = None, tick: int = 10) -> F64:
    given = np.zeros(len(memory.stakes)) if innovation is None else np.asarray(innovation, float)
    return schedule.need(NAV, memory, given, 2.0, tick)


def planned(ages: list[int]) -> PlannerMemory:
    return replace(
        FIVE,
        planned_at=10 - np.array(ages, dtype=np.int64),
        length=np.full(5, 20, dtype=np.int32),
    )


def test_each_term_alone_decides() -> None:
    base = planned([4, 4, 4, 4, 4])
    third = np.arange(5) == 2
    cases = [
        need(planned([4, 4, 9, 4, 4])),
        need(base, [0.0, np.nan, 1.5, 0.1, 0.0]),
        need(replace(base, uncertainty=np.where(third, 0.4, 0.1))),
        need(replace(base, gated=third)),
        need(replace(base, stakes=np.where(third, 7.0, 1.0))),
    ]
    for urgency in cases:
        assert urgency.argmax() == 2
        assert (np.delete(urgency, 2) < urgency[2]).all()


def test_terms_have_comparable_size() -> None:
    """A horizon of age, the band, the gate's limit, a gated proposal and the top stakes: 1 each."""
    base = need(planned([0] * 5))[0]
    assert need(planned([20] * 5))[0] - base == 1.0
    assert need(planned([0] * 5), [2.0] * 5)[0] - base == 1.0
    assert need(replace(planned([0] * 5), uncertainty=np.full(5, 0.5)))[0] - base == 1.0
    assert need(replace(planned([0] * 5), gated=np.ones(5, bool)))[0] - base == 1.0
    assert need(replace(planned([0] * 5), stakes=np.full(5, 3.0)))[0] - base == 1.0


def test_who_has_no_plan_comes_first_and_nobody_starves() -> None:
    memory = planned([4] * 5)
    never = memory.planned_at.copy()
    never[3] = FIVE.planned_at[0]
    assert need(replace(memory, planned_at=never), [9.0] * 5).argmax() == 3
    waited = replace(planned([400, 1, 1, 1, 1]), stakes=np.array([0.0, 9, 9, 9, 9]))
    assert need(waited, [0, 1e9, 1e9, 1e9, np.inf], tick=10).argmax() == 0


def test_ranking_is_stable_and_leaves_out_who_is_not_allowed() -> None:
    urgency = np.array([1.0, 3.0, 1.0, 3.0, 2.0])
    assert schedule.ranked(urgency, np.ones(5, bool)).tolist() == [1, 3, 4, 0, 2]
    assert schedule.ranked(urgency, np.array([1, 0, 1, 1, 0], bool)).tolist() == [3, 0, 2]


def test_operators_entities_are_not_planned() -> None:
    control = ControlView(holds=("e001",), overrides={"e002": {"acceleration[0]": 0.0}})
    frame = make_frame(NAV, np.zeros((4, 6)), control=control)
    believed = np.array([True, True, True, False])
    assert schedule.plannable(frame, believed).tolist() == [True, False, False, False]


def test_a_call_is_bounded_and_holds_at_least_one() -> None:
    assert schedule.most(Tier(candidates=100, horizon=16, iterations=1)) == 5
    assert schedule.most(Tier(candidates=5000, horizon=3, iterations=1)) == 1
    assert schedule.most(Tier(candidates=100, horizon=16, iterations=1), "cuda") == 50


def test_an_operator_may_name_the_deepest_tier() -> None:
    assert len(schedule.tiers(NAV, None)) == 2
    assert schedule.tiers(NAV, "shallow") == [NAV.budget.tiers["shallow"]]
    assert len(schedule.tiers(NAV, "deep")) == 2
    assert len(schedule.tiers(NAV, "unknown")) == 2
