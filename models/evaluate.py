"""How good a bundle is on data it was not trained on: errors beside persistence, and spread."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from planner.session import Bundle
from schemas.system import SystemSpec

HORIZONS = (1, 5, 10)
WARM = 16
"""Ticks that a belief has seen before it is asked to predict."""
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
    starts = _starts(data, rng, windows, length)
    if len(starts) == 0:
        raise ValueError(f"no unbroken sequence of {length} ticks to evaluate on: log longer runs")
    rows = starts[:, None] + np.arange(length)
    obs, action = data.obs[rows], data.action[rows]
    h, z, std, innovations = _filter(bundle, obs[:, :WARM], action[:, :WARM])
    sampled = _imagine(bundle, spec, (h, z, std), action[:, WARM:], futures, rng)
    now = _last_seen(obs[:, :WARM])
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
        innovation_band=float(np.quantile(innovations, 0.999)),
        channel_scale=np.where(scale > 1e-9, scale, 1.0),
        windows=len(starts),
    )


def _starts(
    data: Sequences, rng: np.random.Generator, count: int, length: int
) -> npt.NDArray[np.int64]:
    rows = np.arange(len(data))
    usable = rows[rows + length <= data.last]
    return np.sort(rng.permutation(usable)[:count])


def _filter(
    bundle: Bundle, obs: npt.NDArray[np.float32], action: npt.NDArray[np.float32]
) -> tuple[Any, ...]:
    rows = len(obs)
    h = np.zeros((rows, bundle.hidden), np.float32)
    z = np.zeros((rows, bundle.latent), np.float32)
    std, innovations = z, []
    for t in range(obs.shape[1]):
        mask = np.isfinite(obs[:, t])
        seen = np.where(mask, obs[:, t], 0).astype(np.float32)
        after = bundle.believe(h, z, action[:, t], seen, mask.astype(np.float32))
        h, z, std = after.h, after.mean, after.std
        if t >= WARM // 2:
            innovations.append(after.innovation)
    return h, z, std, np.concatenate(innovations)


def _imagine(
    bundle: Bundle,
    spec: SystemSpec,
    belief: tuple[Any, Any, Any],
    action: npt.NDArray[np.float32],
    futures: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """`[T, S, B, O]` S = members × futures sampled channels."""
    h, z, std = (np.repeat(x, futures, axis=0) for x in belief)
    members, rows = bundle.members, len(h)
    ticks = action.shape[1]
    noise = rng.standard_normal((ticks + 1, members, rows, bundle.latent)).astype(np.float32)
    latent = (z + std * noise[0]).astype(np.float32)
    hidden = np.broadcast_to(h, (members, *h.shape)).copy()
    wide = np.repeat(action, futures, axis=0).transpose(1, 0, 2)[:, None]
    actions = np.broadcast_to(wide, (ticks, members, rows, action.shape[2])).copy()
    out = bundle.imagine(hidden, latent, actions, noise[1:]).channels
    out = out.reshape(ticks, members, rows // futures, futures, len(spec.columns))
    return out.transpose(0, 1, 3, 2, 4).reshape(ticks, members * futures, -1, len(spec.columns))


def _last_seen(obs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`[B, O]` the last value present in `[B, T, O]`, NaN without any."""
    now = np.full_like(obs[:, 0], np.nan)
    for t in range(obs.shape[1]):
        now = np.where(np.isfinite(obs[:, t]), obs[:, t], now)
    return now


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


def write_report(path: Path, curves: dict[str, list[tuple[int, float]]], title: str) -> None:
    """The training curves as one HTML page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = sorted(curves)
    figure = make_subplots(rows=(len(names) + 2) // 3, cols=3, subplot_titles=names)
    for i, name in enumerate(names):
        steps, values = np.array(curves[name], dtype=np.float64).T
        window = max(1, len(values) // 200)
        usable = len(values) // window * window
        smooth = values[:usable].reshape(-1, window).mean(1)
        at = steps[:usable].reshape(-1, window).mean(1)
        line = go.Scatter(x=at, y=smooth, mode="lines", name=name, showlegend=False)
        figure.add_trace(line, row=i // 3 + 1, col=i % 3 + 1)
    figure.update_layout(title=title, height=260 * ((len(names) + 2) // 3), width=1100)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs="directory")
