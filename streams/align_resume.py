"""Going on after a restart: what the last frames say, and how far the sources had been read."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from schemas.clock import tick_time
from schemas.frames import Frame, Offsets
from schemas.system import SystemSpec
from streams.align_state import FAR, NEVER, Bools, Ints, Readings, Sources


class LastFrames(NamedTuple):
    """The last frame of each cohort, and those among them whose cohort may still have members."""

    by_cohort: dict[int, Frame]
    current: tuple[Frame, ...]


def last_of_cohorts(frames: Iterable[Frame]) -> list[Frame]:
    """The last frame of each cohort: the highest tick of its highest epoch.

    Ticks of lower epochs that lie beyond it may have been dropped: these are made anew.
    """
    by_cohort: dict[int, Frame] = {}
    for frame in frames:
        known = by_cohort.get(frame.cohort)
        if known is None or _place(frame) > _place(known):
            by_cohort[frame.cohort] = frame
    return list(by_cohort.values())


def _place(frame: Frame) -> tuple[int, int]:
    return frame.header.epoch, frame.tick


def last_frames(spec: SystemSpec, frames: Sequence[Frame]) -> LastFrames:
    """The last frame of each cohort.

    A cohort whose last frame is older than `forget_after` and `lateness` has lost its entities
    since; its offsets would only make the restart read what nobody needs.
    """
    by_cohort = {frame.cohort: frame for frame in last_of_cohorts(frames)}
    newest = max(frame.header.time_us for frame in by_cohort.values())
    horizon = newest - spec.forget_us - spec.lateness_us - spec.period_us
    current = tuple(f for f in by_cohort.values() if f.header.time_us >= horizon)
    return LastFrames(by_cohort, current)


def seek_offsets(frames: Sequence[Frame]) -> Offsets:
    """Where to start reading each source: the least of the frames' offsets."""
    seek: Offsets = {}
    for frame in frames:
        for topic, places in frame.header.offsets.items():
            for partition, offset in places.items():
                known = seek.setdefault(topic, {})
                known[partition] = min(known.get(partition, FAR), offset)
    return seek


class Resume:
    """Reading again up to where a cohort's last frame closed; until then, nothing of it closes.

    positions  [cohorts, sources]: records before it had been read when the frame closed
    """

    def __init__(self, spec: SystemSpec, last: LastFrames, sources: Sources) -> None:
        places = [
            (topic, partition, offset)
            for frame in last.by_cohort.values()
            for topic, parts in frame.header.positions.items()
            for partition, offset in parts.items()
        ]
        for topic, partition, _ in places:
            sources.index(topic, partition)
        self.sources = sources
        self.positions: Ints = np.zeros((spec.cohorts, len(sources)), dtype=np.int64)
        # A cohort without frames goes on where the least advanced of the others does.
        rest = min(
            last.current, key=lambda f: sum(sum(p.values()) for p in f.header.positions.values())
        )
        self.fresh: Bools = np.ones(spec.cohorts, dtype=np.bool_)
        for cohort in range(spec.cohorts):
            frame = last.by_cohort.get(cohort, rest)
            if frame.header.time_us < min(f.header.time_us for f in last.current):
                frame = rest
            self.fresh[cohort] = frame is rest and rest.cohort != cohort
            for topic, parts in frame.header.positions.items():
                for partition, offset in parts.items():
                    self.positions[cohort, sources.index(topic, partition)] = offset
        self.waiting: Bools = np.ones(spec.cohorts, dtype=np.bool_)

    def read_before(self, cohort: Ints, source: Ints, offset: Ints) -> Bools:
        """Whether records had been read before the last frame of their cohort closed."""
        known = source < self.positions.shape[1]
        inside = np.where(known, source, 0)
        return np.asarray(known & (offset < self.positions[cohort, inside]))

    def cuts(self, readings: Readings) -> Ints:
        """Rows at which a source reaches a position."""
        found: list[int] = []
        for source in np.unique(readings.source):
            if source >= self.positions.shape[1]:
                continue
            rows = np.flatnonzero(readings.source == source)
            places = np.searchsorted(readings.offset[rows], np.unique(self.positions[:, source]))
            found += [int(rows[place]) for place in places if place < len(rows)]
        return np.unique(np.array(found, dtype=np.int64))

    def arrive(self) -> Bools:
        """[cohorts] those that have just been read up to where they go on."""
        reached = self.sources.position[: self.positions.shape[1]]
        arrived = self.waiting & np.all(reached >= self.positions, axis=1)
        self.waiting &= ~arrived
        return np.asarray(arrived)


def newest_times(spec: SystemSpec, frame: Frame) -> Ints:
    """[E, channels] event times of the readings that a frame is made of; NEVER where none."""
    ages = frame.ages.astype(np.float64)
    never = np.isnan(ages)
    age_us = np.rint(np.where(never, 0.0, ages) * 1e6).astype(np.int64)
    now = tick_time(frame.tick, spec.epoch_us, spec.period_us)
    times = np.where(never, NEVER, now - age_us)
    for row, channel, time_us in frame.header.exact_us:
        times[row, channel] = time_us
    return times
