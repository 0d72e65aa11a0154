"""How sequences are compared: fairly among candidates, and with what risk among finalists."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from planner.imagine import Imagination, Verdict, disagreement
from schemas.spec_parts import BudgetSpec, Risk

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


def judged(
    verdict: Verdict, budget: BudgetSpec, imagination: Imagination, returned: F64, rivals: int
) -> tuple[F64, npt.NDArray[np.bool_] | None]:
    """[E,F] what finalists are chosen by, and which of them are doubted; None where nobody asks.

    Args:
        verdict: the finalists under all members and noise;  returned: [E,F] their mean return.
        budget: its risk and caution.
        imagination: members, and a unit for their disagreement.
        rivals: of the start; with two, the last finalist but one is what the actor leads.
    """
    score = risky(verdict, budget.risk, imagination.scale)
    if not budget.caution or rivals < 2:
        return score, None
    led, hard = score.shape[1] - 2, returned - verdict.score
    doubted = doubtful(verdict.samples, hard, led, imagination.members, budget.caution)
    return np.where(doubted, -np.inf, score), doubted


def best_of(score: F64, count: int) -> Index:
    """[E,K] the `count` best of `score` [E,C], the best first; ties in their order."""
    return np.argsort(-score, axis=1, kind="stable")[:, :count]


def risky(verdict: Verdict, risk: Risk, scale: F32) -> F64:
    """[E,F] what finalists are chosen by: their mean return, less what the spec fears.

    Over the returns under all members and noise: the mean of the worst share `tail` of them alone
    (conditional value at risk, Rockafellar and Uryasev 2000), less `spread` standard deviations,
    less `disagreement` times what the members are apart, `scale` [O] being a unit of it. Hard
    constraints rank before all of these.
    """
    if risk == Risk():
        return verdict.score
    samples = verdict.samples
    mean = samples.mean(axis=2)
    count = max(1, round(risk.tail * samples.shape[2]))
    worth = np.sort(samples, axis=2)[:, :, :count].mean(axis=2)
    worth -= risk.spread * samples.std(axis=2)
    if risk.disagreement:
        steps, members, entities, finalists, *rest = verdict.channels.shape
        flat = verdict.channels.reshape(steps, members, entities * finalists, *rest)
        apart = disagreement(flat, scale).reshape(entities, finalists)
        worth -= risk.disagreement * apart
    worth -= mean - verdict.score
    return np.where(np.isfinite(worth), worth, -np.inf)


def doubtful(
    samples: F64, hard: F64, led: int, members: int, caution: float
) -> npt.NDArray[np.bool_]:
    """[E,F] whose gain over finalist `led` is at most `caution` of its spread among the members.

    All finalists share members and noise, so what is compared is paired; what most members doubt
    is often an error of one of them that the search has found. Who breaks fewer hard constraints
    is never doubted: no return is worth one.

    Args:
        samples: [E,F,M·D] returns;  hard: [E,F] what hard constraints cost;  led: the finalist that
            the actor leads.
    """
    by_member = samples.reshape(*samples.shape[:2], members, -1).mean(axis=3)
    gain = by_member - by_member[:, led : led + 1]
    out = gain.mean(axis=2) <= caution * gain.std(axis=2)
    out &= ~(hard < hard[:, led : led + 1])
    out[:, led] = False
    return np.asarray(out)


def fair(score: F64, members: int, sequences: int) -> F64:
    """[E,C] scores less what member and noise sequence add to all that share them.

    A candidate is rolled out under one member and one noise sequence only. Its score is compared
    with the median of its companions there, else luck would be selected rather than actions: on a
    noisy test problem with asymmetric costs this cut the loss of a deep plan by a third.
    """
    out = score
    for stratum, place in _strata(score.shape[1], members, sequences):
        padded = np.concatenate([out, np.full((len(out), 1), np.inf)], axis=1)
        ordered = np.sort(padded[:, stratum], axis=2)
        count = (stratum < score.shape[1]).sum(axis=1)
        middle = ordered[:, np.arange(len(stratum)), count // 2]
        out = out - np.where(np.isfinite(middle), middle, 0.0)[:, place]
    return out


@lru_cache(maxsize=32)
def _strata(candidates: int, members: int, sequences: int) -> tuple[tuple[Index, Index], ...]:
    """Who shares a member, and who a noise sequence, as `Imagination.returns` deals them out.

    Each is an index [groups, largest], short groups filled up with `candidates`, and the group
    [candidates] of each candidate.
    """
    every = np.arange(candidates)
    dealt = []
    for place in (every % members, every // members % sequences):
        groups = [np.flatnonzero(place == group) for group in range(place.max() + 1)]
        stratum = np.full((len(groups), max(map(len, groups))), candidates)
        for row, group in zip(stratum, groups, strict=True):
            row[: len(group)] = group
        dealt.append((stratum, place))
    return tuple(dealt)
