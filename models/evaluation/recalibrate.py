"""Predicted spreads made honest: conformal factors fitted on one part, judged on the other."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation.foresee import LEVELS, Foreseen
from models.evaluation.scores import average, clustered_error
from planner.conformal import (
    NARROW,
    conformal_factor,
    conformity,
    factors_at,
    stretched,
)
from planner.manifest import Recalibration

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ENOUGH = 40
"""Windows with a known truth, below which a factor stays 1: 19 are the least for 95 %."""
BAR = 0.03
"""How far coverage may be from its level."""
TOLD = (0.5, 0.8, 0.95)
"""Of the levels, those that summaries name."""


@dataclass(frozen=True)
class Coverage:
    """Shares and widths of L levels, T horizons and C channels.

    Attributes:
        share: `[L, T, C]` of truths within; width: `[L, T, C]` mean, raw units.
        error: `[L, T, C]` standard error of `share`, windows of one block being alike.
        least: `[T, C]` share that no interval can go below: truths that are the median itself.
    """

    share: F64
    width: F64
    error: F64
    least: F64

    def gap(self) -> F64:
        """`[L, T, C]` coverage minus level, as far as an interval could have it otherwise."""
        level = np.array(LEVELS)[:, None, None]
        return np.asarray(self.share - np.maximum(level, np.minimum(self.least, self.share)))


def fit(
    foreseen: Foreseen, fitting: Bools, horizons: tuple[int, ...], columns: int
) -> Recalibration | None:
    """The factors from the windows `fitting` `[B]`; None where they are too few.

    Args:
        columns: O; those that are not judged (context) keep 1.
    """
    table = np.ones((len(LEVELS), len(horizons), columns))
    fitted = False
    for k, horizon in enumerate(horizons):
        found = _scores(foreseen, horizon - 1)[:, fitting]
        for c in range(len(foreseen.names) - 1):  # the reward is no column of a bundle
            known = ~np.isnan(found[0, :, c])
            if known.sum() < ENOUGH:
                continue
            fitted = True
            for i, level in enumerate(LEVELS):
                table[i, k, c] = conformal_factor(found[i, known, c], level)
    if not fitted:
        return None
    factors = tuple(tuple(tuple(_short(x) for x in row) for row in level) for level in table)
    return Recalibration(LEVELS, horizons, factors, int(fitting.sum()))


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _scores(foreseen: Foreseen, tick: int) -> F64:
    """`[L, B, C]` the conformity scores of one tick."""
    median = foreseen.median[tick]
    ends = foreseen.low[:, tick], foreseen.high[:, tick]
    return conformity(foreseen.truth[tick], median, *ends, foreseen.scale)


def judge(
    foreseen: Foreseen,
    judged: Bools,
    block: npt.NDArray[np.int64],
    recalibration: Recalibration | None = None,
) -> Coverage:
    """The coverage on the windows `judged` `[B]`, as predicted or recalibrated (reward: never)."""
    held, width, least = [], [], []
    for t in range(foreseen.ticks):
        low, high = intervals(foreseen, t, recalibration)
        truth = foreseen.truth[t]
        reach = 1e-6 * foreseen.scale
        inside = (truth >= low - reach) & (truth <= high + reach)
        held.append(np.where(np.isnan(truth), np.nan, inside)[:, judged])
        width.append(np.where(np.isnan(truth), np.nan, high - low)[:, judged])
        same = np.abs(truth - foreseen.median[t]) <= NARROW * foreseen.scale
        least.append(np.where(np.isnan(truth), np.nan, same)[judged])
    inside = np.stack(held, 1)
    error = [[clustered_error(x, block[judged]) for x in level] for level in inside]
    share, wide = average(inside, 2), average(np.stack(width, 1), 2)
    return Coverage(share, wide, np.array(error), average(np.stack(least), 1))


def intervals(
    foreseen: Foreseen, tick: int, recalibration: Recalibration | None
) -> tuple[F64, F64]:
    """`[L, B, C]` lower and upper ends of one tick (0 is the first), recalibrated where given."""
    low, high = foreseen.low[:, tick], foreseen.high[:, tick]
    if recalibration is None:
        return low.astype(np.float64), high.astype(np.float64)
    channels = len(foreseen.names)
    factor = np.ones((len(LEVELS), 1, channels))
    known = factors_at(recalibration, tick + 1)
    at = [recalibration.levels.index(level) for level in LEVELS]
    factor[:, 0, :-1] = known[at][:, : channels - 1]
    return stretched(foreseen.median[tick], low, high, factor, foreseen.scale)


def rounded(value: float) -> float | None:
    """Four digits for JSON; None where it is no number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
