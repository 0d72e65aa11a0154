"""How well one order tells of another: AUROC, and the rank correlations of Spearman and Kendall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

F64 = npt.NDArray[np.float64]


def ranks(values: F64) -> F64:
    """`[n]` ranks from 1 on; ties share the mean of theirs."""
    return pl.Series(values).rank("average").to_numpy().astype(np.float64)


def auroc(usual: F64, changed: F64) -> float:
    """Chance that a score of `changed` is above one of `usual`, ties counting half.

    The area under the receiver operating characteristic, by the ranks of Mann and Whitney (1947);
    scores that are no numbers are left out, NaN where none are left.
    """
    usual, changed = usual[np.isfinite(usual)], changed[np.isfinite(changed)]
    if not len(usual) or not len(changed):
        return float("nan")
    above = ranks(np.concatenate([usual, changed]))[len(usual) :].sum()
    lowest = len(changed) * (len(changed) + 1) / 2
    return float((above - lowest) / (len(usual) * len(changed)))


def correlation(x: F64, y: F64) -> float:
    """Pearson's; NaN where there are fewer than three pairs, or one of both never changes."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 3:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def spearman(x: F64, y: F64) -> float:
    """The rank correlation of pairs of numbers `[n]`; NaN as in `correlation`."""
    known = np.isfinite(x) & np.isfinite(y)
    return correlation(ranks(x[known]), ranks(y[known]))


def kendall(x: F64, y: F64) -> F64:
    """`[groups]` Kendall's tau-b of x and y `[groups, n]` in each group; NaN where all are tied."""
    first, second = np.triu_indices(x.shape[1], 1)
    a = np.sign(x[:, first] - x[:, second])
    b = np.sign(y[:, first] - y[:, second])
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(axis=1) / scale)
