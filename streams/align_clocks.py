"""Device clocks: how far each is off by the broker's clock, and times as if it were not.

A reading that a device stamped t and the broker received at b was on its way for b - t, less what
the clock is behind. Jitter only adds to that, so the smallest b - t of many says the offset, up to
the smallest transit delay, and the line under the smallest of several stretches its drift (Moon,
Skelly, Towsley: Estimation and removal of clock skew from network delay measurements, 1999).
"""

from typing import Final, NamedTuple

import numpy as np

from streams.align_state import Bools, Floats, Ints, by_entity, first_in_segment, grown

_STRETCHES: Final = 16  # kept: a drift is seen over two minutes or more
_STRETCH_US: Final = 8e6
_STRETCH: Final = 24  # readings that a stretch has at least
_FIT: Final = 4  # stretches from which on a drift is estimated
_DRIFT: Final = 500e-6  # no quartz is worse
_RESOLUTION_US: Final = 1_000.0  # of the broker's stamps
_TAIL: Final = 6  # of n readings at a mean height h above the line, one in 20 would leave it 6 h/n
_SURE: Final = 5  # times that: by chance one clock in a million seems to be behind by more
_STEP_US: Final = 1_000.0  # a correction moves by no less: repeated readings keep equal times
_YOUNG: Final = 8  # readings before a clock may be said to be behind: old ones may come first,
_YOUNG_US: Final = 1e6  # and all at once
_AHEAD: Final = 3  # readings in a row that say that a clock was set forward; back: _YOUNG
_QUEUE: Final = 16  # readings per clock that are learnt from at once: little work for each,
_QUEUE_US: Final = 1_000_000  # or those of so long


class Jump(NamedTuple):
    """A clock that was set: the row of its entity, and by how much it went forward, us."""

    entity: int
    forward_us: float


class _Spans(NamedTuple):
    """Readings grouped by entity: `rows` [k]; the rest is [k], or of each reading [n]."""

    rows: Ints
    start: Ints
    excess: Floats  # [n] us above the line
    first_at: Floats
    last_at: Floats

    def low(self, values: Floats) -> Floats:
        return np.asarray(np.minimum.reduceat(values, self.start))

    def high(self, values: Floats) -> Floats:
        return np.asarray(np.maximum.reduceat(values, self.start))

    def total(self, values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, self.start))


