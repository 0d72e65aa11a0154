"""What a bundle foresaw beside what came: sampled futures, summed up per tick, window and channel.

The channels that are judged are those that the spec observes (context is known, not predicted), and
the reward: by the spec's expression on the imagined channels where it has one, else by the head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation import scores
from models.evaluation.windows import WARM, Imagined, Windows, last_seen
from planner.conformal import quantiles
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Of central intervals, the share of truths that each shall hold."""
REWARD = "reward"


@dataclass(frozen=True)
class Foreseen:
    """T ticks, B windows, C channels with the reward last, L = `LEVELS`; raw units, float32.

    Attributes:
        names: of the C channels, scale: `[C]` typical spread of each.
        truth: `[T, B, C]`, NaN where not known; now: `[B, C]` the last value before the first tick.
        mean, median: `[T, B, C]` of the futures; low, high: `[L, T, B, C]` ends of the intervals.
        crps, nll, pit: `[T, B, C]` scores (`models.evaluation.scores`).
    """

    names: tuple[str, ...]
    scale: F64
    truth: F32
    now: F32
    mean: F32
    median: F32
    low: F32
    high: F32
    crps: F32
    nll: F32
    pit: F32

    @property
    def ticks(self) -> int:
        """T, the longest horizon."""
        return len(self.truth)

    @property
    def error(self) -> F32:
        """`[T, B, C]` mean of the futures minus truth."""
        return self.mean - self.truth

    @property
    def still(self) -> F32:
        """`[T, B, C]` the error of persistence: that all stays as it is now."""
        return self.now - self.truth


def expressed(
    spec: SystemSpec, channels: F32, context: F32, action: F32
) -> Mapping[str, npt.NDArray[np.float32]]:
    """The columns of expressions: imagined `[..., T, B, O]` beside context and action as they were.

    Args:
        context: `[T, B, X]` the known context columns, action: `[T, B, A]` as applied.
    """
    observed = len(spec.observed_columns)
    columns = {name: channels[..., i] for i, name in enumerate(spec.observed_columns)}
    columns |= {name: context[..., i] for i, name in enumerate(spec.columns[observed:])}
    return columns | {name: action[..., i] for i, name in enumerate(spec.action_columns)}


def columns_of(spec: SystemSpec, futures: Imagined, windows: Windows) -> Mapping[str, F32]:
    """The columns of all futures for the spec's expressions, each `[T, S, B]` or broadcast to it.

    Beyond the end of a window the context is as at its end: what is there is not judged.
    """
    observed = len(spec.observed_columns)
    context = np.moveaxis(np.nan_to_num(windows.obs[:, WARM:, observed:]), 1, 0)[:, None]
    action = np.moveaxis(windows.action[:, WARM:], 1, 0)[:, None]
    return expressed(spec, futures.channels, context, action)


def foresee(
    spec: SystemSpec, futures: Imagined, windows: Windows, scale: F64, rng: np.random.Generator
) -> Foreseen:
    """Sums up the `futures` of `windows`; `scale` `[C]` is the typical spread of the channels."""
    observed = len(spec.observed_columns)
    reward = futures.reward
    if spec.reward is not None:
        columns = columns_of(spec, futures, windows)
        reward = np.broadcast_to(spec.reward.numpy(columns), reward.shape)
    seen = np.concatenate([windows.obs[..., :observed], windows.reward[..., None]], -1)
    truth = np.moveaxis(seen[:, WARM:], 1, 0)
    rows = []
    for t in range(len(truth)):
        sampled = np.concatenate([futures.channels[t, ..., :observed], reward[t, ..., None]], -1)
        rows.append(_summed_up(np.sort(sampled, axis=0), truth[t], scale, rng))
    parts = (np.stack(part, axis=-3) for part in zip(*rows, strict=True))
    names = (*spec.observed_columns, REWARD)
    return Foreseen(names, scale, truth, last_seen(seen[:, :WARM]), *parts)


def joined(parts: Sequence[Foreseen]) -> Foreseen:
    """One of several that were foreseen in turn: their windows one after the other."""
    first = parts[0]
    names = [name for name in vars(first) if name not in ("names", "scale")]
    whole = {name: np.concatenate([getattr(p, name) for p in parts], -2) for name in names}
    return Foreseen(first.names, first.scale, **whole)


def _summed_up(
    ordered: F32, truth: F32, scale: F64, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], ...]:
    """Mean, median, low, high, CRPS, NLL and PIT of one tick's samples `[S, B, C]`."""
    mean = ordered.mean(0, dtype=np.float64)
    std = ordered.std(0, dtype=np.float64)
    tails = (1 - np.array(LEVELS)) / 2
    found = quantiles(ordered, np.concatenate([[0.5], tails, 1 - tails]))
    found_scores = (
        scores.crps(ordered, truth),
        scores.gaussian_nll(mean, std, truth, scale),
        scores.pit(ordered, truth, rng),
    )
    ends = found[1 : len(LEVELS) + 1], found[len(LEVELS) + 1 :]
    return tuple(x.astype(np.float32) for x in (mean, found[0], *ends, *found_scores))
