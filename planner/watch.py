"""Searches seen from outside: what a planner imagined, kept for whoever explains its choice.

A watched search is the planner's own, from the same arguments; only the imagination that it asks is
overheard. So it answers with the very same bits, and nothing in the loop knows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from planner.imagine import Imagination, Verdict
from planner.objective import Worth
from planner.planners import PLANNERS, Planners
from planner.search import Noise, Search, Start
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Population:
    """The candidates [E,C,T,A] of one iteration, their worth, and D noise sequences they shared."""

    candidates: F64
    worth: Worth
    sequences: int


@dataclass(frozen=True)
class Finals:
    """The finalists [E,F,T,A] of a search, judged under all members and noise."""

    finalists: F64
    verdict: Verdict


class Overheard(Imagination):
    """The same imagination as `heard`, which keeps what it was asked and what it answered."""

    def __init__(self, heard: Imagination) -> None:
        vars(self).update(vars(heard))
        self.populations: list[Population] = []
        self.finals: list[Finals] = []

    def returns(self, rows: Index, candidates: F64, noise: F32) -> Worth:
        """See `Imagination.returns`."""
        worth = super().returns(rows, candidates, noise)
        self.populations.append(Population(candidates, worth, noise.shape[1]))
        return worth

    def under_all(self, rows: Index, finalists: F64, noise: F32) -> Verdict:
        """See `Imagination.under_all`."""
        verdict = super().under_all(rows, finalists, noise)
        self.finals.append(Finals(finalists, verdict))
        return verdict


@dataclass(frozen=True)
class Watched:
    """A search for a group of entities, and what it imagined."""

    tier: Tier
    start: Start
    imagination: Overheard

    @property
    def ahead(self) -> bool:
        """Whether it was made when the tick's actions were out, for the ticks to come."""
        return self.start.issued is not None

    def place(self, row: int) -> int | None:
        """Where row `row` of the frame stands in the group; None where it is not part of it."""
        found = np.flatnonzero(self.start.rows == row)
        return int(found[0]) if len(found) else None


class Watch:
    """Keeps the searches that are begun through its `planners`, in their order."""

    def __init__(self) -> None:
        self.searches: list[Watched] = []

    @property
    def planners(self) -> Planners:
        """To be given to `plan` and `plan_ahead`."""
        return {name: partial(self._begin, begin) for name, begin in PLANNERS.items()}

    def of(self, row: int) -> list[Watched]:
        """The searches for row `row` of the frame; the last one made its plan."""
        return [search for search in self.searches if search.place(row) is not None]

    def _begin(
        self,
        begin: Callable[[SystemSpec, Imagination, Tier, Start, Noise], Search],
        spec: SystemSpec,
        imagination: Imagination,
        tier: Tier,
        start: Start,
        noise: Noise,
    ) -> Search:
        heard = Overheard(imagination)
        self.searches.append(Watched(tier, start, heard))
        return begin(spec, heard, tier, start, noise)
