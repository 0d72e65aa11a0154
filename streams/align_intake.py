"""One call's readings: checked, marked late or missing, cut where ticks may close, and kept."""

from collections.abc import Callable, Mapping

import numpy as np

from streams.align_state import FAR, NEVER, Bools, Floats, Ints, Readings, SensorState
from streams.align_store import Store

LATEST_US = 7_258_118_400_000_000  # the year 2200: a time beyond has the wrong unit


def take_readings(
    store: Store,
    state: SensorState,
    batch: Readings,
    ahead_us: int | None,
    advance: Callable[[], None],
) -> None:
    """Takes a batch in the order of arrival; `advance` closes what can be closed."""
    if not len(batch.time):
        return
    everything = batch
    store.count("readings", len(batch.time))
    rest = _in_range(store, state, _not_future(store, state, batch, ahead_us))
    newest = int(rest.time.max(initial=NEVER))
    while len(rest.time):
        clock = _clock_before(store, rest)
        rest, clock = _refuse(store, state, rest, clock, _late(store, rest, clock[:1]))
        # Where lateness runs out within the batch, what comes after that meets another state.
        expiring = np.flatnonzero(_late(store, rest, clock))
        end = int(expiring[0]) if len(expiring) else len(rest.time)
        if end:
            _by_segment(store, state, rest.take(slice(0, end)), clock[:end], advance)
        rest = rest.take(slice(end, None))
    np.maximum.at(store.sources.position, everything.source, everything.offset + 1)
    if store.resume is not None:
        store.progress.newest = max(store.progress.newest, newest)
        advance()


def table_of(state: SensorState, count: int, values: Mapping[str, Floats] | Floats) -> Floats:
    """[n, columns of the sensor] from values per channel."""
    if isinstance(values, np.ndarray):
        return np.asarray(values, dtype=np.float64)
    columns = [
        np.asarray(values[channel.name], dtype=np.float64).reshape(count, channel.size)
        for channel in state.channels
    ]
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def origin(
    store: Store, topic: str, count: int, partition: Ints | int, offset: Ints | None
) -> tuple[Ints, Ints]:
    """[n] source and [n] offset of one call's records."""
    if isinstance(partition, int):
        source = store.sources.index(topic, partition)
        begin = int(store.sources.position[source])
        places = np.arange(begin, begin + count) if offset is None else np.asarray(offset)
        return np.full(count, source, dtype=np.int64), places.astype(np.int64)
    if offset is None:
        raise ValueError("records of several partitions need their offsets")
    # Those that occur, and no others: not every aligner reads all partitions.
    present = np.bincount(partition)
    numbers = np.zeros(len(present), dtype=np.int64)
    for number in np.flatnonzero(present).tolist():
        numbers[number] = store.sources.index(topic, number)
    return numbers[partition] if count else numbers, np.asarray(offset, dtype=np.int64)


def _not_future(
    store: Store, state: SensorState, batch: Readings, ahead_us: int | None
) -> Readings:
    limit = LATEST_US
    clock = max(store.progress.now, store.progress.newest)
    if ahead_us is not None and clock != NEVER:
        limit = min(limit, clock + ahead_us)
    odd = (batch.time > limit) | (batch.time < -LATEST_US)
    if not odd.any():
        return batch
    text = "its time lies too far ahead: check the clock and the unit of time"
    store.reject(state.spec.name, batch, np.flatnonzero(odd), "future", text)
    return batch.take(~odd)


def _in_range(store: Store, state: SensorState, batch: Readings) -> Readings:
    """Marks channels out of range as missing; a vector is missing as a whole."""
    values = batch.values
    with np.errstate(invalid="ignore"):
        inside = (values >= state.low) & (values <= state.high)
    if inside.all():
        return batch._replace(complete=True)
    values = values.copy()
    for channel, columns in zip(state.channels, state.slices, strict=True):
        absent = np.isnan(values[:, columns]).any(axis=1)
        outside = ~absent & ~inside[:, columns].all(axis=1)
        store.count("missing", int(absent.sum()))
        if outside.any():
            text = f"{channel.name} is outside [{channel.low:g}, {channel.high:g}]"
            store.reject(state.spec.name, batch, np.flatnonzero(outside), "out_of_range", text)
        values[absent | outside, columns] = np.nan
    return batch._replace(values=values)


def _blind(batch: Readings) -> Bools:
    """[n] readings in which every channel is missing."""
    if batch.complete:
        return np.zeros(len(batch.time), dtype=np.bool_)
    return np.asarray(np.isnan(batch.values).all(axis=1))


