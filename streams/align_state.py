"""What the aligner remembers: entities, sources, and the readings that wait for their tick."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.spec_parts import SensorSpec
from schemas.topics import cohort_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NEVER: Final = -(2**61)
"""A time or tick before every real one; far enough from the edge to be added to."""
FAR: Final = 2**61


class Rejected(NamedTuple):
    """What the aligner could not use, with the coordinates of its record."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    entity: str
    time_us: int


def grown(array: npt.NDArray[np.generic], size: int, fill: float) -> npt.NDArray[np.generic]:
    """`array` with its last axis lengthened to `size`; new places hold `fill`."""
    wider = np.full((*array.shape[:-1], size), fill, dtype=array.dtype)
    wider[..., : array.shape[-1]] = array
    return wider


class Entities:
    """Names interned to rows; each row belongs to one cohort."""

    def __init__(self, cohorts: int) -> None:
        self.cohorts = cohorts
        self.names: list[str] = []
        self.cohort: Ints = np.zeros(0, dtype=np.int64)
        self._row: dict[str, int] = {}
        self._sorted: dict[int, tuple[Ints, npt.NDArray[np.object_]]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def intern(self, names: Sequence[str]) -> Ints:
        """[n] the rows of `names`; unknown ones get the next rows."""
        rows = np.empty(len(names), dtype=np.int64)
        new: list[int] = []
        for i, name in enumerate(names):
            row = self._row.get(name, -1)
            if row < 0:
                row = self._row[name] = len(self.names)
                self.names.append(name)
                new.append(cohort_of(name, self.cohorts))
            rows[i] = row
        if new:
            self.cohort = np.concatenate([self.cohort, np.array(new, dtype=np.int64)])
            for cohort in new:
                self._sorted.pop(cohort, None)
        return rows

    def of_cohort(self, cohort: int) -> tuple[Ints, npt.NDArray[np.object_]]:
        """The rows and the names of a cohort's entities, sorted by name."""
        known = self._sorted.get(cohort)
        if known is None:
            found = np.flatnonzero(self.cohort == cohort)
            rows = np.array(sorted(found, key=lambda row: self.names[row]), dtype=np.int64)
            names = np.array([self.names[row] for row in rows], dtype=object)
            known = self._sorted[cohort] = (rows, names)
        return known


class Sources:
    """Every (topic, partition) that is read: how far, up to which event time, and what it promised.

    A *lagging* source has records that are known to exist and are not read yet. No tick closes that
    such a source has not reached: being behind is no reason to lose readings.
    """

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self.expected = dict(partitions)
        self.places: list[tuple[str, int]] = []
        self.position: Ints = np.zeros(0, dtype=np.int64)
        self.progress: Ints = np.zeros(0, dtype=np.int64)
        self.watermark: Ints = np.zeros(0, dtype=np.int64)
        self.watermark_offset: Ints = np.zeros(0, dtype=np.int64)
        self.lagging: Bools = np.zeros(0, dtype=np.bool_)
        self._index: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self.places)

    def index(self, topic: str, partition: int) -> int:
        """The number of a source; it is registered where it is new."""
        place = (topic, partition)
        found = self._index.get(place)
        if found is None:
            found = self._index[place] = len(self.places)
            self.places.append(place)
            size = len(self.places)
            self.position = grown(self.position, size, 0).astype(np.int64)
            self.progress = grown(self.progress, size, NEVER).astype(np.int64)
            self.watermark = grown(self.watermark, size, NEVER).astype(np.int64)
            self.watermark_offset = grown(self.watermark_offset, size, -1).astype(np.int64)
            self.lagging = grown(self.lagging, size, 0).astype(np.bool_)
        return found

    def topic_watermark(self, topic: str) -> int:
        """The least watermark of a topic's partitions; NEVER until each of them has one."""
        marks = [int(self.watermark[i]) for (name, _), i in self._index.items() if name == topic]
        if len(marks) < self.expected.get(topic, 1):
            return NEVER
        return min(marks, default=NEVER)

    def reached(self, topics: Iterable[str]) -> int:
        """The event time that every partition of `topics` reached; NEVER before all have one."""
        wanted = set(topics)
        found = [int(self.progress[i]) for i, place in enumerate(self.places) if place[0] in wanted]
        if len(found) < sum(self.expected.get(name, 1) for name in wanted):
            return NEVER
        return min(found, default=NEVER)

    @property
    def hold(self) -> int:
        """The event time that every lagging source has reached; FAR where none lags."""
        return int(self.progress[self.lagging].min()) if self.lagging.any() else FAR


class Readings(NamedTuple):
    """`n` readings of one sensor: rows of entities, times, ticks, values [n, columns], origin.

    A missing channel is NaN in all its columns. `complete` says that nothing is missing.
    """

    entity: Ints
    time: Ints
    tick: Ints
    values: Floats
    source: Ints
    offset: Ints
    complete: bool

    def take(self, rows: Ints | Bools | slice) -> "Readings":
        """Those in `rows` (indices or mask)."""
        entity, time, tick, values, source, offset, complete = self
        return Readings(
            entity[rows], time[rows], tick[rows], values[rows], source[rows], offset[rows], complete
        )

    @classmethod
    def join(cls, parts: Sequence["Readings"]) -> "Readings":
        """All of `parts`, one after the other."""
        return cls(
            np.concatenate([part.entity for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.tick for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.offset for part in parts]),
            all(part.complete for part in parts),
        )


