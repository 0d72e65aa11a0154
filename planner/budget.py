"""How long to go on planning: from a clock in the live loop, from the log in a replay.

The scheduler asks `more` before every iteration of every group of entities. Its answers are all
that a replay needs to spend exactly the same: `Spent` counts them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np

MARGIN = 1.3
"""An iteration is expected to cost this much more than the measured mean; p99 is 1.2 to 1.5."""
FORGET = 0.1
"""Weight of a new measurement of the cost."""
CALL = 3000.0
"""Steps of imagination that cost as much as a call does before its first, until measured."""
VARIED = 0.125
"""Relative spread of work from which on the fixed part of the cost is measured."""


class Budget(Protocol):
    """Says whether another iteration may begin."""

    def some(self) -> bool:
        """Whether anything at all may begin; where not, nobody need be ranked."""
        ...

    def more(self, group: int, iteration: int, work: float) -> bool:
        """Whether iteration `iteration` of group `group` may begin.

        Args:
            group: groups of entities in the order in which they are planned, from 0.
            iteration: of this group, from 0.
            work: steps of imagination that it takes, over all entities and candidates.
        """
        ...


@runtime_checkable
class Sizing(Protocol):
    """A budget that also says how many entities may share the next session call."""

    def size(self, group: int, each: float, most: int) -> int:
        """At least 1 and at most `most`; all iterations of one entity take `each` of work."""
        ...


@dataclass(frozen=True)
class Spent:
    """What was planned on one frame: per group its tier, its entities, and its iterations."""

    tiers: tuple[int, ...] = ()
    iterations: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the trajectory."""
        return {field.name: list(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Spent:
        """The inverse of `as_dict`; what is absent was not spent."""
        return cls(**{field.name: tuple(content.get(field.name, ())) for field in fields(cls)})


class Cost:
    """What planning takes on this machine, as a line: fixed per call, and per step of imagination.

    Keep one per worker and give it to each frame's `WallBudget`. The line is fitted by least
    squares with exponential forgetting; as long as all work was alike, its fixed part is taken to
    be as much as `CALL` steps.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(5)  # of weights, w, t, w², w·t
        self._scale = 1.0

    def learn(self, elapsed_ns: float, work: float) -> None:
        """Takes in that `work` took `elapsed_ns`."""
        measured = (1.0, work, elapsed_ns, work * work, work * elapsed_ns)
        self._sums = (1 - FORGET) * self._sums + FORGET * np.array(measured)
        self._scale = 1.0

    def doubt(self) -> None:
        """Lowers the cost a little: what is believed too dear is never measured again."""
        self._scale *= 1 - FORGET

    @property
    def line(self) -> tuple[float, float]:
        """Nanoseconds per call, and nanoseconds per step; zeros before anything was measured."""
        weight = self._sums[0]
        if weight == 0:
            return 0.0, 0.0
        work, elapsed, squares, products = (float(x) for x in self._sums[1:] / weight)
        slope, spread = elapsed / (work + CALL), squares - work * work
        if spread > (VARIED * work) ** 2:
            most = elapsed / work
            slope = min(max((products - work * elapsed) / spread, 0.1 * most), most)
        return self._scale * (elapsed - slope * work), self._scale * slope

    def expect(self, work: float) -> float:
        """Nanoseconds that `work` will take, with margin; 0 before anything was measured."""
        fixed, slope = self.line
        return MARGIN * (fixed + slope * work)

    def fits(self, room_ns: float) -> float:
        """The work that is expected to take `room_ns`; infinite before anything was measured."""
        fixed, slope = self.line
        return (room_ns / MARGIN - fixed) / slope if slope > 0 else math.inf


class WallBudget:
    """The live budget: no iteration begins that is expected to end after the deadline.

    Args:
        deadline_us: time allowed for a frame.
        started_ns: when the frame was received, on `clock`.
        cost: learned cost, shared by the frames of a worker.
        reserve_us: kept free for what comes after planning: gate, encoding, publishing.
        clock: monotonic nanoseconds; injected in tests.
    """

    def __init__(
        self,
        deadline_us: int,
        started_ns: int,
        cost: Cost | None = None,
        reserve_us: int = 0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._ends = started_ns + (deadline_us - reserve_us) * 1000
        self._cost = Cost() if cost is None else cost
        self._clock = clock
        self._granted: tuple[int, float] | None = None

    def some(self) -> bool:
        """See `Budget`."""
        return self._clock() < self._ends

    def more(self, group: int, iteration: int, work: float) -> bool:
        """See `Budget`; between two questions the time is taken as the cost of the work granted."""
        now = self._look()
        early = now < self._ends
        fits = early and now + self._cost.expect(work) <= self._ends
        if early and not fits and group == iteration == 0:
            self._cost.doubt()
        self._granted = (now, work) if fits else None
        return fits

    def size(self, group: int, each: float, most: int) -> int:
        """See `Sizing`: as many as fit in one call, a few as long as nothing was measured."""
        fits = self._cost.fits(self._ends - self._look()) / each
        return int(min(max(1.0, fits if math.isfinite(fits) else most // 4), most))

    def _look(self) -> int:
        """The time; what went by since the last grant is the cost of what was granted."""
        now = self._clock()
        if self._granted is not None:
            since, granted = self._granted
            self._cost.learn(now - since, granted)
            self._granted = None
        return now


class RecordedBudget:
    """Gives back what was spent, so that a replay plans exactly as much."""

    def __init__(self, spent: Spent) -> None:
        self._iterations, self._sizes = spent.iterations, spent.sizes

    def some(self) -> bool:
        """See `Budget`."""
        return bool(self._iterations)

    def more(self, group: int, iteration: int, work: float) -> bool:
        """See `Budget`."""
        return group < len(self._iterations) and iteration < self._iterations[group]

    def size(self, group: int, each: float, most: int) -> int:
        """See `Sizing`."""
        return self._sizes[group] if group < len(self._sizes) else most


class FreeBudget:
    """No clock: every tier runs all its iterations, or `iterations` where that is less."""

    def __init__(self, iterations: int | None = None) -> None:
        self._iterations = iterations

    def some(self) -> bool:
        """See `Budget`."""
        return self._iterations != 0

    def more(self, group: int, iteration: int, work: float) -> bool:
        """See `Budget`."""
        return self._iterations is None or iteration < self._iterations
