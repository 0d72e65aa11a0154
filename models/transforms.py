"""Raw units to normalised ones and back, inside the graphs, as the data of each column asks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Kind = Literal["linear", "log", "share"]
Floats = npt.NDArray[np.float64]
DECADE = 10.0
"""A column whose 99th percentile is above this multiple of its positive median is compressed."""
MARGIN = 1.0
"""How far beyond the extremes of the data imagination may go, in standard deviations."""
SMALLEST_STEP = 1e-3
"""Columns that never change are still predicted with some spread."""
FARTHEST = 12.0
"""Normalised values beyond this are not imagined: float32 and `sinh` stay finite."""


@dataclass(frozen=True)
class ColumnScale:
    """How one column is normalised.

    linear: `(x - mean) / std`.
    log: `(asinh(x / unit) - mean) / std`, near-linear below `unit` and logarithmic above it, for
        non-negative columns that span decades.
    share: kept as it is in [0, 1]; it is predicted as a mean, not sampled.

    `step` is the standard deviation of the change from one tick to the next, normalised: the unit
    in which the dynamics predict changes, so that slow columns are as easy as fast ones. `least`
    and `most` are the normalised extremes of the data, beyond which nothing is imagined by far.
    """

    name: str
    kind: Kind
    low: float
    high: float
    mean: float
    std: float
    unit: float = 1.0
    step: float = 1.0
    least: float = -FARTHEST
    most: float = FARTHEST

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def fit_column(
    name: str, values: Floats, low: float, high: float, share: bool = False
) -> ColumnScale:
    """Kind and statistics of a column bounded to [low, high], from `values` (NaN = missing)."""
    present = values[np.isfinite(values)]
    if share:
        return ColumnScale(name, "share", low, high, 0.0, 1.0)
    if present.size == 0:
        return ColumnScale(name, "linear", low, high, 0.0, 1.0)
    kind = kind_of(present, low)
    unit = 1.0
    if kind == "log":
        unit = float(np.median(present[present > 0]))
        present = np.arcsinh(present / unit)
    mean, std = float(present.mean()), max(float(present.std()), 1e-3)
    least, most = (float((x - mean) / std) for x in (present.min(), present.max()))
    return ColumnScale(name, kind, low, high, mean, std, unit, least=least, most=most)


def kind_of(present: Floats, low: float) -> Kind:
    """`log` for non-negative values whose positive part spans decades, else `linear`."""
    positive = present[present > 0]
    if low < 0 or positive.size == 0:
        return "linear"
    return "log" if np.quantile(present, 0.99) > DECADE * np.median(positive) else "linear"


def fit_step(scale: ColumnScale, before: Floats, after: Floats) -> ColumnScale:
    """`scale` with the typical change from `before` to `after`, one tick apart (NaN = missing)."""
    if scale.kind == "share":
        return scale
    values = torch.from_numpy(np.stack([before, after], -1))[..., None]
    normal = Scaler([scale])(values)[..., 0].numpy()
    change = normal[:, 1] - normal[:, 0]
    change = change[np.isfinite(change)]
    step = float(np.sqrt(np.mean(np.square(change)))) if change.size else 1.0
    return replace(scale, step=min(1.0, max(step, SMALLEST_STEP)))


class Scaler(nn.Module):
    """Normalises `[..., D]` columns and undoes it, as a part of the graph."""

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor
    unit: Tensor
    is_log: Tensor

    def __init__(self, columns: Sequence[ColumnScale]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        for field in ("low", "high", "mean", "std", "unit"):
            values = torch.tensor([getattr(c, field) for c in columns], dtype=torch.float32)
            self.register_buffer(field, values, persistent=False)
        is_log = torch.tensor([c.kind == "log" for c in columns], dtype=torch.bool)
        self.register_buffer("is_log", is_log, persistent=False)
        self.any_log = bool(is_log.any())

    def steps(self) -> Tensor:
        """`[D]` typical change per tick, normalised."""
        return torch.tensor([c.step for c in self.columns], dtype=torch.float32)

    def reach(self) -> tuple[Tensor, Tensor]:
        """`[D]` least and greatest normalised value that may be imagined: the data's and some."""
        least = torch.tensor([c.least - MARGIN for c in self.columns], dtype=torch.float32)
        most = torch.tensor([c.most + MARGIN for c in self.columns], dtype=torch.float32)
        return least.clamp(min=-FARTHEST), most.clamp(max=FARTHEST)

    def pick(self, columns: Sequence[int]) -> Self:
        """The scaler of some of the columns."""
        return type(self)([self.columns[i] for i in columns])

    def forward(self, raw: Tensor) -> Tensor:
        """`[..., D]` raw to normalised."""
        y = raw
        if self.any_log:
            y = torch.where(self.is_log, torch.asinh(raw / self.unit), raw)
        return (y - self.mean) / self.std

    def inverse(self, normal: Tensor) -> Tensor:
        """`[..., D]` normalised to raw, within the range of the spec."""
        y = normal.clamp(-FARTHEST, FARTHEST) * self.std + self.mean
        if self.any_log:
            y = torch.where(self.is_log, self.unit * torch.sinh(self._logs(y)), y)
        return torch.minimum(torch.maximum(y, self.low), self.high)

    def _logs(self, y: Tensor) -> Tensor:
        """`y` where a column is logarithmic, else 0: the branch of `where` that is not taken would
        overflow, and infinity times no gradient is NaN.
        """
        return torch.where(self.is_log, y, torch.zeros_like(y))

    def spread(self, normal: Tensor, std: Tensor) -> Tensor:
        """Raw standard deviation of a narrow normalised one around `normal` (delta method)."""
        slope = self.std.expand_as(std)
        if self.any_log:
            y = normal.clamp(-FARTHEST, FARTHEST) * self.std + self.mean
            grown = self.std * self.unit * torch.cosh(self._logs(y))
            slope = torch.where(self.is_log, grown, slope)
        return std * slope
