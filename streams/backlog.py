"""Too much to read: what cannot be caught up with soon is passed over; the newest data counts.

Under the wall clock alone: somebody waits there. Under the event clock the topics wait.
"""

from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Final, NamedTuple

Place = tuple[str, int]
"""Topic and partition."""
BEHIND_S: Final = 1.0
"""Records that were there for so long and are not read yet are a backlog."""
TREND_S: Final = 2.0
"""So long is looked at how fast a backlog shrinks."""
CATCH_UP_S: Final = 3.0
"""One that would take longer than this from now on is not read: meanwhile everybody would wait."""
STILL_S: Final = 1.0
"""Who did not look for so long stood still: what came meanwhile is no trend."""
_EVERY_S: Final = 0.25
_AT_ONCE_S: Final = 0.25
"""Of a time in which nobody looked no more counts: a machine that stood still is no overload."""

Offsets = Mapping[Place, int]


class _Look(NamedTuple):
    at_s: float
    backlog: int
    high: Offsets


class Backlog:
    """Whether reading is behind for long, or for good; times are seconds in which it was looked at.

    After a restart or an outage there is a backlog as well. Where it shrinks fast enough, nothing
    of it is shed.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._looks: deque[_Look] = deque()

    def look(self, passed_s: float, read: Offsets, high: Callable[[], Offsets]) -> Offsets:
        """Up to where records must be passed over, of each partition; empty where none need be.

        What came last stays, however long ago: the newest counts, also of who says nothing after
        it. So nothing of a partition is passed over before it is seen that something came.

        Args:
            passed_s: since the last call.
            read: up to where each partition was read.
            high: up to where each has records; asked for where it is needed.
        """
        if passed_s > STILL_S:
            self._looks.clear()
        self._now_s += min(passed_s, _AT_ONCE_S)
        if self._looks and self._now_s < self._looks[-1].at_s + _EVERY_S:
            return {}
        ends = dict(high())
        backlog = sum(max(0, end - read.get(place, end)) for place, end in ends.items())
        self._looks.append(_Look(self._now_s, backlog, ends))
        while len(self._looks) > 1 and self._looks[1].at_s <= self._now_s - TREND_S:
            self._looks.popleft()
        first = self._looks[0]
        known = self._now_s - first.at_s >= TREND_S and first.backlog > 0
        if not known or self._left_s(backlog) <= CATCH_UP_S or not self._is_behind(read):
            return {}
        over = {place: self._before_the_newest(place, end) for place, end in ends.items()}
        over = {place: end for place, end in over.items() if end > read.get(place, end)}
        if over:
            self._looks.clear()
        return over

    def _before_the_newest(self, place: Place, end: int) -> int:
        """Where the last records began that came; 0 where none came since the first look."""
        had = (look.high.get(place, end) for look in reversed(self._looks))
        return next((before for before in had if before < end), 0)

    def _left_s(self, backlog: int) -> float:
        """For how long it will still be there, as it shrinks now."""
        # Not since the first look: what came while we stood still may shrink fast by now.
        most = max(reversed(self._looks), key=lambda look: look.backlog)
        if backlog >= most.backlog:
            return inf
        return backlog * (self._now_s - most.at_s) / (most.backlog - backlog)

    def _is_behind(self, read: Offsets) -> bool:
        before = [look for look in self._looks if look.at_s <= self._now_s - BEHIND_S]
        return any(read.get(place, end) < end for place, end in before[-1].high.items())
