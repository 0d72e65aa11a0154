"""The alignments: one sensor's readings become values and times on a grid of ticks and entities."""

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from streams.align_state import NEVER, Bools, Floats, Ints, Readings, SensorState, first_in_segment


class Window(NamedTuple):
    """A run of ticks `first`, `first + 1`, …; `time` is [ticks, 1] in us, `last` [E] the last tick
    that closes for each entity."""

    first: int
    time: Ints
    last: Ints


class Aligned(NamedTuple):
    """One sensor on the grid.

    values  [columns, ticks, E]   NaN where missing or older than the maximum age
    raw     [columns, ticks, E]   what is held from here on
    newest  [channels, ticks, E]  time of the newest reading at or before the tick; NEVER
    origin  [channels, ticks, E]  index of that reading in the pending ones; -1: it is the held one
    """

    values: Floats
    raw: Floats
    newest: Ints
    origin: Ints


class _Groups(NamedTuple):
    """Readings by (entity, tick): `rows` of the pending ones, where each group starts and ends.

    cell  [ticks, E] the newest group at or before each tick, -1 where there is none
    own   [ticks, E] whether that group is of this very tick
    """

    rows: Ints
    start: Ints
    last: Ints
    cell: Ints
    own: Bools


def _groups(pending: Readings, rows: Ints, window: Window) -> _Groups:
    entity, tick = pending.entity[rows], pending.tick[rows]
    first = first_in_segment(entity)
    first[1:] |= tick[1:] != tick[:-1]
    start = np.flatnonzero(first)
    last = np.append(start[1:], len(rows)) - 1 if len(rows) else start
    cell = np.full((len(window.time), len(window.last)), -1, dtype=np.int64)
    cell[tick[start] - window.first, entity[start]] = np.arange(len(start))
    own = cell >= 0
    # Groups are numbered by (entity, tick), so the largest number so far is the newest group.
    return _Groups(rows, start, last, np.maximum.accumulate(cell, axis=0), own)


def _per_group(align: str, groups: _Groups, column: Floats) -> Floats:
    """[groups] one column's value in each group."""
    values = np.ascontiguousarray(column[groups.rows])  # one layout: sums are the same bits
    if align in ("latest", "linear"):
        return values[groups.last]
    counts = groups.last - groups.start + 1
    if align == "count":
        return counts.astype(np.float64)
    if align == "max":
        return np.asarray(np.maximum.reduceat(values, groups.start), dtype=np.float64)
    sums = np.add.reduceat(values, groups.start)
    return np.asarray(sums / counts if align == "mean" else sums, dtype=np.float64)


_Number = TypeVar("_Number", np.int64, np.float64)


def _spread(
    cell: Ints, per_group: npt.NDArray[_Number], otherwise: npt.NDArray[_Number]
) -> npt.NDArray[_Number]:
    """[ticks, E] the group's value, or what was held before where there is no group yet."""
    if len(per_group) == 0:
        return np.broadcast_to(otherwise, cell.shape).copy()
    return np.where(cell >= 0, per_group[cell], otherwise)


def _interpolated(
    state: SensorState,
    channel: int,
    pending: Readings,
    groups: _Groups,
    newest: Ints,
    window: Window,
) -> tuple[Bools, Ints, Floats]:
    """Where a later neighbour is known, its row, and how far between the two the tick lies."""
    size = len(window.last)
    present = np.flatnonzero(~np.isnan(pending.values[:, state.slices[channel].start]))
    entity = pending.entity[present]
    begin = np.searchsorted(entity, np.arange(size))
    place = np.searchsorted(present, groups.rows[groups.last])
    following = _spread(groups.cell, place + 1, begin)
    inside = np.minimum(following, max(len(present) - 1, 0))
    if len(present) == 0:
        return np.zeros(newest.shape, np.bool_), following, np.zeros(newest.shape)
    known = (following < len(present)) & (entity[inside] == np.arange(size))
    later = present[inside]
    gap = pending.time[later] - newest
    known &= (newest != NEVER) & (newest < window.time) & (gap <= state.spec.max_age_us)
    share = np.where(known, window.time - newest, 0) / np.where(known, gap, 1)
    return known, later, share


def align_sensor(state: SensorState, pending: Readings, window: Window) -> Aligned:
    """Puts `pending` (sorted, without duplicates) on the grid; nothing is changed.

    latest  the last value at or before the tick
    linear  between the neighbours of the tick; the last value while the later one has not come, or
            where they are further apart than the maximum age
    mean, max  over the readings in (tick k-1, tick k]; over an empty window the last value is held
    sum, count  likewise, and 0 over an empty window once the channel has been seen
    """
    shape = (len(window.time), len(window.last))
    values = np.empty((len(state.low), *shape))
    raw = np.empty_like(values)
    newest = np.empty((len(state.channels), *shape), dtype=np.int64)
    origin = np.empty_like(newest)
    closing = pending.tick <= window.last[pending.entity]
    shared: _Groups | None = None
    for i, channel in enumerate(state.channels):
        columns = state.slices[i]
        if shared is None or not pending.complete:
            present = closing & ~np.isnan(pending.values[:, columns.start])
            shared = _groups(pending, np.flatnonzero(present), window)
        groups = shared
        newest[i] = _spread(groups.cell, pending.time[groups.rows[groups.last]], state.newest[i])
        origin[i] = _spread(groups.cell, groups.rows[groups.last], np.full(shape[1], -1))
        missing = (window.time - newest[i] > state.spec.max_age_us) | (newest[i] == NEVER)
        for column in range(columns.start, columns.stop):
            per_group = _per_group(channel.align, groups, pending.values[:, column])
            raw[column] = _spread(groups.cell, per_group, state.held[column])
            values[column] = raw[column]
            if channel.align in ("sum", "count"):
                values[column][~groups.own] = 0.0
        if channel.align == "linear":
            known, later, share = _interpolated(state, i, pending, groups, newest[i], window)
            for column in range(columns.start, columns.stop):
                step = pending.values[later, column] - raw[column] if known.any() else 0.0
                values[column] = np.where(known, raw[column] + step * share, raw[column])
        values[columns, missing] = np.nan
    return Aligned(values, raw, newest, origin)
