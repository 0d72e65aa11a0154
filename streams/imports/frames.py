"""Readings of a log through the aligner's own core: the frames that it would have made live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from schemas.clock import tick_of, tick_time
from schemas.codes import Status
from schemas.frames import Frame
from schemas.system import SystemSpec
from streams.align import Aligner
from streams.align_state import Floats, Ints
from streams.imports.gather import Gathered, Stream

_TICKS: Final = 64  # that are read at once where no tick asks for what comes after it


class Alignment:
    """Turns what was gathered into frames, tick by tick; `counters` say what became of readings.

    Each sensor's readings are handed over by time, so none comes late, whatever order they were
    logged in. With `linear` channels about as many ticks are read at once as lateness holds: how
    long a tick waits for the neighbour that follows it is then about what it would have been live.
    """

    def __init__(self, spec: SystemSpec, gathered: Gathered) -> None:
        self._spec, self._gathered = spec, gathered
        times = [s.time_us for s in gathered.sensors.values() if len(s.time_us)]
        self.first = self._tick(min(int(time[0]) for time in times))
        self.last = self._tick(max(int(time[-1]) for time in times))
        self._aligner = Aligner(spec, "event", start_tick=self.first)
        self._rows = self._aligner.intern(gathered.entities)
        self._held = _Held(spec, gathered.actions)
        self._topics = dict.fromkeys(sensor.topic for sensor in spec.sensors.values())

    @property
    def counters(self) -> dict[str, int]:
        """Readings by what became of them; see the aligner's."""
        return {name: count for name, count in sorted(self._aligner.counters.items()) if count}

    def frames(self, shown: Callable[[int, int], None] = lambda *_: None) -> Iterator[Frame]:
        """All frames, by tick and cohort; `shown` is told readings done and in all."""
        done, total = 0, self._gathered.readings
        for begin, end in self._stretches():
            behind = {(name, 0): True for name in self._topics}
            self._aligner.lagging(behind)
            self._act(begin, end)
            for name, stream in self._gathered.sensors.items():
                part = stream.between(self._time(begin), self._time(end))
                if len(part.time_us):
                    self._aligner.readings(name, self._rows[part.entity], part.time_us, part.values)
                    done += len(part.time_us)
            self._aligner.lagging(dict.fromkeys(behind, False))
            yield from self._kept(self._aligner.close())
            self._aligner.dead_letters()  # they are counted
            shown(done, total)
        end_us = self._time(self.last) + self._spec.lateness_us
        yield from self._kept(self._aligner.close(end_us))

    def _kept(self, frames: list[Frame]) -> Iterator[Frame]:
        return (frame for frame in frames if frame.tick <= self.last)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Ticks (begin, end] to read at once; stretches without a reading are passed over."""
        linear = any(channel.align == "linear" for channel in self._spec.channels)
        size = max(1, self._spec.lateness_us // self._spec.period_us) if linear else _TICKS
        period, epoch = self._spec.period_us, self._spec.epoch_us
        found: set[int] = set()
        for stream in self._gathered.sensors.values():
            ticks = -((epoch - stream.time_us) // period)
            found |= set(np.unique((ticks - self.first) // size).tolist())
        for number in sorted(found):
            begin = self.first + number * size - 1
            yield begin, begin + size

    def _act(self, begin: int, end: int) -> None:
        entity, tick, values = self._held.between(begin, end)
        if len(tick):
            status = np.full(len(tick), int(Status.APPLIED), dtype=np.int64)
            self._aligner.applied(self._rows[entity], tick, values, status)

    def _tick(self, time_us: int) -> int:
        return tick_of(time_us, self._spec.epoch_us, self._spec.period_us)

    def _time(self, tick: int) -> int:
        return tick_time(tick, self._spec.epoch_us, self._spec.period_us)


class _Held:
    """Actions of a log on the grid of ticks: each is in force from its tick until the next one."""

    def __init__(self, spec: SystemSpec, actions: Stream | None) -> None:
        self._of: list[tuple[int, Ints, Floats]] = []
        self._columns = len(spec.action_columns)
        if actions is None:
            return
        ticks = -((spec.epoch_us - actions.time_us) // spec.period_us)
        for number in np.unique(actions.entity).tolist():
            rows = np.flatnonzero(actions.entity == number)
            self._of.append((number, ticks[rows], actions.values[rows]))

    def between(self, begin: int, end: int) -> tuple[Ints, Ints, Floats]:
        """Entities [n], ticks [n] and values [n, A] of the ticks begin ≤ tick < end."""
        entity, tick = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        values = [np.zeros((0, self._columns))]
        for number, ticks, known in self._of:
            asked = np.arange(begin, end)
            newest = np.searchsorted(ticks, asked, side="right") - 1
            there = newest >= 0
            entity.append(np.full(int(there.sum()), number, dtype=np.int64))
            tick.append(asked[there])
            values.append(known[newest[there]])
        return np.concatenate(entity), np.concatenate(tick), np.concatenate(values)
