"""Why a candidate was no elite, and a finalist not chosen: each reason where it applies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from planner.account import Account, account
from planner.imagine import Imagination, Verdict
from planner.objective import HARD_COST, Worth
from planner.search import Start
from planner.session import Bundle, Posterior
from planner.watch import Finals, Overheard, Population, Watched
from schemas.spec_parts import Risk, Tier
from tests.planner.worlds import MEMBERS, double_integrator, edited, make_bundle, with_tiers

SPEC = edited("nav2d")
TIER = Tier(candidates=20, horizon=2, iterations=1, elites=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"), SPEC, double_integrator())


def told(
    bundle: Bundle,
    returned: list[float],
    hard: list[float],
    finals: list[list[float]],
    final_hard: list[float] | None = None,
    *,
    budget: dict[str, Any] | None = None,
    rivals: int = 1,
    apart: float = 1.0,
) -> Account:
    """The account of one entity's search whose numbers are given.

    finals: a return for each member, of each finalist;  apart: how far their sequences are.
    """
    spec = with_tiers(SPEC, only=TIER)
    changed = spec.budget.model_copy(update=budget or {})
    spec = spec.model_copy(update={"budget": changed})
    nothing = np.zeros((1, 6), np.float32)
    posterior = Posterior(nothing, nothing, nothing, nothing[:, 0])
    heard = Overheard(Imagination(spec, bundle, posterior, 0))
    count, samples = len(returned), np.array([finals])
    candidates = np.arange(count * 4, dtype=float).reshape(1, count, 2, 2)
    worth = Worth(np.array([returned]), np.array([hard]))
    heard.populations.append(Population(candidates, worth, 1))
    broken = np.array([final_hard or [0.0] * len(finals)])
    score = samples.mean(axis=2) - HARD_COST * broken
    channels = np.zeros((2, MEMBERS, 1, len(finals), 1, 6), np.float32)
    finalists = np.arange(len(finals) * 4, dtype=float).reshape(1, -1, 2, 2) * apart
    heard.finals.append(Finals(finalists, Verdict(samples, score, channels)))
    guesses = np.zeros((1, 5, 2, 2))
    start = Start(np.array([0]), np.zeros((1, 2)), guesses, rivals=rivals)
    return account(spec, Watched(spec.budget.tiers["only"], start, heard), 0)


def even(values: list[float]) -> list[list[float]]:
    return [[value] * MEMBERS for value in values]


def test_candidates_are_rejected_for_return_luck_constraints_and_no_number(
    bundle: Bundle,
) -> None:
    # Candidate c lives under member c mod 5: 0, 5, 10 and 15 are companions.
    returned = np.full(20, -9.0)
    returned[[1, 6, 11, 16]] = [5.0, 5.0, 5.0, 5.5]  # member 1 is kind to all
    returned[[2, 3]] = [0.0, 1.0]  # the two elites: far ahead of their companions
    returned[4] = -5.0  # the next best
    returned[7] = 6.0  # breaks a hard constraint
    returned[8] = np.nan
    hard = np.zeros(20)
    hard[7] = 1.5
    one = told(bundle, returned.tolist(), hard.tolist(), even([1.0, 2.0, 3.0])).iterations[0]
    assert [c.returned for c in one.elites] == [1.0, 0.0]
    assert all(c.elite and not c.why for c in one.elites)
    reasons = {c.returned: c.why for c in one.rejected}
    # The last elite is 9 ahead of the median of its companions, and this one 4 of its own.
    assert reasons[-5.0] == "less ahead of its companions than the last elite, by 5"
    assert reasons[5.5].startswith("luck")
    assert reasons[6.0] == "breaks hard constraints more: 1.5 ticks against 0", "the highest return"
    assert (one.candidates, one.hard, one.broken) == (20, 1, 1)
    assert one.elites[0].action.tolist() == [12.0, 13.0], "candidate 3's first"
    assert one.elites[0].member == 3


def test_a_candidate_without_a_number_says_so(bundle: Bundle) -> None:
    returned = [1.0, 2.0, np.nan, np.nan, np.nan]
    rejected = told(bundle, returned, [0.0] * 5, even([1.0, 2.0, 3.0])).iterations[0].rejected
    assert [c.why for c in rejected] == ["its return is not a number"] * 3


def test_finalists_lose_by_return_and_constraints(bundle: Bundle) -> None:
    found = told(bundle, [0.0] * 5, [0.0] * 5, even([3.0, 9.0, 2.5, 3.0]), [0.0, 2.0, 0.0, 0.0])
    assert [one.chosen for one in found.finalists] == [True, False, False, False]
    assert [one.why for one in found.finalists] == [
        "",
        "breaks hard constraints more: 2 ticks against 0",
        "lower return, by 0.5",
        "just as good, and came later",
    ]
    assert found.answer.name == "the mean of the elites"
    assert [one.name for one in found.finalists[2:]] == [
        "the actor now, then the last plan",
        "the last plan",
    ]
    second = found.second
    assert second is not None
    assert second.name == "the last plan"


def test_finalists_lose_by_risk_and_by_doubt(bundle: Bundle) -> None:
    bold = [10.0, 10.0, 10.0, 10.0, -20.0]  # mean 4, at worst -20
    finals: npt.NDArray[np.float64] = np.array([bold, *even([3.0, 2.0, 1.0])])
    feared = told(bundle, [0.0] * 5, [0.0] * 5, finals.tolist(), budget={"risk": Risk(tail=0.2)})
    assert feared.answer.returned == 3.0
    assert feared.finalists[0].why.startswith("risk")
    careful = told(bundle, [0.0] * 5, [0.0] * 5, finals.tolist(), budget={"caution": 2.0}, rivals=2)
    assert careful.answer.name == "the best elite", "sure of its gain over the actor's way"
    assert careful.finalists[0].why.startswith("doubted")
    assert told(bundle, [0.0] * 5, [0.0] * 5, finals.tolist()).answer.returned == 4.0


def test_where_all_finalists_are_one_there_is_no_second(bundle: Bundle) -> None:
    found = told(bundle, [0.0] * 5, [0.0] * 5, even([1.0] * 3), apart=0.0)
    assert [one.why for one in found.finalists] == ["", "the same sequence", "the same sequence"]
    assert found.second is None
