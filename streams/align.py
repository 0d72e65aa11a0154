"""The aligner's core: readings in columns go in, frames come out; no Kafka, and no wall clock.

Every call is one step in the order of arrival. Under the event clock what it closes does not depend
on how the stream was cut into calls: a call is split wherever a tick closed between two of its
readings could matter. Under the wall clock, what is given in one call came at one moment.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from schemas.clock import tick_of
from schemas.frames import Frame, Offsets
from schemas.messages import Control
from schemas.system import SystemSpec
from streams.align_close import advance
from streams.align_intake import origin, table_of, take_readings
from streams.align_resume import Resume, last_frames, newest_times, seek_offsets
from streams.align_state import NEVER, Floats, Ints, Readings, Rejected
from streams.align_store import Store

__all__ = ["Aligner", "Rejected"]


class Aligner:
    """Closes ticks, cohort by cohort; `close` gives their frames.

    Args:
        spec: the system.
        clock: what lateness is measured by: `event`, the newest reading or watermark (and the time
            given to `close`, where one is); `wall`: the time given to `close`.
        epoch: of this aligner, written to every frame.
        start_tick: frames begin here; readings of earlier ticks are late.
        partitions: how many partitions each topic has, for its watermark (one where not named).
        ahead_us: a reading this far ahead of the clock is refused as `future`; None: only what lies
            beyond the year 2200, which has the wrong unit.
        patient: lateness under the event clock runs out only as far as `settle` says.
    """

    def __init__(
        self,
        spec: SystemSpec,
        clock: Literal["event", "wall"] = "event",
        epoch: int = 0,
        start_tick: int | None = None,
        partitions: Mapping[str, int] | None = None,
        ahead_us: int | None = None,
        patient: bool = False,
    ) -> None:
        self.spec, self.epoch, self.ahead_us = spec, epoch, ahead_us
        self._store = Store(spec, clock, start_tick, dict(partitions or {}))
        if patient:
            self._store.progress.settled = NEVER

    @property
    def newest_us(self) -> int:
        """The newest event time that was read; far in the past before there is one."""
        return self._store.progress.newest

    @property
    def counters(self) -> dict[str, int]:
        """Readings by what became of them, since the beginning of the stream."""
        return self._store.counters

    @property
    def entities(self) -> int:
        """How many entities have been named so far."""
        return len(self._store.entities)

    @property
    def names(self) -> Sequence[str]:
        """Names of the entities by row."""
        return self._store.entities.names

    # what comes in

    def intern(self, names: Sequence[str]) -> Ints:
        """[n] rows of entities, to be given to the other calls; new names get new rows."""
        return self._store.intern(names)

    def readings(
        self,
        sensor: str,
        entity: Ints,
        time_us: Ints,
        values: Mapping[str, Floats] | Floats,
        partition: Ints | int = 0,
        offset: Ints | None = None,
    ) -> None:
        """Takes `n` readings of a sensor in the order of their arrival.

        Args:
            sensor: its name in the spec.
            entity: [n] rows from `intern`.
            time_us: [n] event times.
            values: per channel [n] or [n, size]; or all [n, columns of the sensor]. NaN: missing.
            partition: of the sensor's topic, one for all or [n].
            offset: [n] in their partitions; without them they are counted on from the last one.

        A channel out of range is missing and rejected as `out_of_range`; a reading of a closed tick
        is rejected as `late`, one far ahead as `future`; of readings with equal entity and time the
        first counts.
        """
        store = self._store
        state = store.sensors[sensor]
        times = np.asarray(time_us, dtype=np.int64)
        source, places = origin(store, state.spec.topic, len(times), partition, offset)
        batch = Readings(
            np.asarray(entity, dtype=np.int64),
            times,
            -((self.spec.epoch_us - times) // self.spec.period_us),
            table_of(state, len(times), values),
            source,
            places,
            False,
        )
        take_readings(store, state, batch, self.ahead_us, self._advance)

    def watermark(
        self, topic: str, time_us: int, partition: int = 0, offset: int | None = None
    ) -> None:
        """Nothing earlier than `time_us` follows on this partition of a topic."""
        store, sources, progress = self._store, self._store.sources, self._store.progress
        source = sources.index(topic, partition)
        place = int(sources.position[source]) if offset is None else offset
        before = (progress.newest, sources.hold, sources.topic_watermark(topic))
        sources.watermark[source] = max(time_us, int(sources.watermark[source]))
        sources.progress[source] = max(time_us, int(sources.progress[source]))
        sources.watermark_offset[source] = place
        sources.position[source] = max(int(sources.position[source]), place + 1)
        progress.newest = max(progress.newest, time_us)
        mark = sources.topic_watermark(topic)
        for state in store.sensors.values():
            if state.spec.topic == topic:
                progress.marks[state.number] = mark
        if topic == store.applied_topic:
            progress.applied_mark = mark
        # Of the partitions of a topic only the last one to promise changes something.
        if store.resume is not None or before != (progress.newest, sources.hold, mark):
            self._advance()

    def applied(
        self,
        entity: Ints,
        tick: Ints,
        values: Floats,
        status: Ints,
        time_us: Ints | None = None,
        partition: Ints | int = 0,
        offset: Ints | None = None,
    ) -> None:
        """Takes `n` reports of `S.applied`: what is in force since a tick (values [n, A])."""
        store = self._store
        where = origin(store, store.applied_topic, len(tick), partition, offset)
        closed = store.progress.closed[store.entities.cohort]
        late = store.actions.applied(entity, tick, values, status, closed, where)
        store.count("applied", len(tick))
        store.count("applied_late", late)
        self._moved(where, time_us)

    def issued(
        self,
        entity: Ints,
        tick: Ints,
        values: Floats,
        time_us: Ints | None = None,
        partition: Ints | int = 0,
        offset: Ints | None = None,
    ) -> None:
        """Takes `n` actions of `S.actions` (values [n, A]); the first of an id counts."""
        store = self._store
        where = origin(store, store.actions_topic, len(tick), partition, offset)
        closed = store.progress.closed[store.entities.cohort]
        store.actions.issued(entity, tick, values, closed, where)
        self._moved(where, time_us)

    def control(self, record: Control) -> None:
        """Takes a control record; frames from its time on show it."""
        self._store.control.add(record)

    def remove_control(self, key: str) -> None:
        """Takes back what was said under a key (a tombstone of the compacted topic)."""
        self._store.control.remove(key)

    def reset(self, entity: Ints, time_us: int) -> None:
        """An episode of entities ended: their next frame from then on is flagged RESET."""
        tick = tick_of(time_us, self.spec.epoch_us, self.spec.period_us)
        self._store.reset_tick[entity] = np.minimum(self._store.reset_tick[entity], tick)

    def lagging(self, behind: Mapping[tuple[str, int], bool]) -> None:
        """Says which sources have unread records: no tick closes that one has not reached."""
        sources = self._store.sources
        before = sources.hold
        for (topic, partition), lags in behind.items():
            source = sources.index(topic, partition)  # makes room for a new one
            sources.lagging[source] = lags
        progress = self._store.progress
        newest = max(progress.newest, progress.now)
        if before < min(sources.hold, newest):
            self._advance()

    def settle(self, time_us: int) -> None:
        """Lateness may run out up to `time_us`, or as far as every sensor's partition was read.

        One of two partitions that were written at once is read first. By the readings' own times it
        may be far ahead then, and what the other one holds is not late for that.
        """
        progress, sensors = self._store.progress, self._store.sensors.values()
        reached = self._store.sources.reached(state.spec.topic for state in sensors)
        if max(time_us, reached) > progress.settled:
            progress.settled = max(time_us, reached)
            self._advance()

    def count(self, name: str, number: int) -> None:
        """Adds to a counter: what was rejected before it could be given to the aligner."""
        self._store.count(name, number)

    def consumed(self, topic: str, partition: int, offset: int) -> None:
        """Says that everything before `offset` has been read, also what was no reading."""
        sources = self._store.sources
        source = sources.index(topic, partition)
        if offset > sources.position[source]:
            sources.position[source] = offset
            if self._store.resume is not None:
                self._advance()

    def restore(self, frames: Sequence[Frame]) -> Offsets:
        """Goes on after the last frames of every cohort; gives where to start reading each source.

        Call it before anything else. What closes from here on is what would have closed without the
        interruption, given the same records in the same order; the epoch is higher.
        """
        if not frames:
            return {}
        store = self._store
        last = last_frames(self.spec, frames)
        self.epoch = max(self.epoch, 1 + max(frame.header.epoch for frame in frames))
        store.progress.newest = min(frame.header.seen_us for frame in last.current)
        store.resume = Resume(self.spec, last, store.sources)
        for frame in last.by_cohort.values():
            store.progress.closed[frame.cohort] = frame.tick
        for frame in last.current:
            self._restore_frame(frame)
        newest = max(last.current, key=lambda frame: frame.header.seen_us)
        store.counters.update(newest.header.counters)
        seek = seek_offsets(last.current)
        for name, places in seek.items():
            for partition, offset in places.items():
                store.sources.position[store.sources.index(name, partition)] = offset
        return seek

    # what comes out

    def close(self, now_us: int | None = None) -> list[Frame]:
        """Frames that have closed since the last call, by (tick, cohort).

        `now_us` moves the clock: the wall time, or, under the event clock, the end of what is known
        (so that a recording's last ticks close).
        """
        progress = self._store.progress
        if now_us is not None:
            if progress.clock == "event":
                progress.newest = max(progress.newest, now_us)
                self._advance()
            elif progress.goes_on(now_us) or self._store.resume is not None:
                self._advance()
        return self.frames()

    def frames(self) -> list[Frame]:
        """As `close`, at no other time than before."""
        frames, self._store.frames = self._store.frames, []
        frames.sort(key=lambda frame: (frame.header.tick, frame.header.cohort))
        return frames

    def dead_letters(self) -> list[Rejected]:
        """What was rejected since the last call."""
        rejected, self._store.rejected = self._store.rejected, []
        return rejected

    def _advance(self) -> None:
        advance(self._store, self.epoch)

    def _moved(self, where: tuple[Ints, Ints], time_us: Ints | None) -> None:
        sources = self._store.sources
        np.maximum.at(sources.position, where[0], where[1] + 1)
        if time_us is not None:
            np.maximum.at(sources.progress, where[0], time_us)
        if sources.lagging.any() or self._store.resume is not None:
            self._advance()

    def _restore_frame(self, frame: Frame) -> None:
        store = self._store
        rows = store.intern(frame.entities)
        times = newest_times(self.spec, frame)
        for state in store.sensors.values():
            newest = times[:, state.channel_range].T
            state.newest[:, rows] = state.reached[:, rows] = newest
            state.held[:, rows] = frame.values[:, state.columns].T
            seen = newest.max(axis=0)
            store.progress.passed[state.number, rows] = seen
            store.progress.seen[state.number, rows] = seen
        store.members[rows] = True
        present = store.progress.has_members | (np.arange(self.spec.cohorts) == frame.cohort)
        store.progress.set_members(present)
        assert (store.progress.seen[:, rows] > NEVER).any()
