"""Scores of sampled futures beside what happened: pure NumPy, one tick or all, NaN where unknown.

S samples, B windows, C columns. Samples are ordered along their first axis. Where a truth is NaN so
is its score, and `average` leaves it out.
"""

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
BINS = 10
"""Of a PIT histogram."""


def average(values: Floats, axis: int = 0) -> F64:
    """Mean of what is not NaN, NaN where nothing is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / known.sum(axis))


def crps(ordered: Floats, truth: Floats) -> F64:
    """`[B, C]` continuous ranked probability score, raw units, smaller is better.

    The fair estimate (Ferro 2014): E|X - y| - E|X - X'| / 2 without bias by the number of samples,
    the second part by order statistics instead of all pairs.
    """
    count = len(ordered)
    weights = (2.0 * np.arange(1, count + 1) - count - 1) / (count * (count - 1))
    spread = np.tensordot(weights, ordered.astype(np.float64), axes=1)
    return np.asarray(np.abs(ordered - truth).mean(0, dtype=np.float64) - spread)


def gaussian_nll(mean: F64, std: F64, truth: Floats, scale: F64) -> F64:
    """Negative log likelihood in nats under a normal of the samples' mean and spread.

    Of the value in units of `scale` `[C]`, so that columns compare; spreads below a thousandth of
    the scale count as that, else a constant column's score would be without bound.
    """
    std = np.maximum(std, 1e-3 * scale)
    return np.asarray(
        0.5 * np.log(2 * np.pi) + np.log(std / scale) + 0.5 * ((truth - mean) / std) ** 2
    )


def pit(ordered: Floats, truth: Floats, rng: np.random.Generator) -> F64:
    """`[B, C]` probability integral transform: uniform on [0, 1] where spreads are honest.

    By rank among the samples; ties (a share that is 0, an integer) are broken at random, as PIT of
    discrete predictions must be (Czado, Gneiting and Held 2009).
    """
    below, ties = (ordered < truth).sum(0), (ordered == truth).sum(0)
    place = below + rng.random(truth.shape) * (ties + 1)
    return np.where(np.isnan(truth), np.nan, place / (len(ordered) + 1))


def histogram(values: F64, bins: int = BINS) -> F64:
    """`[bins, C]` share of `[B, C]` PIT values in each bin, times `bins`: 1 where uniform."""
    place = np.where(np.isnan(values), -1, np.minimum(values * bins, bins - 1)).astype(np.int64)
    counts = np.stack([(place == b).sum(0) for b in range(bins)]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(bins * counts / counts.sum(0))


def clustered_error(values: F64, block: npt.NDArray[np.int64]) -> F64:
    """`[C]` standard error of the average of `[B, C]`, rows of a block (`[B]`) being alike."""
    known = ~np.isnan(values)
    off = np.where(known, values - average(values), 0.0)
    _, number = np.unique(block, return_inverse=True)
    sums = np.zeros((number.max() + 1, values.shape[1]))
    np.add.at(sums, number, off)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt((sums**2).sum(0)) / known.sum(0))


def auroc(score: F64, label: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative (ties half); NaN without either."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return float("nan")
    _, number, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2.0  # mean rank among equals
    total = rank[number][label].sum() - positives * (positives + 1) / 2
    return float(total / (positives * negatives))


def brier(probability: F64, label: npt.NDArray[np.bool_]) -> float:
    """Mean squared error of probabilities."""
    return float(np.mean((probability - label) ** 2))


def log_loss(probability: F64, label: npt.NDArray[np.bool_], least: float = 1e-4) -> float:
    """Mean negative log likelihood in nats, of probabilities no nearer to 0 and 1 than `least`."""
    p = np.clip(probability, least, 1 - least)
    return float(-np.mean(np.where(label, np.log(p), np.log(1 - p))))
