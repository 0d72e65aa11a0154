"""How long to go on planning: from a clock in the live loop, from the log in a replay.

The scheduler asks `more` before every iteration of every group of entities. Its answers are all
that a replay needs to spend exactly the same: `Spent` counts them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MARGIN = 1.3
"""An iteration is expected to cost this much more than the measured mean; p99 is 1.2 to 1.5."""
FORGET = 0.1
"""Weight of a new measurement of the cost."""


class Budget(Protocol):
    """Says whether another iteration may begin."""

    def more(self, group: int, iteration: int, work: float) -> bool:
        """Whether iteration `iteration` of group `group` may begin.

        Args:
            group: groups of entities in the order in which they are planned, from 0.
            iteration: of this group, from 0.
            work: what it will cost, in any unit that is proportional to time.
        """
        ...


@dataclass(frozen=True)
class Spent:
    """What was planned on one frame: per group its tier and how many iterations it got."""

    tiers: tuple[int, ...] = ()
    iterations: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the trajectory."""
        return {"tiers": list(self.tiers), "iterations": list(self.iterations)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Spent:
        """The inverse of `as_dict`; what is absent was not spent."""
        return cls(tuple(content.get("tiers", ())), tuple(content.get("iterations", ())))


@dataclass
class Cost:
    """What one unit of work takes on this machine, learned over the frames of one worker.

    Keep one per worker and give it to each frame's `WallBudget`.
    """

    ns_per_work: float | None = None

    def learn(self, elapsed_ns: int, work: float) -> None:
        """Takes a measurement in; the mean moves by `FORGET`, upwards at once by half."""
        if work <= 0:
            return
        measured = elapsed_ns / work
        if self.ns_per_work is None:
            self.ns_per_work = measured
            return
        weight = 0.5 if measured > self.ns_per_work else FORGET
        self.ns_per_work += weight * (measured - self.ns_per_work)

    def doubt(self) -> None:
        """Lowers the cost a little: what is believed too dear is never measured again."""
        if self.ns_per_work is not None:
            self.ns_per_work *= 1 - FORGET

    def expect(self, work: float) -> float:
        """Nanoseconds that `work` will take, with margin; 0 as long as nothing was measured."""
        return MARGIN * (self.ns_per_work or 0.0) * work


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

    def more(self, group: int, iteration: int, work: float) -> bool:
        """See `Budget`; between two calls the time is taken as the cost of the work granted."""
        now = self._clock()
        if self._granted is not None:
            since, granted = self._granted
            self._cost.learn(now - since, granted)
        early = now < self._ends
        fits = early and now + self._cost.expect(work) <= self._ends
        if early and not fits and group == iteration == 0:
            self._cost.doubt()
        self._granted = (now, work) if fits else None
        return fits


class RecordedBudget:
    """Gives back what was spent, so that a replay plans exactly as much."""

    def __init__(self, spent: Spent) -> None:
        self._iterations: Sequence[int] = spent.iterations

    def more(self, group: int, iteration: int, work: float) -> bool:
        """See `Budget`."""
        return group < len(self._iterations) and iteration < self._iterations[group]


class FreeBudget:
    """No clock: every tier runs all its iterations, or `iterations` where that is less."""

    def __init__(self, iterations: int | None = None) -> None:
        self._iterations = iterations

    def more(self, group: int, iteration: int, work: float) -> bool:
        """See `Budget`."""
        return self._iterations is None or iteration < self._iterations