def by_entity(entity: Ints) -> Ints:
    """The stable order by entity (a radix sort where the rows fit 16 bits)."""
    small = entity.astype(np.int16) if entity.size and entity.max() < 2**15 else entity
    return np.argsort(small, kind="stable")


def first_in_segment(entity: Ints) -> Bools:
    """Whether each of the sorted `entity` differs from the one before it."""
    first = np.ones(len(entity), dtype=np.bool_)
    np.not_equal(entity[1:], entity[:-1], out=first[1:])
    return first


def running_max_before(values: Ints, first: Bools, start: Ints) -> Ints:
    """The largest value in its segment before each place, and `start` (per place) at least."""
    lifted = np.where(first, np.maximum(values, start), values)
    if not np.all(first[1:] | (lifted[1:] >= lifted[:-1])):
        low = int(lifted.min())
        span = int(lifted.max()) - low + 1
        # One accumulate over all segments: each is shifted above the one before it.
        shift = (np.cumsum(first) - 1) * span
        lifted = np.maximum.accumulate(lifted - low + shift) - shift + low
    before = np.empty_like(lifted)
    before[1:] = lifted[:-1]
    return np.where(first, start, before)


class SensorState:
    """One sensor: what waits for its tick, and the last of what is in frames.

    newest  [channels, E] time of the newest reading used, per channel
    held    [columns, E]  the values that go with it
    reached [channels, E] the newest time, also of what waits, with a `linear` channel
    origin  [channels, E] and `origin_source`: where it was read, kept for `linear` channels
    """

    def __init__(
        self, spec: SensorSpec, number: int, first_column: int, first_channel: int
    ) -> None:
        self.spec = spec
        self.number = number
        self.channels = tuple(spec.channels.values())
        sizes = [channel.size for channel in self.channels]
        ends = np.cumsum(sizes)
        self.slices = [slice(int(e) - s, int(e)) for e, s in zip(ends, sizes, strict=True)]
        self.columns = slice(first_column, first_column + int(ends[-1]))
        self.channel_range = slice(first_channel, first_channel + len(sizes))
        self.low = np.repeat([c.low for c in self.channels], sizes)
        self.high = np.repeat([c.high for c in self.channels], sizes)
        self.linear = [i for i, c in enumerate(self.channels) if c.align == "linear"]
        self.parts: list[Readings] = []
        none = np.zeros(0, dtype=np.int64)
        self._nothing = Readings(none, none, none, np.zeros((0, len(self.low))), none, none, True)
        self.newest: Ints = np.zeros((len(sizes), 0), dtype=np.int64)
        self.reached: Ints = np.zeros((len(sizes), 0), dtype=np.int64)
        self.held: Floats = np.zeros((int(ends[-1]), 0))
        self.origin: Ints = np.zeros((len(sizes), 0), dtype=np.int64)
        self.origin_source: Ints = np.zeros((len(sizes), 0), dtype=np.int64)

    def grow(self, size: int) -> None:
        """Makes room for `size` entities."""
        self.newest = grown(self.newest, size, NEVER).astype(np.int64)
        self.reached = grown(self.reached, size, NEVER).astype(np.int64)
        self.held = grown(self.held, size, np.nan).astype(np.float64)
        self.origin = grown(self.origin, size, FAR).astype(np.int64)
        self.origin_source = grown(self.origin_source, size, 0).astype(np.int64)

    def pending(self) -> tuple[Readings, int]:
        """All that waits, sorted by entity and time, and how many duplicates were dropped."""
        if not self.parts:
            return self._nothing, 0
        merged = self.parts[0] if len(self.parts) == 1 else Readings.join(self.parts)
        merged = merged.take(by_entity(merged.entity))
        same = ~first_in_segment(merged.entity)
        if np.any(same[1:] & (merged.time[1:] < merged.time[:-1])):
            merged = merged.take(np.lexsort((merged.time, merged.entity)))
        repeated = ~first_in_segment(merged.entity)
        repeated[1:] &= merged.time[1:] == merged.time[:-1]
        dropped = int(repeated.sum())
        if dropped:
            merged = merged.take(~repeated)
        self.parts = [merged]
        return merged, dropped

    def keep(self, readings: Readings) -> None:
        """Lets readings wait for their tick."""
        self.parts.append(readings)
        for channel in self.linear:
            present = ~np.isnan(readings.values[:, self.slices[channel].start])
            entity, time = readings.entity[present], readings.time[present]
            np.maximum.at(self.reached[channel], entity, time)

    def last_seen(self) -> Ints:
        """[E] the time of the newest reading in frames, over the sensor's channels."""
        seen: Ints = self.newest.max(axis=0)
        return seen