def _clock_before(store: Store, batch: Readings) -> Ints:
    """[n] the time that expires lateness just before each reading arrives."""
    progress, sources = store.progress, store.sources
    event = progress.clock == "event"
    clock = np.full(len(batch.time), progress.newest if event else progress.now, dtype=np.int64)
    if event:
        np.maximum(clock[1:], np.maximum.accumulate(batch.time)[:-1], out=clock[1:])
    for source in np.flatnonzero(sources.lagging):
        before = np.full(len(clock), sources.progress[source], dtype=np.int64)
        here = np.where(batch.source == source, batch.time, NEVER)
        np.maximum(before[1:], np.maximum.accumulate(here)[:-1], out=before[1:])
        np.minimum(clock, before, out=clock)
    return clock


def _late(store: Store, batch: Readings, clock: Ints) -> Bools:
    """[n] readings whose tick has closed, or whose lateness had run out at `clock` ([n] or [1]).

    What had been read before a restart came in time, unless a frame already has it.
    """
    cohort = store.entities.cohort[batch.entity]
    late = store.progress.expired_ticks(batch.tick, clock)
    if store.resume is not None:
        late &= ~store.resume.read_before(cohort, batch.source, batch.offset)
    return np.asarray(late | (batch.tick <= store.progress.closed[cohort]))


def _refuse(
    store: Store, state: SensorState, batch: Readings, clock: Ints, late: Bools
) -> tuple[Readings, Ints]:
    """Takes out the late ones; those that had been read before a restart are passed over."""
    if not late.any():
        return batch, clock
    refused = late
    if store.resume is not None:
        cohort = store.entities.cohort[batch.entity]
        known = store.resume.read_before(cohort, batch.source, batch.offset)
        _recall(state, batch, np.flatnonzero(late & known))
        refused = late & ~known
    rows = np.flatnonzero(refused)
    again = batch.time[rows] == state.last_seen()[batch.entity[rows]]
    store.count("duplicate", int(again.sum()))
    store.reject(state.spec.name, batch, rows[~again], "late", "its tick has closed")
    return batch.take(~late), clock[~late]


def _recall(state: SensorState, batch: Readings, rows: Ints) -> None:
    """A neighbour of `linear` channels from before a restart: frames hold what was made of it."""
    for channel in state.linear:
        columns = state.slices[channel]
        for row in rows[batch.time[rows] == state.newest[channel, batch.entity[rows]]]:
            who = batch.entity[row]
            if state.origin[channel, who] == FAR and not np.isnan(batch.values[row, columns][0]):
                state.held[columns, who] = batch.values[row, columns]
                state.origin[channel, who] = batch.offset[row]
                state.origin_source[channel, who] = batch.source[row]


def _by_segment(
    store: Store, state: SensorState, batch: Readings, clock: Ints, advance: Callable[[], None]
) -> None:
    """Takes readings none of which is late yet; closes what can be closed before each cut."""
    cuts = store.progress.cuts(state, batch, _blind(batch), clock, store.earliest())
    if store.resume is not None:
        cuts = np.union1d(cuts, store.resume.cuts(batch))
    begin, position = 0, store.sources.position
    for cut in [*cuts.tolist(), len(batch.time)]:
        if cut > begin:
            part = batch.take(slice(begin, cut)) if cut - begin < len(batch.time) else batch
            _append(store, state, part, clock[begin:cut])
        if cut < len(batch.time):
            if store.progress.clock == "event":
                store.progress.newest = max(store.progress.newest, int(clock[cut]))
            source = batch.source[cut]
            position[source] = max(int(position[source]), int(batch.offset[cut]))
        advance()
        begin = cut


def _append(store: Store, state: SensorState, batch: Readings, clock: Ints) -> None:
    sources, progress = store.sources, store.progress
    np.maximum.at(sources.progress, batch.source, batch.time)
    np.maximum.at(sources.position, batch.source, batch.offset + 1)
    if progress.clock == "event":  # also what was passed over after a restart moved it
        progress.newest = max(progress.newest, int(clock.max()))
    progress.newest = max(progress.newest, int(batch.time.max()))
    batch, _ = _refuse(store, state, batch, clock, _late(store, batch, clock))
    if not len(batch.time):
        return
    blind = _blind(batch)
    store.count("blind", int(blind.sum()))
    said = ~blind if blind.any() else slice(None)
    np.maximum.at(progress.passed[state.number], batch.entity, batch.time)
    np.maximum.at(progress.seen[state.number], batch.entity[said], batch.time[said])
    state.keep(batch)
