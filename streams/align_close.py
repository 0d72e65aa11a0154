"""Closing: from what waits to frames, for as many ticks and cohorts at once as may close."""

from typing import NamedTuple

import numpy as np

from schemas.context import context_values
from schemas.frames import FrameHeader, Offsets
from streams.align_frames import Grid, frames_of
from streams.align_methods import Window, align_sensor
from streams.align_progress import Closable
from streams.align_state import FAR, NEVER, Bools, Floats, Ints, Readings, SensorState
from streams.align_store import Store

_CELLS = 1_000_000  # columns × ticks × entities of the largest grid made at once


class Places(NamedTuple):
    """What the headers of the frames that close together share."""

    offsets: Offsets
    positions: Offsets
    seen_us: int


def advance(store: Store, epoch: int) -> None:
    """Closes every tick that may close now; its frames go to `store.frames`."""
    places: Places | None = None
    if store.resume is not None:
        _arrive(store)
    while True:
        closable = store.progress.closable(store.earliest())
        if store.resume is not None:
            closable.last[store.resume.waiting] = NEVER
        todo = closable.first <= closable.last
        if not todo.any():
            break
        places = places or _places(store)
        first = int(closable.first[todo].min())
        room = max(1, _CELLS // (len(store.entities) * len(store.spec.columns)))
        end = min(int(closable.last[todo].max()) + 1, first + room)
        last = np.where(todo, np.minimum(closable.last, end - 1), NEVER)
        _close(store, epoch, places, Closable(closable.first, last), range(first, end))
    if places is not None:
        expired = store.progress.expired
        margin = 1 - (-store.spec.lateness_us // store.spec.period_us)
        store.actions.prune(expired - margin)


def _arrive(store: Store) -> None:
    """Cohorts that have been read again up to their last frame go on."""
    resume = store.resume
    assert resume is not None
    fresh = resume.arrive() & resume.fresh
    if fresh.any():
        expired = store.progress.expired
        for state in store.sensors.values():
            for i, part in enumerate(state.parts):
                late = fresh[store.entities.cohort[part.entity]] & (part.tick <= expired)
                state.parts[i] = part.take(~late)
    if not resume.waiting.any():
        store.resume = None


def _places(store: Store) -> Places:
    """Offsets from which all that waits, and all that is held for later, can be read again."""
    sources = store.sources
    first = sources.position.copy()
    members = store.progress.has_members
    closed = int(store.progress.closed[members].min()) if members.any() else NEVER
    closed_us = store.spec.epoch_us + closed * store.spec.period_us if closed != NEVER else NEVER
    for state in store.sensors.values():
        for part in state.parts:
            np.minimum.at(first, part.source, part.offset)
        for channel in state.linear:
            rows = (state.origin[channel] != FAR) & (
                state.newest[channel] + state.spec.max_age_us >= closed_us
            )
            np.minimum.at(first, state.origin_source[channel, rows], state.origin[channel, rows])
    marked = sources.watermark >= closed_us - 4 * store.spec.period_us
    marked &= sources.watermark_offset >= 0
    first[marked] = np.minimum(first[marked], sources.watermark_offset[marked])
    first = np.minimum(first, store.actions.first_offsets(len(sources), closed))
    offsets: Offsets = {}
    positions: Offsets = {}
    for (name, partition), begin, position in zip(
        sources.places, first.tolist(), sources.position.tolist(), strict=True
    ):
        offsets.setdefault(name, {})[partition] = begin
        positions.setdefault(name, {})[partition] = position
    return Places(offsets, positions, store.progress.newest)


class _Sensed(NamedTuple):
    """All sensors on the grid: see `align_methods.Aligned`."""

    values: Floats  # [O, ticks, E]
    raw: Floats  # [observed, ticks, E]
    newest: Ints  # [channels, ticks, E]
    origin: Ints  # [channels, ticks, E]
    pending: list[Readings]


def _close(store: Store, epoch: int, places: Places, span: Closable, ticks: range) -> None:
    """Closes each cohort's span within `ticks`, or up to where its last entity leaves."""
    spec, cohort = store.spec, store.entities.cohort
    number = np.arange(ticks.start, ticks.stop)[:, None]
    time = spec.epoch_us + number * spec.period_us
    blocked = store.progress.blocked(ticks.start, len(ticks), span.first)
    sensed = _sense(store, Window(ticks.start, time, span.last[cohort]))
    within = (number >= span.first[cohort]) & (number <= span.last[cohort])
    alive = _alive(store, sensed, time, within)
    last = _until_empty(store, alive, number, span)
    alive &= number <= last[cohort]
    before = np.concatenate([store.members[None], alive[:-1]])
    starts = np.flatnonzero(within.any(axis=0))
    begin = span.first[cohort[starts]] - ticks.start
    before[begin, starts] = store.members[starts]
    before &= within & (number <= last[cohort])
    behind = (span.first > store.progress.closed + 1) & (span.first <= last)
    for late in np.flatnonzero(behind):
        store.actions.catch_up(int(span.first[late]) - 1, cohort == late)
    action = store.actions.in_force(ticks.start, len(ticks), last[cohort])
    _fill_context(store, sensed.values, time)
    reset = _resets(store, alive, number)
    grid = Grid(
        ticks.start, time, sensed.values, sensed.newest, action, alive, before, blocked, reset
    )
    _keep(store, sensed, alive, last, ticks.start)
    headers = _headers(store, epoch, places, ticks)
    store.frames += frames_of(grid, store.entities, headers, (span.first, last))


def _sense(store: Store, window: Window) -> _Sensed:
    size = (len(window.time), len(window.last))
    values = np.empty((len(store.spec.columns), *size))
    raw = np.empty((len(store.spec.observed_columns), *size))
    newest = np.empty((len(store.spec.channels), *size), dtype=np.int64)
    origin = np.empty_like(newest)
    waiting = []
    for state in store.sensors.values():
        pending, dropped = state.pending()
        store.count("duplicate", dropped)
        aligned = align_sensor(state, pending, window)
        values[state.columns], raw[state.columns] = aligned.values, aligned.raw
        newest[state.channel_range] = aligned.newest
        origin[state.channel_range] = aligned.origin
        waiting.append(pending)
    return _Sensed(values, raw, newest, origin, waiting)


def _alive(store: Store, sensed: _Sensed, time: Ints, within: Bools) -> Bools:
    """[ticks, E] who was heard of within `forget_after`; who left begins anew when it is back."""
    life = sensed.newest.max(axis=0)
    heard = within & (life != NEVER)
    gone = heard & (time - life > store.spec.forget_us)
    if gone.any():
        past = np.maximum.accumulate(np.where(gone, life, NEVER), axis=0)
        forgotten = (sensed.newest <= past) & (past != NEVER)
        sensed.newest[forgotten] = NEVER
        columns = np.repeat(forgotten, [c.size for c in store.spec.channels], axis=0)
        sensed.values[: len(columns)][columns] = np.nan
    return np.asarray(heard & ~gone)


def _until_empty(store: Store, alive: Bools, number: Ints, span: Closable) -> Ints:
    """[cohorts] the last tick of each span, or the one at which nobody is left: it has no frame."""
    some = (alive.astype(np.float32) @ store.in_cohort) > 0
    empty = ~some & (number >= span.first) & (number <= span.last)
    if not empty.any():
        return span.last
    at = number[np.argmax(empty, axis=0), 0]
    return np.where(empty.any(axis=0), at, span.last)


def _fill_context(store: Store, values: Floats, time: Ints) -> None:
    if store.spec.context:
        made = context_values(store.spec.context, time[:, 0])
        values[len(store.spec.observed_columns) :] = made.T[:, :, None]


def _resets(store: Store, alive: Bools, number: Ints) -> Bools:
    """[ticks, E] the first frame of an entity from the tick on at which its episode ended."""
    due = alive & (number >= store.reset_tick)
    if due.any():
        due[1:] &= ~np.logical_or.accumulate(due, axis=0)[:-1]
        store.reset_tick[due.any(axis=0)] = FAR
    return due


def _keep(store: Store, sensed: _Sensed, alive: Bools, last: Ints, first: int) -> None:
    """What the next ticks start from: who is there, what is held, what waits."""
    progress, cohort = store.progress, store.entities.cohort
    who = np.flatnonzero(last[cohort] >= first)
    row = last[cohort[who]] - first
    for state, pending in zip(store.sensors.values(), sensed.pending, strict=True):
        columns, channels = state.columns, state.channel_range
        state.newest[:, who] = sensed.newest[channels, row, who]
        state.held[:, who] = sensed.raw[columns, row, who]
        for channel in state.linear:
            origin = sensed.origin[channels.start + channel, row, who]
            new = origin >= 0
            state.origin[channel, who[new]] = pending.offset[origin[new]]
            state.origin_source[channel, who[new]] = pending.source[origin[new]]
        _keep_waiting(state, pending, last[cohort], progress.expired)
    store.members[who] = alive[row, who]
    left = who[~store.members[who]]
    for state in store.sensors.values():
        state.newest[:, left], state.held[:, left], state.origin[:, left] = NEVER, np.nan, FAR
        seen = progress.seen[state.number]
        end = _time(store, last[cohort[left]])
        seen[left] = np.where(seen[left] <= end, NEVER, seen[left])
        state.reached[:, left] = np.where(
            state.reached[:, left] <= end, NEVER, state.reached[:, left]
        )
    some = (alive.astype(np.float32) @ store.in_cohort) > 0
    progress.closed = np.where(
        some.any(axis=0), first + len(some) - 1 - np.argmax(some[::-1], axis=0), progress.closed
    )
    progress.set_members((store.members.astype(np.float32) @ store.in_cohort) > 0)


def _time(store: Store, tick: Ints) -> Ints:
    return np.asarray(store.spec.epoch_us + tick * store.spec.period_us)


def _keep_waiting(state: SensorState, pending: Readings, last: Ints, expired: int) -> None:
    stays = pending.tick > last[pending.entity]
    if not pending.complete:  # a blind reading passes its tick, and is of no other use
        stays &= (pending.tick > expired) | ~np.isnan(pending.values).all(axis=1)
    state.parts = [pending.take(stays)] if stays.any() else []


def _headers(store: Store, epoch: int, places: Places, ticks: range) -> list[FrameHeader]:
    """[ticks] what the headers of all cohorts at a tick share."""
    spec, counters = store.spec, dict(store.counters)
    headers = []
    for tick in ticks:
        time_us = spec.epoch_us + tick * spec.period_us
        headers.append(
            FrameHeader(
                system=spec.system,
                cohort=-1,
                tick=tick,
                time_us=time_us,
                epoch=epoch,
                spec_hash=spec.spec_hash,
                interface_hash=spec.interface_hash,
                offsets=places.offsets,
                positions=places.positions,
                seen_us=places.seen_us,
                control=store.control.at(time_us),
                counters=counters,
            )
        )
    return headers
