"""Two sets of decisions on the same frame, column by column: what differs, and by how much."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.frames import Frame
from schemas.system import SystemSpec
from schemas.trajectories import QUANTILES, Decisions

LISTED: Final = 1_000  # differences that are kept one by one; all are counted
_STORED: Final[dict[str, npt.DTypeLike]] = {"hidden": np.float16, "latent": np.float16}
_CODES: Final = ("mode", "reasons", "tier", "iterations", "group")  # never within a tolerance
BELIEF: Final = "belief"


@dataclass(frozen=True)
class Difference:
    """One value that is not what it was: of an entity ("" for the whole cohort) at a tick."""

    tick: int
    cohort: int
    entity: str
    column: str
    recorded: Any
    replayed: Any

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not a finite number is null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


@dataclass
class Comparison:
    """What was compared so far.

    Attributes:
        tolerance: absolute and relative at once, as `numpy.isclose` has it; 0: bit for bit.
        frames, decisions: how many were compared.
        columns: differing values by column.
        largest: the largest absolute difference by column, of numbers that are finite.
        listed: the first `LISTED` differences.
    """

    spec: SystemSpec
    tolerance: float = 0.0
    entity: str | None = None
    frames: int = 0
    decisions: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)
    listed: list[Difference] = field(default_factory=list)
    changed: int = 0  # frames with a difference

    @property
    def differences(self) -> int:
        """How many values differ."""
        return sum(self.columns.values())

    def add(self, frame: Frame, recorded: Decisions, replayed: Decisions) -> bool:
        """Compares the decisions on one frame; returns whether they are equal."""
        before = self.differences
        rows = np.array([self.entity in (None, entity) for entity in frame.entities], dtype=bool)
        self.frames += 1
        self.decisions += int(rows.sum())
        for item in fields(Decisions):
            if item.name not in ("bundle", "spent"):
                pair = (getattr(recorded, item.name), getattr(replayed, item.name))
                self._column(frame, item.name, *pair, rows)
        self._whole(frame, "bundle", recorded.bundle, replayed.bundle)
        if self.tolerance == 0.0:
            self._whole(frame, BELIEF, recorded.spent.get(BELIEF), replayed.spent.get(BELIEF))
        equal = self.differences == before
        self.changed += not equal
        return equal

    def _whole(self, frame: Frame, name: str, recorded: Any, replayed: Any) -> None:
        if recorded != replayed:
            self._note(Difference(frame.tick, frame.cohort, "", name, recorded, replayed))

    def _column(
        self,
        frame: Frame,
        name: str,
        recorded: npt.NDArray[Any],
        replayed: npt.NDArray[Any],
        rows: npt.NDArray[np.bool_],
    ) -> None:
        if recorded.shape != replayed.shape:
            self._whole(frame, f"{name}: shape", list(recorded.shape), list(replayed.shape))
            return
        # As the log stores it: beliefs in half precision.
        replayed = replayed.astype(_STORED.get(name, recorded.dtype)).astype(recorded.dtype)
        unequal = ~self._equal(name, recorded, replayed)
        unequal &= rows.reshape(-1, *[1] * (unequal.ndim - 1))
        if not unequal.any():
            return
        names = self._names(name, recorded)
        for place in zip(*np.nonzero(unequal), strict=True):
            column = name if len(place) == 1 else names[int(place[1])]
            old, new = recorded[place].item(), replayed[place].item()
            entity = frame.entities[int(place[0])]
            self._note(Difference(frame.tick, frame.cohort, entity, column, old, new))

    def _equal(
        self, name: str, recorded: npt.NDArray[Any], replayed: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        if recorded.dtype.kind != "f":
            return np.asarray(recorded == replayed)
        if self.tolerance == 0.0 or name in _CODES:
            same = (recorded == replayed) | (np.isnan(recorded) & np.isnan(replayed))
        else:
            close = {"rtol": self.tolerance, "atol": self.tolerance}
            same = np.isclose(recorded, replayed, equal_nan=True, **close)
        return np.asarray(same)

    def _names(self, name: str, values: npt.NDArray[Any]) -> list[str]:
        if name in ("proposal", "action"):
            return [f"{name}:{column}" for column in self.spec.action_columns]
        if name in ("predicted", "predicted_std"):
            return [f"{name}:{column}" for column in self.spec.columns]
        if name == "returned":
            return ["return:mean", *(f"return:q{round(100 * q)}" for q in QUANTILES)]
        return [f"{name}[{i}]" for i in range(values.shape[1] if values.ndim > 1 else 1)]

    def _note(self, difference: Difference) -> None:
        self.columns[difference.column] += 1
        old, new = difference.recorded, difference.replayed
        if isinstance(old, float) and isinstance(new, float):
            gap = abs(old - new)
            if math.isfinite(gap):  # else one of them is not a number, which is no matter of size
                known = self.largest.get(difference.column, 0.0)
                self.largest[difference.column] = max(known, gap)
        if len(self.listed) < LISTED:
            self.listed.append(difference)