class DeviceClocks:
    """The clocks of one sensor of every entity; all arrays are [E], times in us.

    A clock counts as right, and its times stay exactly as they are, while it is off by no more than
    `tolerance_us` (the smallest transit delay included) and the estimate's uncertainty.

    base, since, slope  the line: b - t at the time `since`, and its change (drift: minus that)
    spread       mean height of readings above the line
    uncertainty  of the line, in 19 of 20: the broker's resolution, and what is not seen below it
    applied      what is added to a device's times
    """

    def __init__(self, tolerance_us: int) -> None:
        self.tolerance_us = float(tolerance_us)
        self.jumps = 0
        self._size = 0
        self._origin: int | None = None
        self._queue: list[tuple[Ints, Ints, Ints]] = []
        self._queued, self._oldest = 0, 0
        none = np.zeros(0)
        self.base, self.since, self.slope, self.spread = none, none, none, none
        self.uncertainty, self._applied = none, none
        # the stretch in progress: readings, sum of heights, the lowest and its time, its begin
        self._count, self._sum, self._low, self._low_at, self._began = none, none, none, none, none
        # readings in a row that are all far off the line: how many, the least and most, since when
        self._odd, self._odd_low, self._odd_high, self._odd_began = none, none, none, none
        self._stretches: Floats = np.zeros((2, _STRETCHES, 0))  # lowest b - t of each, and its time
        self.applied: Ints = np.zeros(0, dtype=np.int64)

    def correct(self, entity: Ints, time_us: Ints) -> Ints:
        """[n] the times that readings would have by the broker's clock."""
        if entity.max(initial=-1) >= self._size or not self.applied.any():
            return time_us
        return np.asarray(time_us + self.applied[entity])

    def heard(self, entity: Ints, time_us: Ints, broker_us: Ints) -> None:
        """Notes readings [n]: the times that devices gave them and when the broker had them."""
        if not len(entity):
            return
        if self._origin is None:
            self._origin = int(broker_us[0])
        if not self._queue:
            self._oldest = int(broker_us[0])
        self._queue.append((entity, time_us, broker_us))
        self._queued += len(entity)

    def due(self) -> bool:
        """Whether there is enough to learn from."""
        if not self._queue:
            return False
        newest = int(self._queue[-1][2][-1])
        return self._queued >= _QUEUE * self._size or newest - self._oldest >= _QUEUE_US

    def meets_new(self) -> bool:
        """Whether nothing was known of a clock before it was heard last."""
        entity = self._queue[-1][0] if self._queue else np.zeros(0, dtype=np.int64)
        return int(entity.max(initial=-1)) >= self._size or bool(np.isnan(self.base[entity]).any())

    def learn(self) -> list[Jump]:
        """Brings the estimates up to date; gives the clocks that jumped."""
        if not self._queue:
            return []
        entity, time_us, broker_us = (np.concatenate(part) for part in zip(*self._queue))  # noqa: B905
        self._queue, self._queued = [], 0
        self._grow(int(entity.max()) + 1)
        order = by_entity(entity)
        entity = entity[order]
        delay = (broker_us - time_us)[order].astype(np.float64)
        at = (broker_us - self._origin)[order].astype(np.float64)
        start = np.flatnonzero(first_in_segment(entity))
        rows, end = entity[start], np.append(start[1:], len(entity)) - 1
        self._begin(rows, np.minimum.reduceat(delay, start), at[start])
        spans = _Spans(rows, start, delay - self._line(entity, at), at[start], at[end])
        jumps = self._follow(spans, self._near(spans, entity))
        self._close(rows[self._ripe(rows, spans.last_at)], spans)
        self._apply(rows, spans.last_at)
        self.jumps += len(jumps)
        return jumps

    def corrected(self, most: int) -> Ints:
        """Rows of up to `most` clocks that are corrected, the worst first."""
        applied = np.abs(self.applied)
        rows = np.argsort(-applied, kind="stable")[:most]
        return rows[applied[rows] > 0]

    def estimate(self, row: int) -> dict[str, float]:
        """`offset_s` and `uncertainty_s` (s) of one clock, ahead: positive; `drift` (s per s)."""
        return {
            "offset_s": -float(self.base[row]) / 1e6,
            "uncertainty_s": float(self.uncertainty[row]) / 1e6,
            "drift": -float(self.slope[row]),
        }

    # parts of `learn`

    def _grow(self, size: int) -> None:
        if size <= self._size:
            return
        for name in ("base", "_low", "_low_at", "_odd_low", "_odd_high", "_odd_began"):
            setattr(self, name, grown(getattr(self, name), size, np.nan))
        for name in ("since", "slope", "spread", "uncertainty", "_count", "_sum", "_began", "_odd"):
            setattr(self, name, grown(getattr(self, name), size, 0.0))
        self._stretches = grown(self._stretches, size, np.nan).astype(np.float64)
        self.applied = grown(self.applied, size, 0).astype(np.int64)
        self._size = size

    def _line(self, rows: Ints, at: Floats) -> Floats:
        return np.asarray(self.base[rows] + self.slope[rows] * (at - self.since[rows]))

    def _reach(self, rows: Ints) -> Floats:
        """[k] how far from the line is far; without limit while too little is known."""
        young = (self._count[rows] < _STRETCH) & np.isnan(self._stretches[0, -1, rows])
        far = np.maximum(2 * self.tolerance_us, 4 * self.spread[rows])
        return np.where(young, np.inf, far)

    def _begin(self, rows: Ints, delay: Floats, at: Floats) -> None:
        new = np.isnan(self.base[rows])
        who = rows[new]
        self.base[who], self.since[who], self._began[who] = delay[new], at[new], at[new]

    def _near(self, spans: _Spans, entity: Ints) -> Bools:
        reach = np.repeat(self._reach(spans.rows), np.diff(spans.start, append=len(entity)))
        return np.abs(spans.excess) <= reach

    def _follow(self, spans: _Spans, near: Bools) -> list[Jump]:
        """The line goes below all that is near it; what is far from it may be a jump."""
        count = spans.total(near.astype(np.float64))
        some = count > 0
        rows = spans.rows[some]
        low = spans.low(np.where(near, spans.excess, np.inf))[some]
        total = spans.total(np.where(near, spans.excess, 0.0))[some]
        down = np.minimum(low, 0.0)
        self.base[rows] += down
        self._sum[rows] += total - down * (self._count[rows] + count[some])
        self._count[rows] += count[some]
        self._low[rows] -= down
        lower = ~(self._low[rows] <= low - down)
        who = rows[lower]
        self._low[who], self._low_at[who] = (low - down)[lower], spans.last_at[some][lower]
        self._odd[rows] = 0.0
        return self._jumps(spans, ~some) if not some.all() else []

    def _jumps(self, spans: _Spans, odd: Bools) -> list[Jump]:
        """Clocks whose readings were all far off the line, and alike, for long enough."""
        rows, reach = spans.rows[odd], self._reach(spans.rows[odd])
        low, high = spans.low(spans.excess)[odd], spans.high(spans.excess)[odd]
        count = spans.total(np.ones_like(spans.excess))[odd]
        least = np.fmin(self._odd_low[rows], low)
        most = np.fmax(self._odd_high[rows], high)
        goes_on = (self._odd[rows] > 0) & (most - least <= reach)
        self._odd[rows] = np.where(goes_on, self._odd[rows] + count, count)
        self._odd_low[rows] = least = np.where(goes_on, least, low)
        self._odd_high[rows] = most = np.where(goes_on, most, high)
        began = np.where(goes_on, self._odd_began[rows], spans.first_at[odd])
        self._odd_began[rows] = began
        long = (self._odd[rows] >= _YOUNG) & (spans.last_at[odd] - began >= _YOUNG_US)
        ahead = (self._odd[rows] >= _AHEAD) & (most < 0)
        jumped = (most - least <= reach) & (ahead | (long & (least > 0)))
        self._restart(rows[jumped], least[jumped], began[jumped], spans.last_at[odd][jumped])
        return [
            Jump(row, -by) for row, by in zip(rows[jumped].tolist(), least[jumped], strict=True)
        ]

    def _restart(self, rows: Ints, by: Floats, began: Floats, at: Floats) -> None:
        """A clock that was set: its drift stays, all else is learnt again."""
        self.base[rows] += by
        self._stretches[:, :, rows] = np.nan
        self._count[rows], self._sum[rows] = self._odd[rows], 0.0
        self._low[rows], self._low_at[rows], self._began[rows] = 0.0, at, began
        self._odd[rows] = 0.0

    def _ripe(self, rows: Ints, at: Floats) -> Bools:
        return (self._count[rows] >= _STRETCH) & (at - self._began[rows] >= _STRETCH_US)

    def _close(self, rows: Ints, spans: _Spans) -> None:
        """Ends a stretch of each of `rows`, and lays the line under the stretches anew."""
        if not len(rows):
            return
        at = spans.last_at[np.searchsorted(spans.rows, rows)]
        kept = self._stretches
        kept[:, :-1, rows] = kept[:, 1:, rows]
        kept[0, -1, rows] = self._line(rows, self._low_at[rows]) + self._low[rows]
        kept[1, -1, rows] = self._low_at[rows]
        lows, times = kept[:, :, rows]
        fit = rows[(~np.isnan(lows)).sum(axis=0) >= _FIT]
        if len(fit):
            self.slope[fit] = np.clip(_slope(*kept[:, :, fit]), -_DRIFT, _DRIFT)
        self.base[rows] = np.nanmin(lows + self.slope[rows] * (at - times), axis=0)
        self.since[rows] = at
        self.spread[rows] = self._sum[rows] / self._count[rows]
        self.uncertainty[rows] = _RESOLUTION_US + _TAIL * self.spread[rows] / self._count[rows]
        self._count[rows], self._sum[rows], self._low[rows] = 0.0, 0.0, np.nan
        self._began[rows] = at

    def _apply(self, rows: Ints, at: Floats) -> None:
        young = np.isnan(self._stretches[0, -1, rows])
        new, count = rows[young], np.maximum(self._count[rows[young]], 1.0)
        self.spread[new] = self._sum[new] / count
        self.uncertainty[new] = _RESOLUTION_US + _TAIL * self.spread[new] / count
        self.base[rows], self.since[rows] = self._line(rows, at), at
        offset, before = self.base[rows], self.applied[rows]
        known = ~young | (self._count[rows] >= _YOUNG) & (at - self._began[rows] >= _YOUNG_US)
        # Nothing arrives before it was measured: a clock that is ahead is, for sure.
        off = offset < -self.tolerance_us - _RESOLUTION_US
        off |= known & (offset > self.tolerance_us + _SURE * self.uncertainty[rows])
        off |= (before != 0) & (np.abs(offset) > self.tolerance_us / 2)
        wanted = np.where(off, np.rint(offset), 0.0)
        moves = (np.abs(wanted - before) >= _STEP_US) | (wanted == 0.0)
        self.applied[rows] = np.where(moves, wanted, before).astype(np.int64)


def _slope(lows: Floats, times: Floats) -> Floats:
    """[k] slope of the edge of the lower hull above the middle; `lows`, `times` [stretches, k].

    That edge is the line below all points with the least distance to them; NaN: no stretch.
    """
    middle = (np.nanmin(times, axis=0) + np.nanmax(times, axis=0)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        run = times[None] - times[:, None]
        slope = (lows[None] - lows[:, None]) / run
        height = lows[:, None] + slope * (middle - times[:, None])
        over = (times[:, None] <= middle) & (times[None] >= middle) & (run > 0)
    height = np.where(over, height, np.inf).reshape(-1, lows.shape[1])
    best = np.argmin(height, axis=0)
    return np.asarray(slope.reshape(height.shape)[best, np.arange(lows.shape[1])])
