"""Sets of whole numbers as sorted half-open intervals: offsets and ticks that were seen."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """A set of int that is cheap while it has few gaps; `[start, end)` pairs go in and come out."""

    def __init__(self, pairs: Iterable[Iterable[int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in pairs:
            self.add(start, end)

    def add(self, start: int, end: int | None = None) -> bool:
        """Adds `[start, end)`, or `start` alone. Returns whether none of it was there before."""
        end = start + 1 if end is None else end
        if end <= start:
            return True
        if self._ends and start == self._ends[-1]:  # what follows directly: nearly every call
            self._ends[-1] = end
            return True
        first = bisect_left(self._ends, start)  # touches or overlaps from here …
        last = bisect_right(self._starts, end)  # … to before here
        overlaps = any(self._starts[i] < end and start < self._ends[i] for i in range(first, last))
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        return not overlaps

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number < self._ends[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return sum(end - start for start, end in self)

    @property
    def missing(self) -> int:
        """How many numbers between the first and the last are not there."""
        return self._ends[-1] - self._starts[0] - len(self) if self._starts else 0

    def next_after(self, number: int) -> int:
        """The first number from `number` on that is not there."""
        place = bisect_right(self._starts, number) - 1
        return self._ends[place] if place >= 0 and number < self._ends[place] else number
