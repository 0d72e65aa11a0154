"""What a search considered for one entity, and why it took what it took.

In a population each candidate is imagined under one member and one noise sequence only, and ranked
by how far it is ahead of those that share them; the finalists are judged under all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.draft import Draft
from planner.imagine import quantiles
from planner.judge import best_of, fair, judged
from planner.objective import HARD_COST
from planner.watch import Finals, Population, Watched
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
SHOWN = 5
"""Rejected candidates of a population that are told one by one."""


@dataclass(frozen=True)
class Candidate:
    """A sequence of a population.

    rank      0 is the best;  elite: whether the search moved towards it
    member    of the ensemble that it was imagined under
    action    [A] what it does at the tick asked about
    returned  predicted return under that member;  hard: discounted count of hard violations
    ahead     how far its score is ahead of the median of those that share its member and noise
    why       why it is no elite; empty for one that is
    """

    rank: int
    elite: bool
    member: int
    action: F64
    returned: float
    hard: float
    ahead: float
    why: str


@dataclass(frozen=True)
class Iteration:
    """One population: how many, how their returns are spread, the elites, the best rejected.

    returned  [3] the 10, 50 and 90 % quantiles of the finite returns
    hard      how many broke a hard constraint;  broken: of how many the return is no number
    actions   [C,A] of all at the tick asked about, in the order in which they were imagined
    returns   [C] theirs
    """

    candidates: int
    returned: F64
    hard: int
    broken: int
    elites: list[Candidate]
    rejected: list[Candidate]
    actions: F64
    returns: F64


@dataclass(frozen=True)
class Finalist:
    """A sequence [T,A] that was judged under all members and noise.

    returned  mean return and quantiles [3];  score: what it was chosen by, with the spec's risk and
    hard constraints in it;  why: why it was not chosen; empty for the one that was.
    """

    name: str
    chosen: bool
    sequence: F64
    returned: float
    quantiles: F64
    hard: float
    score: float
    why: str


@dataclass(frozen=True)
class Account:
    """A search for one entity; see the parts.

    `ahead`: made when its tick's actions were out, for the ticks to come. `step`: of its sequences,
    which stands for the tick asked about.
    """

    tier: str
    planner: str
    ahead: bool
    horizon: int
    step: int
    iterations: list[Iteration]
    finalists: list[Finalist]

    @property
    def answer(self) -> Finalist:
        """What the search gave."""
        return next(one for one in self.finalists if one.chosen)

    @property
    def second(self) -> Finalist | None:
        """The best finalist that is another sequence than the answer; None: all are the same."""
        others = [f for f in self.finalists if not np.array_equal(f.sequence, self.answer.sequence)]
        return max(others, key=lambda one: one.score, default=None)


def account(spec: SystemSpec, watched: Watched, row: int, age: int = 0) -> Account:
    """What `watched` considered for row `row` of the frame, which must be part of its group.

    age: ticks from the search to the tick asked about.
    """
    place = watched.place(row)
    assert place is not None
    tier, heard = watched.tier, watched.imagination
    step = min(age, tier.horizon - 1)
    populations = [
        _iteration(population, place, heard.members, tier.elite_count, step)
        for population in heard.populations
    ]
    names = (name for name, known in spec.budget.tiers.items() if known is tier)
    final = _finalists(spec, watched, heard.finals[-1], place)
    ahead, planner = watched.ahead, tier.planner
    return Account(next(names), planner, ahead, tier.horizon, step, populations, final)


def _iteration(
    population: Population, place: int, members: int, elites: int, step: int
) -> Iteration:
    worth = population.worth
    scores = fair(worth.score, members, population.sequences)
    order = best_of(scores, scores.shape[1])[place]
    returned, hard, score = worth.returned[place], worth.hard[place], scores[place]
    actions = population.candidates[place, :, step]
    least = order[:elites][-1]

    def told(rank: int) -> Candidate:
        one = int(order[rank])
        elite = rank < elites
        why = "" if elite else _why_no_elite(returned, hard, score, one, int(least))
        found = (float(returned[one]), float(hard[one]), float(score[one]))
        return Candidate(rank, elite, one % members, actions[one], *found, why)

    finite = returned[np.isfinite(returned)]
    return Iteration(
        candidates=len(order),
        returned=quantiles(finite) if len(finite) else np.full(3, np.nan),
        hard=int((hard > 0).sum()),
        broken=len(order) - len(finite),
        elites=[told(rank) for rank in range(min(elites, len(order)))],
        rejected=[told(rank) for rank in _shown(order, returned, elites)],
        actions=actions,
        returns=returned,
    )


def _shown(order: npt.NDArray[np.intp], returned: F64, elites: int) -> list[int]:
    """The ranks of the rejected that are told: the next best, and the one of the highest return."""
    next_best = list(range(elites, min(elites + SHOWN, len(order))))
    rest = np.nan_to_num(returned[order[elites:]], nan=-np.inf, posinf=-np.inf)
    highest = elites + int(rest.argmax()) if len(rest) else -1
    return next_best if highest in (*next_best, -1) else [*next_best[:-1], highest]


def _why_no_elite(returned: F64, hard: F64, score: F64, one: int, least: int) -> str:
    if not np.isfinite(score[one]):
        return "its return is not a number"
    if hard[one] > hard[least]:
        return f"breaks hard constraints more: {hard[one]:.3g} ticks against {hard[least]:.3g}"
    if returned[one] > returned[least]:
        return "luck: those that share its member and noise fared nearly as well"
    return f"less ahead of its companions than the last elite, by {score[least] - score[one]:.4g}"


def _finalists(spec: SystemSpec, watched: Watched, finals: Finals, place: int) -> list[Finalist]:
    verdict, start = finals.verdict, watched.start
    mean = verdict.samples.mean(axis=2)
    scores, doubts = judged(verdict, spec.budget, watched.imagination, mean, start.rivals)
    returned, score = mean[place], scores[place]
    hard = (mean - verdict.score)[place] / HARD_COST
    doubted = np.zeros(len(score), bool) if doubts is None else doubts[place]
    best = int(np.argmax(score))
    found = finals.finalists[place]
    names = _names(watched, finals.finalists.shape[1])
    return [
        Finalist(
            name=name,
            chosen=i == best,
            sequence=found[i],
            returned=float(returned[i]),
            quantiles=quantiles(verdict.samples[place, i]),
            hard=float(hard[i]),
            score=float(score[i]),
            why=""
            if i == best
            else "the same sequence"
            if np.array_equal(found[i], found[best])
            else _why_not(returned, hard, score, bool(doubted[i]), i, best),
        )
        for i, name in enumerate(names)
    ]


def _names(watched: Watched, count: int) -> list[str]:
    """Of finalists: mean, top elite, and the last guesses."""
    start = watched.start
    guesses = Draft.guess_names(start.guesses.shape[1], start.rivals)
    return ["the mean of the elites", "the best elite", *guesses[2 - count :]]


def _why_not(returned: F64, hard: F64, score: F64, doubted: bool, one: int, best: int) -> str:
    if doubted:
        return "doubted: its gain over the actor is within what members differ by (budget.caution)"
    if not np.isfinite(score[one]):
        return "its return is not a number"
    if hard[one] > hard[best]:
        return f"breaks hard constraints more: {hard[one]:.3g} ticks against {hard[best]:.3g}"
    if score[one] == score[best]:
        return "just as good, and came later"
    if returned[one] >= returned[best]:
        return "risk: a higher mean return, but worse where it goes badly (budget.risk)"
    return f"lower return, by {returned[best] - returned[one]:.4g}"
