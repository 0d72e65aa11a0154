"""The aligner once more, as plainly as possible: one event at a time, dictionaries and loops."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.codes import Flag, Status
from schemas.messages import Control
from schemas.system import SystemSpec
from schemas.topics import cohort_of, topic
from streams.desk import Clock

Row = dict[str, Any]
Vector = tuple[float, ...]
NO = -(2**61)
_SILENT = 3


@dataclass
class Reading:
    """One accepted reading; a channel that is missing is absent from `values`."""

    time: int
    values: dict[str, Vector]


@dataclass
class Entity:
    """What is known of one entity since it joined."""

    readings: dict[str, list[Reading]] = field(default_factory=lambda: defaultdict(list))
    passed: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


class Reference:
    """No lagging sources, no restart. Under the wall clock, `time_goes_on` says what time it is."""

    def __init__(self, spec: SystemSpec, partitions: int, clock: Clock = "event") -> None:
        self.spec, self.partitions, self.clock = spec, partitions, clock
        self.entities: dict[str, Entity] = defaultdict(Entity)
        self.closed = dict.fromkeys(range(spec.cohorts), NO)
        self.members: dict[int, set[str]] = {c: set() for c in range(spec.cohorts)}
        self.marks: dict[tuple[str, int], int] = {}
        self.reports: dict[tuple[str, int], tuple[int, Vector]] = {}
        self.issues: dict[tuple[str, int], Vector] = {}
        self.controls: list[Control] = []
        self.now = NO  # by which lateness runs out
        self.newest = NO  # event time
        self.frames: list[Row] = []
        self.rejected: list[tuple[str, str, int]] = []
        self.duplicates = 0

    # time

    def due(self, tick: int) -> int:
        return self.spec.epoch_us + tick * self.spec.period_us

    def tick_of(self, time: int) -> int:
        return math.ceil((time - self.spec.epoch_us) / self.spec.period_us)

    def mark(self, name: str) -> int:
        marks = [self.marks.get((name, p), NO) for p in range(self.partitions)]
        return min(marks)

    # events

    def reading(self, sensor: str, name: str, time: int, values: dict[str, Vector]) -> None:
        tick, cohort = self.tick_of(time), cohort_of(name, self.spec.cohorts)
        kept = {}
        for channel in self.spec.sensors[sensor].channels.values():
            parts = values[channel.name]
            if any(math.isnan(part) for part in parts):
                continue
            if all(channel.low <= part <= channel.high for part in parts):
                kept[channel.name] = parts
            else:
                self.rejected.append(("out_of_range", name, time))
        if tick <= self.closed[cohort] or self.due(tick) + self.spec.lateness_us <= self.now:
            self.refuse(sensor, name, time)
            return
        self.heard(time)
        entity = self.entities[name]
        entity.passed[sensor] = max(entity.passed.get(sensor, NO), time)
        if kept:
            entity.seen[sensor] = max(entity.seen.get(sensor, NO), time)
        if any(known.time == time for known in entity.readings[sensor]):
            self.duplicates += 1
        else:
            entity.readings[sensor].append(Reading(time, kept))
            entity.readings[sensor].sort(key=lambda reading: reading.time)
        self.advance()

    def refuse(self, sensor: str, name: str, time: int) -> None:
        closed_us = self.due(self.closed[cohort_of(name, self.spec.cohorts)])
        told = [
            r.time for r in self.entities[name].readings[sensor] if r.values and r.time <= closed_us
        ]
        if told and max(told) == time:
            self.duplicates += 1
        else:
            self.rejected.append(("late", name, time))

    def watermark(self, name: str, partition: int, time: int) -> None:
        self.marks[name, partition] = max(time, self.marks.get((name, partition), NO))
        self.heard(time)
        self.advance()

    def time_goes_on(self, now: int) -> None:
        self.now = max(self.now, now)
        self.advance()

    def heard(self, time: int) -> None:
        self.newest = max(self.newest, time)
        if self.clock == "event":
            self.now = self.newest

    def applied(self, name: str, tick: int, status: int, values: Vector) -> None:
        self.reports[name, tick] = (status, values)

    def issued(self, name: str, tick: int, values: Vector) -> None:
        self.issues.setdefault((name, tick), values)

    def control(self, record: Control) -> None:
        """Of one key the last word counts: none takes effect before an earlier one."""
        before = [known.time for known in self.controls if known.key == record.key]
        since = max([record.time, *before])
        self.controls.append(msgspec.structs.replace(record, time=since))

    # closing

    def advance(self) -> None:
        closed = True
        while closed:
            closed = False
            for cohort in range(self.spec.cohorts):
                closed |= self.close_next(cohort)

    def first(self, cohort: int) -> int | None:
        if self.members[cohort]:
            return self.closed[cohort] + 1
        ticks = [
            self.tick_of(reading.time)
            for name, entity in self.entities.items()
            if cohort_of(name, self.spec.cohorts) == cohort
            for readings in entity.readings.values()
            for reading in readings
            if reading.values
        ]
        return min((t for t in ticks if t > self.closed[cohort]), default=None)

    def close_next(self, cohort: int) -> bool:
        tick = self.first(cohort)
        if tick is None or self.due(tick) > max(self.now, self.newest):
            return False
        blocked = self.blocked(cohort, tick)
        if blocked and self.due(tick) + self.spec.lateness_us > self.now:
            return False
        row = self.frame(cohort, tick, blocked)
        if row is None:
            return True
        self.closed[cohort] = tick
        self.frames.append(row)
        return True

    def blocked(self, cohort: int, tick: int) -> bool:
        due, spec = self.due(tick), self.spec
        if not self.members[cohort]:
            return any(self.mark(sensor.topic) < due for sensor in spec.sensors.values())
        applied = self.mark(topic(spec, "applied"))
        if applied != NO and applied < due <= applied + _SILENT * spec.period_us:
            return True
        for name, entity in self.entities.items():
            if cohort_of(name, spec.cohorts) != cohort:
                continue
            for sensor, seen in entity.seen.items():
                passed = max(entity.passed[sensor], self.mark(spec.sensors[sensor].topic))
                silent = _SILENT * max(spec.sensors[sensor].every_us, spec.period_us)
                if passed < due <= seen + silent and self.due_by(sensor, entity, due):
                    return True
        return False

    def due_by(self, name: str, entity: Entity, due: int) -> bool:
        """Whether a sensor's next reading, or one that a `linear` channel needs, is waited for."""
        sensor = self.spec.sensors[name]
        linear = any(channel.align == "linear" for channel in sensor.channels.values())
        if self.clock == "event" or linear or due > self.now_tick():
            return True
        early = min(sensor.every_us, self.spec.period_us) // 4
        return due >= entity.passed[name] + sensor.every_us - early

    def now_tick(self) -> int:
        """The time of the last tick that is over by the clock."""
        return self.due((self.now - self.spec.epoch_us) // self.spec.period_us)

    def frame(self, cohort: int, tick: int, blocked: bool) -> Row | None:
        due, before, rows = self.due(tick), set(self.members[cohort]), {}
        for name in sorted(self.entities):
            if cohort_of(name, self.spec.cohorts) != cohort:
                continue
            times = [
                reading.time
                for readings in self.entities[name].readings.values()
                for reading in readings
                if reading.time <= due and reading.values
            ]
            if times and due - max(times) <= self.spec.forget_us:
                rows[name] = self.row(name, tick, name not in before)
        for name in before - set(rows):
            self.forget(name, due)
        self.members[cohort] = set(rows)
        if not rows:
            return None
        left = tuple(sorted(before - set(rows)))
        reason = "lateness" if blocked else "passed"
        return {
            "tick": tick,
            "cohort": cohort,
            "left": left,
            "closed_by": reason,
            "rows": rows,
            "control": self.view(due),
        }

    def forget(self, name: str, due: int) -> None:
        entity = self.entities[name]
        for sensor in entity.readings:
            entity.readings[sensor] = [r for r in entity.readings[sensor] if r.time > due]
            if entity.seen.get(sensor, NO) <= due:
                entity.seen.pop(sensor, None)

    def row(self, name: str, tick: int, joined: bool) -> Row:
        values: list[float] = []
        ages: list[float] = []
        for sensor_name, sensor in self.spec.sensors.items():
            for channel in sensor.channels.values():
                readings = [
                    r for r in self.entities[name].readings[sensor_name] if channel.name in r.values
                ]
                one, age = self.channel(channel, readings, tick, sensor.max_age_us)
                values += one
                ages.append(age)
        status, action = self.action(name, tick)
        flags = int(Flag.JOINED) if joined else 0
        return {"values": values, "ages": ages, "flags": flags, "status": status, "action": action}

    def channel(
        self, channel: Any, readings: list[Reading], tick: int, max_age: int
    ) -> tuple[Vector, float]:
        due = self.due(tick)
        missing = (math.nan,) * channel.size
        past = [r for r in readings if r.time <= due]
        if not past:
            return missing, math.nan
        newest = past[-1]
        age = due - newest.time
        if age > max_age:
            return missing, age / 1e6
        return self.method(channel, readings, past, tick, max_age), age / 1e6

    def method(
        self, channel: Any, readings: list[Reading], past: list[Reading], tick: int, max_age: int
    ) -> Vector:
        due, newest, name = self.due(tick), past[-1], str(channel.name)
        if channel.align == "latest":
            return newest.values[name]
        if channel.align == "linear":
            later = [r for r in readings if r.time > due]
            if newest.time == due or not later or later[0].time - newest.time > max_age:
                return newest.values[name]
            share = (due - newest.time) / (later[0].time - newest.time)
            pairs = zip(newest.values[name], later[0].values[name], strict=True)
            return tuple(a + (b - a) * share for a, b in pairs)
        size: int = channel.size
        window = [r for r in past if self.tick_of(r.time) == self.tick_of(newest.time)]
        if channel.align in ("sum", "count") and self.tick_of(newest.time) != tick:
            return (0.0,) * size
        columns = list(zip(*(r.values[name] for r in window), strict=True))
        return tuple(_of_window(channel.align, column) for column in columns)

    def action(self, name: str, tick: int) -> tuple[int, Vector]:
        width = len(self.spec.action_columns)
        if (name, tick - 1) in self.reports:
            return self.reports[name, tick - 1]
        if (name, tick - 1) in self.issues:
            return int(Status.UNKNOWN), self.issues[name, tick - 1]
        memory = math.ceil(self.spec.forget_us / self.spec.period_us)
        older = [t for who, t in self.reports if who == name and tick - 1 - memory <= t < tick - 1]
        if older:
            return self.reports[name, max(older)]
        return int(Status.NONE), (math.nan,) * width

    def view(self, due: int) -> Row:
        latest: dict[str, Control] = {}
        known = [record for record in self.controls if record.time <= due]
        for record in sorted(known, key=lambda record: record.time):
            latest[record.key] = record
        return {
            "bundle": next((r.bundle for r in latest.values() if r.kind == "release"), None),
            "budget": next((r.tier for r in latest.values() if r.kind == "budget"), None),
            "holds": tuple(sorted(r.entity for r in latest.values() if r.kind == "hold")),
            "overrides": {r.entity: r.values for r in latest.values() if r.kind == "override"},
        }


def _of_window(align: str, values: Sequence[float]) -> float:
    if align == "max":
        return max(values)
    if align == "count":
        return float(len(values))
    total = math.fsum(values)
    return total / len(values) if align == "mean" else total
