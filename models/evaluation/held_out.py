"""How good a bundle is on data it was not trained on: errors beside persistence, and spread."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from models.evaluation.windows import WARM, draw_starts, filtered, imagined, last_seen
from planner.session import Bundle
from schemas.system import SystemSpec

HORIZONS = (1, 5, 10)
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Figures per column, and what the planner needs for calibration.

    Attributes:
        horizons: k of the rows below; columns: the O names.
        rmse: `[K, O]` root mean square error of the mean of the futures, raw units.
        persistence: `[K, O]` the same of "as it is now".
        coverage: `[K, O]` share of truths within the central 80 % of the futures.
        bias: `[K, O]` mean of prediction minus truth, raw units.
        innovation_band: 99.9 % quantile of the innovation.
        channel_scale: `[O]` standard deviation of the data.
    """

    horizons: tuple[int, ...]
    columns: tuple[str, ...]
    rmse: F64
    persistence: F64
    coverage: F64
    bias: F64
    innovation_band: float
    channel_scale: F64
    windows: int

    def as_dict(self) -> dict[str, Any]:
        """JSON: per k and column the error, its ratio to persistence, the coverage."""
        steps = {}
        for i, k in enumerate(self.horizons):
            steps[str(k)] = {
                column: {
                    "rmse": _round(self.rmse[i, o]),
                    "of_persistence": _round(_ratio(self.rmse[i, o], self.persistence[i, o])),
                    "coverage80": _round(self.coverage[i, o]),
                    "bias": _round(self.bias[i, o]),
                }
                for o, column in enumerate(self.columns)
            }
        return {"windows": self.windows, "innovation_band": self.innovation_band, "steps": steps}

    def calibration(self, discount: float) -> dict[str, Any]:
        """The `calibration` of a manifest."""
        return {
            "innovation_band": self.innovation_band,
            "channel_scale": [float(x) for x in self.channel_scale],
            "discount": discount,
        }


def _ratio(error: float, reference: float) -> float:
    return error / reference if reference > 0 else float("nan")


def _round(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


def evaluate(
    bundle: Bundle,
    spec: SystemSpec,
    data: Sequences,
    *,
    horizons: tuple[int, ...] = HORIZONS,
    windows: int = 512,
    futures: int = 8,
    seed: int = 0,
) -> Evaluation:
    """Filters windows of held-out sequences, then imagines on under the actions that were taken.

    Everything goes through the exported graphs, so what is measured is what will run.

    Args:
        windows: how many windows, drawn evenly over `data`.
        futures: sampled futures per member and window.
    """
    rng = np.random.default_rng([seed, 17])
    length = WARM + max(horizons)
    starts = draw_starts(data, rng, windows, length)
    if len(starts) == 0:
        raise ValueError(f"no unbroken sequence of {length} ticks to evaluate on: log longer runs")
    rows = starts[:, None] + np.arange(length)
    obs, action = data.obs[rows], data.action[rows]
    belief = filtered(bundle, obs[:, :WARM], action[:, :WARM])
    sampled = imagined(bundle, belief, action[:, WARM:], futures, rng).channels
    now = last_seen(obs[:, :WARM])
    parts = [_score(sampled[k - 1], obs[:, WARM + k - 1], now) for k in horizons]
    rmse, persistence, coverage, bias = (np.stack(part) for part in zip(*parts, strict=True))
    scale = np.nanstd(data.obs.astype(np.float64), axis=0)
    return Evaluation(
        horizons=horizons,
        columns=spec.columns,
        rmse=rmse,
        persistence=persistence,
        coverage=coverage,
        bias=bias,
        innovation_band=float(np.quantile(belief.innovations, 0.999)),
        channel_scale=np.where(scale > 1e-9, scale, 1.0),
        windows=len(starts),
    )


def _score(
    sampled: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], now: npt.NDArray[np.float32]
) -> tuple[F64, F64, F64, F64]:
    """Error, error of persistence, coverage and bias per column of one horizon."""
    known = np.isfinite(truth) & np.isfinite(now)
    weight = np.where(known, 1.0, 0.0)
    total = np.maximum(weight.sum(0), 1.0)

    def mean(x: npt.NDArray[Any]) -> F64:
        return np.asarray((np.where(known, x, 0.0) * weight).sum(0) / total)

    error = sampled.mean(0, dtype=np.float64) - truth
    low, high = np.quantile(sampled, (0.1, 0.9), axis=0)
    inside = (truth >= low - 1e-6) & (truth <= high + 1e-6)
    persistence = np.sqrt(mean((truth - now).astype(np.float64) ** 2))
    return np.sqrt(mean(error**2)), persistence, mean(inside), mean(error)
