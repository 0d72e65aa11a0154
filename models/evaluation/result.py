"""What an evaluation found: figures per tick and channel, the verdict, and what a bundle keeps."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.evaluation.foresee import LEVELS, Foreseen
from models.evaluation.recalibrate import BAR, TOLD, Coverage
from models.evaluation.windows import Windows
from planner.manifest import Recalibration

VERDICT = 5
"""Ticks ahead at which a bundle must not be worse than persistence."""
WORSE = 1.05
"""From which share of persistence's error on it counts as worse."""
BAND = 0.999
"""Share of the innovations on held-out data that a belief is not doubted for."""
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Figures per tick and channel (the reward is the last of C), and what they were made of.

    Attributes:
        horizons: those of the asked that windows reach; left_out: the others.
        columns: names of the channels, without the reward.
        counts: `[T, C]` windows with a known truth.
        rmse: `[T, C]` root mean square error of the mean of the futures, raw units.
        persistence: `[T, C]` the same of "as it is now"; bias: `[T, C]` prediction minus truth.
        crps, nll: `[T, C]` mean scores; still: `[T, C]` mean absolute error of persistence, which
            is its CRPS.
        pit: `[bins, T, C]` density of the PIT, 1 where spreads are honest.
        coverage: of all windows, as predicted.
        before, after: of the windows that recalibration was not fitted on.
        recalibration: fitted here, None where windows are too few; stored: the bundle's own, which
            is what `after` was judged with where there is one.
        ends: scores of the foreseen end of episodes; violations: of foreseen broken constraints.
        innovation_band: quantile of the innovation, of `BAND` where nothing else was asked for.
        channel_scale: `[O]` standard deviation of the data.
    """

    horizons: tuple[int, ...]
    left_out: tuple[int, ...]
    columns: tuple[str, ...]
    counts: F64
    rmse: F64
    persistence: F64
    bias: F64
    crps: F64
    nll: F64
    still: F64
    pit: F64
    coverage: Coverage
    before: Coverage
    after: Coverage | None
    recalibration: Recalibration | None
    stored: Recalibration | None
    ends: dict[str, Any]
    violations: dict[str, Any] | None
    innovation_band: float
    channel_scale: F64
    windows: Windows = field(repr=False)
    foreseen: Foreseen = field(repr=False)

    @property
    def verdict_at(self) -> int:
        """Horizon of the verdict: `VERDICT`, or the longest that there is below it."""
        return max(k for k in self.horizons if k <= max(VERDICT, self.horizons[0]))

    @property
    def of_persistence(self) -> F64:
        """`[T, C]` error as a share of persistence's; NaN where nothing moves."""
        return np.where(self.persistence > 0, self.rmse, np.nan) / np.maximum(
            self.persistence, 1e-300
        )

    @property
    def worse(self) -> tuple[str, ...]:
        """Channels that move and at the verdict's horizon are worse than persistence."""
        ratios = self.of_persistence[self.verdict_at - 1, :-1]
        return tuple(c for c, r in zip(self.columns, ratios, strict=True) if r > WORSE)

    def gaps(self, coverage: Coverage) -> F64:
        """`[levels of TOLD, horizons, C - 1]` how far coverage is from its level."""
        at = [LEVELS.index(level) for level in TOLD]
        return np.asarray(coverage.gap()[at][:, [k - 1 for k in self.horizons], :-1])

    def within(self, coverage: Coverage) -> float:
        """Share of channels, horizons and `TOLD` levels whose coverage is within `BAR`."""
        gaps = self.gaps(coverage)
        known = np.isfinite(gaps)
        return float((np.abs(gaps[known]) <= BAR).mean()) if known.any() else float("nan")

    def calibration(self, discount: float) -> dict[str, Any]:
        """The `calibration` of a manifest."""
        plain = {
            "innovation_band": self.innovation_band,
            "channel_scale": [float(x) for x in self.channel_scale],
            "discount": discount,
        }
        if self.recalibration is not None:
            plain["recalibration"] = msgspec.to_builtins(self.recalibration)
        return plain
