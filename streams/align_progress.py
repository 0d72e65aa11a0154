"""Which ticks may close: those that every sensor has passed, and those whose lateness ran out."""

from typing import Literal, NamedTuple

import numpy as np

from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec
from streams.align_state import (
    FAR,
    NEVER,
    Bools,
    Entities,
    Ints,
    Readings,
    SensorState,
    Sources,
    by_entity,
    first_in_segment,
    grown,
    running_max_before,
)

SILENT_AFTER = 3
"""Periods after which a sensor is silent: its own, or the tick's where that is longer (a sensor
that is faster than the ticks is seen once per tick, and its readings may come in bursts)."""
EARLY = 4
"""Under the wall clock a reading may come early by this part of its period, or of the tick's where
that is shorter: so much jitter is waited for, and not more, as a tick that waits is a late one."""


class Closable(NamedTuple):
    """[cohorts] the next tick to close and the last that may close now; none if first > last."""

    first: Ints
    last: Ints


def _lead_us(sensor: SensorSpec, period_us: int) -> int:
    """For how long after a reading no other one is expected."""
    if any(channel.align == "linear" for channel in sensor.channels.values()):
        return 0
    return sensor.every_us - min(sensor.every_us, period_us) // EARLY - 1


class Progress:
    """The closing rule. A stream is one sensor of one entity.

    A stream that has not passed a tick blocks it, unless it is silent as of that tick; a stream
    that was never seen blocks nothing. Ticks whose lateness has run out close regardless. The first
    tick of a cohort without members waits for lateness or for watermarks on every sensor's topic:
    who else will come is not known yet. Once `S.applied` has carried a watermark, it blocks like a
    sensor.

    Under the wall clock a stream does not block the ticks before its next reading is expected (one
    period after its last): a sensor that is slower than the ticks keeps none waiting between its
    readings. One with a `linear` channel does, as the tick lies before that reading, and needs it.
    Under the event clock it always does: which of two partitions is read first must change nothing.

    passed  [sensors, E] the newest time at which a stream said anything
    seen    [sensors, E] the newest time at which it had at least one channel
    closed  [cohorts]    the last tick with a frame
    """

    def __init__(
        self,
        spec: SystemSpec,
        entities: Entities,
        sources: Sources,
        clock: Literal["event", "wall"],
        start_tick: int | None,
    ) -> None:
        self.spec, self.entities, self.sources, self.clock = spec, entities, sources, clock
        sensors = spec.sensors.values()
        silent = [SILENT_AFTER * max(s.every_us, spec.period_us) for s in sensors]
        self.silent_us: Ints = np.array(silent, dtype=np.int64)[:, None]
        lead = [_lead_us(s, spec.period_us) if clock == "wall" else 0 for s in sensors]
        self.lead_us: Ints = np.array(lead, dtype=np.int64)[:, None]
        self.passed: Ints = np.zeros((len(silent), 0), dtype=np.int64)
        self.seen: Ints = np.zeros((len(silent), 0), dtype=np.int64)
        closed = NEVER if start_tick is None else start_tick - 1
        self.closed: Ints = np.full(spec.cohorts, closed, dtype=np.int64)
        self.set_members(np.zeros(spec.cohorts, dtype=np.bool_))
        self.marks: Ints = np.full(len(silent), NEVER, dtype=np.int64)
        self.applied_mark = NEVER
        self.newest = NEVER  # event time: the newest reading or watermark
        self.now = NEVER  # wall time of the last `close`
        self.settled = FAR  # under the event clock, lateness runs out no further than this

    def set_members(self, has_members: Bools) -> None:
        """Says which cohorts have members."""
        self.has_members = has_members
        self.member_cohorts = int(np.count_nonzero(has_members))

    def grow(self, size: int) -> None:
        """Makes room for `size` entities."""
        self.passed = grown(self.passed, size, NEVER).astype(np.int64)
        self.seen = grown(self.seen, size, NEVER).astype(np.int64)

    def floor_tick(self, time_us: int) -> int:
        """The last tick at or before a time."""
        return (time_us - self.spec.epoch_us) // self.spec.period_us

    @property
    def clock_us(self) -> int:
        """The time by which lateness runs out; never beyond what lagging sources have reached."""
        newest = min(self.newest, self.settled) if self.clock == "event" else self.now
        return min(newest, self.sources.hold)

    @property
    def expired(self) -> int:
        """The last tick whose lateness has run out."""
        return self.floor_tick(self.clock_us - self.spec.lateness_us)

    def goes_on(self, now_us: int) -> bool:
        """Sets the wall clock; gives whether a tick may close for that alone."""
        before, self.now = self.now, max(self.now, now_us)
        return any(
            self.floor_tick(before - wait) < self.floor_tick(self.now - wait)
            for wait in (0, self.spec.lateness_us)
        )

    def closable(self, earliest: Ints) -> Closable:
        """What may close now; `earliest` [cohorts] is the first tick with a reading that waits."""
        expired = self.expired
        reached = self.floor_tick(min(max(self.newest, self.now), self.sources.hold))
        last = np.full(self.spec.cohorts, reached, dtype=np.int64)
        blocking, tick = self._blocking(expired)
        sensor, entity = np.nonzero(blocking)
        np.minimum.at(last, self.entities.cohort[entity], tick[sensor, entity] - 1)
        if self.applied_mark != NEVER:
            np.minimum(last, self._before_applied(expired), out=last)
        known = max(expired, self.floor_tick(int(self.marks.min())))
        first = self.closed + 1
        if self.member_cohorts < len(first):
            alone = ~self.has_members
            first[alone] = np.maximum(earliest[alone], first[alone])
            last[alone] = np.minimum(last[alone], known)
        return Closable(first, last)

    def _blocking(self, expired: int) -> tuple[Bools, Ints]:
        """[sensors, E] whether a stream blocks, and the first tick that it does."""
        spec = self.spec
        floor = self._floor()
        tick = np.maximum((floor - spec.epoch_us) // spec.period_us, expired)
        tick = np.maximum(tick, self.closed[self.entities.cohort]) + 1
        due = spec.epoch_us + tick * spec.period_us
        return (self.seen != NEVER) & (due <= self.seen + self.silent_us), tick

    def _floor(self) -> Ints:
        """[sensors, E] the time up to which a stream blocks nothing.

        What is expected later excuses only what is past: others' clocks may be ahead.
        """
        floor = np.maximum(self.passed, self.marks[:, None])
        if self.clock == "wall":
            np.maximum(floor, np.minimum(self.passed + self.lead_us, self.now), out=floor)
        return floor

    def _before_applied(self, expired: int) -> Ints:
        """[cohorts] the last tick that `S.applied` does not block."""
        spec = self.spec
        tick = np.maximum(max(self.floor_tick(self.applied_mark), expired), self.closed) + 1
        due = spec.epoch_us + tick * spec.period_us
        silent = due > self.applied_mark + SILENT_AFTER * spec.period_us
        return np.where(silent, FAR, tick - 1)

    def blocked(self, first: int, count: int, starts: Ints) -> Bools:
        """[count, cohorts] whether something blocks tick `first + row`: it closes by lateness.

        `starts` [cohorts] is the first of the ticks that a cohort closes.
        """
        spec = self.spec
        change = np.zeros((count + 1, spec.cohorts), dtype=np.int64)
        if first <= self.expired:
            floor = self._floor()
            begin = (floor - spec.epoch_us) // spec.period_us + 1
            end = (self.seen + self.silent_us - spec.epoch_us) // spec.period_us + 1
            blocks = (self.seen != NEVER) & (begin < end) & (end > first) & (begin < first + count)
            cohort = np.broadcast_to(self.entities.cohort, blocks.shape)[blocks]
            np.add.at(change, (np.clip(begin[blocks] - first, 0, count), cohort), 1)
            np.add.at(change, (np.clip(end[blocks] - first, 0, count), cohort), -1)
            self._add_common(change, first, count, starts)
        return np.asarray(np.cumsum(change, axis=0)[:count] > 0)

    def _add_common(self, change: Ints, first: int, count: int, starts: Ints) -> None:
        if self.applied_mark != NEVER:
            begin = self.floor_tick(self.applied_mark) + 1
            end = begin + SILENT_AFTER
            change[int(np.clip(begin - first, 0, count))] += 1
            change[int(np.clip(end - first, 0, count))] -= 1
        promised = self.floor_tick(int(self.marks.min()))
        alone = ~self.has_members
        alone &= (starts > promised) & (starts >= first) & (starts < first + count)
        change[starts[alone] - first, alone] += 1
        change[starts[alone] - first + 1, alone] -= 1

    def expired_ticks(self, tick: Ints, clock: Ints) -> Bools:
        """Whether the lateness of `tick` had run out at `clock`."""
        due = self.spec.epoch_us + tick * self.spec.period_us
        return np.asarray(due + self.spec.lateness_us <= self._settled(clock))

    def _settled(self, clock: Ints) -> Ints:
        return np.minimum(clock, self.settled) if self.clock == "event" else clock

    def cuts(
        self,
        sensor: SensorState,
        readings: Readings,
        blind: Bools,
        clock: Ints,
        earliest: Ints,
    ) -> Ints:
        """Rows before which a tick may have closed that they matter to; usually none.

        A row in the order of its stream, which blocks the ticks that the row passes, cannot be too
        late for them. Others get a cut. `clock` [n]: by which lateness expires before each row.
        `earliest` [cohorts]: the first tick with a reading that waits, as for `closable`.

        Under the wall clock there are none: what is taken at once came at once.
        """
        if self.clock == "wall":
            return np.zeros(0, dtype=np.int64)
        spec, number = self.spec, sensor.number
        order = by_entity(readings.entity)
        entity, time = readings.entity[order], readings.time[order]
        first = first_in_segment(entity)
        passed = running_max_before(time, first, self.passed[number][entity])
        seen = passed
        if blind.any() or np.any(self.passed[number] != self.seen[number]):
            said = np.where(blind[order], NEVER, time)
            seen = running_max_before(said, first, self.seen[number][entity])
        cohort = self.entities.cohort[entity]
        # A cohort without members has no tick before its first reading.
        first_tick = earliest.copy()
        np.minimum.at(first_tick, cohort, readings.tick[order])
        alone = ~self.has_members
        closed = np.where(alone, np.maximum(self.closed, first_tick - 1), self.closed)[cohort]
        mark = int(self.marks[number])
        floor = (np.maximum(passed, mark) - spec.epoch_us) // spec.period_us
        tick = np.maximum(floor, closed) + 1
        due = spec.epoch_us + tick * spec.period_us
        cut = readings.tick[order] < tick
        cut |= self._settled(clock)[order] >= due + spec.lateness_us
        if sensor.linear:
            cut |= time < passed
        for channel in sensor.linear:  # its later neighbour may come when the tick was passed
            absent = np.isnan(readings.values[order, sensor.slices[channel].start])
            said = np.where(absent, NEVER, time)
            reached = running_max_before(said, first, sensor.reached[channel, entity])
            cut |= floor > np.maximum((reached - spec.epoch_us) // spec.period_us, closed)
        starts = due > seen + self.silent_us[number, 0]
        # Where a cohort has no members yet, only lateness closes anything: its first readings need
        # no cut, until another one lets ticks close, and with them members come to be.
        cut |= starts & ~alone[cohort]
        cut |= starts & (order > order[cut].min(initial=len(order)))
        return np.sort(order[cut])
