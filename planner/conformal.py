"""Intervals that hold what they promise: stretched by factors learned from past misses.

Predictions are central intervals of sampled futures. The *conformity score* of a truth is its
distance from the median in half-widths of the interval on its side, so an interval that is
stretched about its median by a factor holds exactly the truths whose score is at most that factor,
and stays wide where the model is unsure and narrow where it is sure. A factor is fixed (split
conformal, Vovk et al. 2005; the scores are those of CQR, Romano, Patterson and Candès 2019, in the
scaled form of Sesia and Candès 2020, "CQR-m"), or follows the misses while it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from planner.manifest import Recalibration

F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]

NARROW = 1e-3
"""Share of a column's scale that is added to every half-width: futures that all agree are no proof,
and a distance cannot be divided by zero."""


def quantiles(ordered: Floats, shares: F64) -> F64:
    """`[Q, ...]` the `shares` `[Q]` quantiles of `[S, ...]` samples ordered along their first axis.

    The q-quantile has rank q (S + 1) (Weibull 1939), so that for a perfect model as many truths as
    promised fall below it; beyond the outermost samples it is these.
    """
    count = len(ordered)
    rank = np.clip(shares * (count + 1) - 1, 0, count - 1)
    below = np.floor(rank).astype(np.int64)
    share = (rank - below).reshape(-1, *[1] * (ordered.ndim - 1))
    lower, upper = ordered[below], ordered[np.minimum(below + 1, count - 1)]
    return np.asarray(lower + share * (upper.astype(np.float64) - lower))


def conformity(truth: Floats, median: Floats, low: Floats, high: Floats, scale: Floats) -> F64:
    """Distance of truths from the median, in half-widths; NaN where something is not known.

    All arrays broadcast; `scale` is the typical spread of the columns in raw units.
    """
    half = np.where(truth < median, median - low, high - median) + NARROW * scale
    return np.asarray(np.abs(truth - median) / half, dtype=np.float64)


def stretched(
    median: Floats, low: Floats, high: Floats, factor: Floats, scale: Floats
) -> tuple[F64, F64]:
    """Lower and upper end of the intervals that hold all truths with a `conformity` <= `factor`."""
    margin = NARROW * scale
    lower = median - factor * (median - low + margin)
    upper = median + factor * (high - median + margin)
    return np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)


def conformal_factor(scores: F64, level: float) -> float:
    """The factor with which the next interval holds with a probability of at least `level`.

    That is the ceil((n + 1) level)-th smallest of `[n]` scores; infinite where n is too small to
    say. It holds for scores that are exchangeable with the next.
    """
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


def factors_at(recalibration: Recalibration, horizon: float) -> F64:
    """`[L, O]` the factors `horizon` ticks ahead, linear between the horizons that were fitted."""
    known = np.asarray(recalibration.horizons, dtype=np.float64)
    table = np.asarray(recalibration.factors, dtype=np.float64)
    place = np.interp(horizon, known, np.arange(len(known)))
    below = min(int(place), len(known) - 1)
    above = min(below + 1, len(known) - 1)
    return np.asarray(table[:, below] + (place - below) * (table[:, above] - table[:, below]))


ALONE, TOGETHER = 0.2, 1.0
"""Rates of a factor that one entity has for itself, and the greatest of one that many share."""


def rate_for(entities: int) -> float:
    """The rate at which a factor that so many entities share follows drift.

    The share of E that miss scatters by 1 / √E around its mean, so a rate that grows by √E leaves
    the factor as steady. Beyond `TOGETHER` it would overshoot: where spreads are Gaussian, a
    logarithm of 1 moves the coverage of 80 % by 0.45, which makes 2.2 the step that meets it.
    """
    return float(min(ALONE * math.sqrt(entities), TOGETHER))


LEAST = 1e-2
"""Below it no adaptive factor falls, so that one that had nothing to miss can still come back."""


@dataclass(frozen=True)
class AdaptiveFactor:
    """A factor that grows with every miss and shrinks with every hit, so coverage outlives drift.

    Quantile tracking: adaptive conformal inference (Gibbs and Candès 2021) in its later form, the
    proportional part of conformal PID control (Angelopoulos, Candès and Tibshirani 2023), here on
    the factor's logarithm, as nobody knows beforehand in which order of size it will have to be.
    Whatever the scores, while they stay below B: after T updates from the factor f the share of
    misses is at most 1 - level + (ln(max(B, f) / f) + rate) / (rate T). While they also stay above
    b >= LEAST exp(rate), it is at least 1 - level - (ln(f / min(b, f)) + rate) / (rate T).

    Attributes:
        factor: `[...]` one per stream (such as one per column), at least `LEAST`.
        level: share of truths that the intervals shall hold.
        rate: a miss, less what is allowed, moves the factor's logarithm by it. A larger one follows
            drift faster, and makes widths less steady.
    """

    factor: F64
    level: float
    rate: float

    @classmethod
    def begin(cls, factor: Floats, level: float, rate: float = ALONE) -> AdaptiveFactor:
        """Begins with a fixed factor, such as that of a `Recalibration`.

        Raises:
            ValueError: the level is no share, a factor no number, or the rate not above 0.
        """
        start = np.asarray(factor, dtype=np.float64)
        if not (0 < level < 1 and 0 < rate < math.inf and np.isfinite(start).all()):
            raise ValueError("level must lie between 0 and 1, rate above 0, factors be finite")
        return cls(np.maximum(start, LEAST), level, rate)

    def covers(self, scores: Floats) -> npt.NDArray[np.bool_]:
        """Whether the intervals of now hold truths with these `conformity` scores."""
        return np.asarray(scores <= self.factor)

    def after(self, scores: Floats) -> AdaptiveFactor:
        """What follows on seeing scores `[..., *streams]`; NaN says nothing.

        What stands before the axes of the streams (such as the entities of a cohort) shares a
        factor: the share that was missed counts as one update. k ticks ahead, the scores of an
        interval are known k ticks later, and then are given here.
        """
        rows = np.reshape(scores, (-1, *self.factor.shape))
        seen = ~np.isnan(rows)
        missed = (seen & ~self.covers(rows)).sum(0) / np.maximum(seen.sum(0), 1)
        moved = self.factor * np.exp(self.rate * (missed - (1 - self.level)))
        return replace(self, factor=np.where(seen.any(0), np.maximum(moved, LEAST), self.factor))
