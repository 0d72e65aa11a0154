"""How a replay went, tick by tick: what its report draws."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np

from schemas.codes import Mode
from schemas.frames import Frame
from schemas.system import SystemSpec
from schemas.trajectories import Decisions

POINTS: Final = 2_000  # of a curve in a page, at most
Curve = tuple[list[int], list[float]]


class Series:
    """Who decided, which actions, and how many values differ, by tick; of `entity` or of all."""

    def __init__(self, spec: SystemSpec, entity: str | None = None) -> None:
        self._spec, self._entity = spec, entity
        self._modes: dict[int, dict[str, int]] = {}
        self._differences: dict[int, int] = {}
        # tick → per action column: sums of recorded and replayed values, and how many of them.
        self._sums: dict[int, np.ndarray[tuple[int, int], np.dtype[np.float64]]] = {}

    def add(
        self, frame: Frame, recorded: Decisions | None, replayed: Decisions, differences: int
    ) -> None:
        """Takes the decisions on one frame."""
        rows = np.array([self._entity in (None, name) for name in frame.entities], dtype=bool)
        if not rows.any():
            return
        counts = self._modes.setdefault(frame.tick, defaultdict(int))
        for code in replayed.mode[rows].tolist():
            counts[Mode(code).name.lower()] += 1
        known = self._differences.get(frame.tick, 0)
        self._differences[frame.tick] = known + differences
        sums = self._sums.setdefault(frame.tick, np.zeros((4, len(self._spec.action_columns))))
        for place, made in enumerate((recorded, replayed)):
            if made is not None and made.action.shape == replayed.action.shape:
                values = made.action[rows]
                sums[2 * place] += np.nansum(values, axis=0)
                sums[2 * place + 1] += np.isfinite(values).sum(axis=0)

    def modes(self) -> dict[str, Curve]:
        """Decisions per tick by mode, each the mean of a stretch of ticks."""
        names = sorted({name for counts in self._modes.values() for name in counts})
        return {
            name: _thinned([(t, float(c.get(name, 0))) for t, c in self._modes.items()])
            for name in names
        }

    def actions(self, column: int) -> tuple[Curve, Curve]:
        """Mean action per tick of one column: recorded and replayed."""
        found = []
        for place in (0, 2):
            points = [
                (tick, float(s[place, column] / s[place + 1, column]))
                for tick, s in self._sums.items()
                if s[place + 1, column]
            ]
            found.append(_thinned(points))
        return found[0], found[1]

    def differences(self) -> Curve:
        """Values that differ, per tick with any."""
        points = sorted((t, float(n)) for t, n in self._differences.items() if n)[:POINTS]
        return [tick for tick, _ in points], [count for _, count in points]


def _thinned(points: list[tuple[int, float]]) -> Curve:
    """At most `POINTS` of them by tick, each the mean of a stretch."""
    points.sort()
    size = -(-len(points) // POINTS) or 1
    stretches = [points[i : i + size] for i in range(0, len(points), size)]
    ticks = [stretch[0][0] for stretch in stretches]
    return ticks, [sum(value for _, value in s) / len(s) for s in stretches]
