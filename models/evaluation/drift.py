"""Coverage when the system drifts: a fixed factor loses it, an adaptive one keeps it.

Real sequences, one tick ahead, as in the running loop: the bundle filters, predicts the next tick,
sees it. From the middle on noise comes onto the sensors, and grows; nobody tells the bundle.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from models.evaluation.foresee import LEVELS
from models.evaluation.recalibrate import rounded
from models.evaluation.result import Evaluation
from models.evaluation.scores import average
from models.evaluation.windows import WARM, Believed, imagined
from planner.conformal import AdaptiveFactor, conformity, factors_at, quantiles, rate_for
from planner.session import Bundle

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LEVEL = 0.8
STREAMS, TICKS, SHORTEST = 64, 400, 60
"""At most so many entities and ticks; shorter sequences say nothing about drift."""
NOISE = 2.0
"""Of the error one tick ahead: standard deviation of the noise at its full size."""
FUTURES = 16


@dataclass(frozen=True)
class Drift:
    """T ticks of B entities, C channels.

    Attributes:
        columns: the C names.
        begins: the tick from which on noise grows; full: the one when it no longer does.
        fixed, adaptive: `[T, C]` share of truths within the intervals of `LEVEL`.
        entities: B.
    """

    columns: tuple[str, ...]
    begins: int
    full: int
    fixed: F64
    adaptive: F64
    entities: int

    def as_dict(self) -> dict[str, Any]:
        """JSON: mean coverage before the drift, and after it began."""
        parts = {"before": slice(None, self.begins), "under": slice(self.begins, None)}
        return {
            "level": LEVEL,
            "entities": self.entities,
            "ticks": len(self.fixed),
            **{
                f"{name}_{part}": {
                    c: rounded(x) for c, x in zip(self.columns, average(share[at]), strict=True)
                }
                for name, share in (("fixed", self.fixed), ("adaptive", self.adaptive))
                for part, at in parts.items()
            },
        }


def drift(bundle: Bundle, found: Evaluation, data: Sequences, seed: int = 0) -> Drift | None:
    """Tries both kinds of factors on the longest sequences; None where all are too short."""
    best = found.stored or found.recalibration
    rows = _longest(data)
    if best is None or rows is None:
        return None
    rng = np.random.default_rng([seed, 23])
    channels = len(found.columns)
    ticks = rows.shape[1] - WARM
    begins, full = ticks // 2, ticks // 2 + ticks // 8
    size = np.clip((np.arange(rows.shape[1]) - WARM - begins) / max(full - begins, 1), 0, 1)
    noise = NOISE * np.nan_to_num(found.rmse[0, :channels]) * size[:, None]
    obs = data.obs[rows].copy()
    drawn = rng.standard_normal((*obs.shape[:2], channels))
    obs[..., :channels] += (drawn * noise).astype(np.float32)
    scale = found.channel_scale[:channels]
    scores = _scores(bundle, obs, data.action[rows], scale, rng)
    factor = factors_at(best, 1)[best.levels.index(LEVEL), :channels]
    fixed = np.where(np.isnan(scores), np.nan, scores <= factor)
    return Drift(
        found.columns, begins, full, average(fixed, 1), _adapted(scores, factor), len(rows)
    )


def _adapted(scores: F64, factor: F64) -> F64:
    """`[T, C]` coverage of a factor per channel that all entities share and that adapts."""
    tracker = AdaptiveFactor.begin(factor, LEVEL, rate_for(scores.shape[1]))
    held = []
    for now in scores:
        held.append(average(np.where(np.isnan(now), np.nan, tracker.covers(now))))
        tracker = tracker.after(now)
    return np.stack(held)


def _longest(data: Sequences) -> npt.NDArray[np.int64] | None:
    """`[B, WARM + T]` rows of the beginnings of the longest sequences."""
    lengths = np.diff(data.segments, axis=1)[:, 0]
    order = np.argsort(-lengths, kind="stable")[:STREAMS]
    order = order[2 * lengths[order] >= lengths[order[0]]]
    ticks = min(int(lengths[order].min()), WARM + TICKS)
    if ticks < WARM + SHORTEST:
        return None
    return np.asarray(data.segments[order, :1] + np.arange(ticks))


def _scores(bundle: Bundle, obs: F32, action: F32, scale: F64, rng: np.random.Generator) -> F64:
    """`[T, B, C]` conformity of what comes next, for intervals of `LEVEL` one tick ahead."""
    rows, channels = len(obs), len(scale)
    h = np.zeros((rows, bundle.hidden), np.float32)
    z = np.zeros((rows, bundle.latent), np.float32)
    shares = np.array([0.5, (1 - LEVEL) / 2, (1 + LEVEL) / 2])
    assert LEVEL in LEVELS
    found = []
    for t in range(obs.shape[1] - 1):
        mask = np.isfinite(obs[:, t])
        seen = np.where(mask, obs[:, t], 0).astype(np.float32)
        after = bundle.believe(h, z, action[:, t], seen, mask.astype(np.float32))
        h, z = after.h, after.mean
        if t < WARM - 1:
            continue
        belief = Believed(h, z, after.std, after.innovation)
        ahead = imagined(bundle, belief, action[:, t + 1 : t + 2], FUTURES, rng).channels[0]
        ordered = np.sort(ahead[..., :channels], axis=0)
        median, low, high = quantiles(ordered, shares)
        found.append(conformity(obs[:, t + 1, :channels], median, low, high, scale))
    return np.stack(found)
