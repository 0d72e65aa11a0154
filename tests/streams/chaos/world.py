"""A run in memory, of the loop's own parts but without Kafka: what the checker is to be shown.

`Build` names the parts, so that a test can put a broken one in the place of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infra.plants.base import Sample, make_plant
from planner.budget import FreeBudget
from planner.session import Bundle
from schemas.frames import Frame, encode_frame
from schemas.messages import WATERMARK_HEADER, Action, Applied, DeadLetter, Watermark, encode
from schemas.system import SystemSpec, load_spec
from schemas.topics import Kind, cohort_of, topic, topics_of
from schemas.trajectories import Decisions, encode_trajectory
from streams.action_records import ActionRecords
from streams.actuator_state import ActuatorState
from streams.align import Aligner
from streams.belief import Row
from streams.chaos.checker import Verdict, check
from streams.chaos.log import COLUMNS, Entry, Log
from streams.chaos.stage import write_spec
from streams.chaos.undisturbed import undisturbed
from streams.decide import step
from streams.readings import ReadingEncoder
from streams.sink_table import LoggedFrame, Reports, read_frame, table_of
from tests.planner.worlds import double_integrator, make_bundle

ROBOTS, TICKS = 4, 24
AGAIN = (9, 10)  # ticks that are decided twice, as after a kill
Step = Callable[..., tuple[Row, Decisions]]


@dataclass(frozen=True)
class Build:
    """The parts of a loop, and what happens to it.

    arrives_us    how long an action of a tick takes to its actuator
    delayed       a tick whose actions arrive after those of the next one
    logs, stores  what a worker logs of its decisions, and a sink of what was logged
    sheds         ticks whose readings the aligner passes over
    passes        ticks whose frames the worker passes over
    tells         the range that is told, of one that was passed over: its first offset, its end
    counts        whether the aligner counts what it passes over
    """

    actuator: type[ActuatorState] = ActuatorState
    aligner: type[Aligner] = Aligner
    reports: type[Reports] = Reports
    step: Step = step
    newest_first: bool = False
    arrives_us: Callable[[int], int] = lambda tick: 1_000
    delayed: int = -1
    logs: Callable[[Frame, Decisions], Decisions | None] = lambda frame, decisions: decisions
    stores: Callable[[list[LoggedFrame]], list[LoggedFrame]] = lambda frames: frames
    sheds: tuple[int, ...] = ()
    passes: tuple[int, ...] = ()
    tells: Callable[[int, int], tuple[int, int] | None] = lambda first, end: (first, end)
    counts: bool = True


def spec_and_bundle(folder: Path) -> tuple[SystemSpec, Bundle]:
    """The system of `rehearse chaos`, and a bundle with known dynamics for it."""
    spec = load_spec(write_spec(folder, "chaos-test"))
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(spec.columns)}
    world = double_integrator(noise=0.05)
    return spec, make_bundle(folder / "bundle", spec, world, calibration=calibration)


@dataclass
class Tape:
    """Topics in the making."""

    spec: SystemSpec
    log: Log
    offsets: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    def put(
        self,
        name: str,
        partition: int,
        key: str | None,
        value: bytes | None,
        stamp_us: int,
        *headers: str,
    ) -> Entry:
        offset = self.offsets[name, partition]
        self.offsets[name, partition] += 1
        packed = None if key is None else key.encode()
        entry = Entry(name, partition, offset, packed, value, stamp_us // 1_000, headers)
        self.log.topics[name].append(entry)
        return entry

    def by_entity(self, name: str, entity: str, value: bytes, stamp_us: int) -> Entry:
        partition = cohort_of(entity, self.partitions("actions"))
        return self.put(name, partition, entity, value, stamp_us)

    def partitions(self, kind: Kind) -> int:
        return next(t.partitions for t in topics_of(self.spec) if t.kind == kind)


class Run:
    """Ticks of a small nav2d, one after the other; `log` is what is left."""

    def __init__(self, spec: SystemSpec, bundle: Bundle, build: Build) -> None:
        self.spec, self.bundle, self.build = spec, bundle, build
        self.log = Log(spec, "event", {t.name: [] for t in topics_of(spec)})
        self.tape = Tape(spec, self.log)
        self.plant = make_plant(spec, robots=ROBOTS, ticks=TICKS)
        self.aligner = build.aligner(spec, "event", partitions=_partitions(spec))
        self.actuator = build.actuator(spec, self.plant.entities)
        self.encoder = ReadingEncoder(spec, self.plant.entities)
        self.rows: dict[int, Row] = {}
        self.waiting: list[Action] = []

    def go(self) -> Log:
        sample = self.plant.reset(3)
        for _ in range(TICKS):
            self._sense(sample)
            for frame in self.aligner.close():
                self._decide(frame)
            sample = self.plant.step(self.actuator.values)
        self.log.rows = stored(self.spec, self.log, self.build)
        return self.log

    def _sense(self, sample: Sample) -> None:
        spec, names = self.spec, self.plant.entities
        before = dict(self.tape.offsets)
        time_us = spec.epoch_us + sample.tick * spec.period_us
        for group in self.encoder.encode(sample, time_us - spec.period_us):
            for entity, value in zip(group.keys, group.values, strict=True):
                self.tape.by_entity(group.topic, entity, value, group.send_us)
        bad = self.tape.by_entity(spec.sensors["odometry"].topic, names[0], b"{", time_us)
        letter = DeadLetter.of(bad.place, "malformed", "", bad.key, bad.value)
        self.tape.put(topic(spec, "deadletter"), 0, None, encode(letter), time_us)
        rows = self.aligner.intern(names)
        shed = sample.tick in self.build.sheds
        if shed:
            self._pass_over("sensors", before, time_us)
        for batch in () if shed else sample.batches:
            self.aligner.readings(batch.sensor, rows[batch.entity], batch.time_us, batch.values, 0)
        for found in topics_of(spec):
            for partition in range(found.partitions if found.kind == "sensors" else 0):
                mark = encode(Watermark(time_us))
                self.tape.put(found.name, partition, None, mark, time_us, WATERMARK_HEADER)
                self.aligner.watermark(found.name, time_us, partition)

    def _pass_over(self, kind: Kind, before: Mapping[tuple[str, int], int], time_us: int) -> None:
        """Tells of all that came on topics of a kind since `before`."""
        names = {t.name for t in topics_of(self.spec) if t.kind == kind}
        for (name, partition), end in list(self.tape.offsets.items()):
            first = before.get((name, partition), 0)
            if name not in names or first == end:
                continue
            if kind == "sensors" and self.build.counts:
                self.aligner.count("shed", end - first)
            if told := self.build.tells(first, end):
                letter = DeadLetter(name, partition, told[0], "shed", "", end=told[1])
                self.tape.put(topic(self.spec, "deadletter"), 0, None, encode(letter), time_us)

    def _decide(self, frame: Frame) -> None:
        spec, time_us = self.spec, frame.header.time_us
        key, offsets = str(frame.cohort), dict(self.tape.offsets)
        self.tape.put(topic(spec, "frames"), frame.cohort, key, encode_frame(spec, frame), time_us)
        if frame.tick in self.build.passes:
            self._pass_over("frames", offsets, time_us)
            return
        before, sent = self.rows.get(frame.cohort), []
        for attempt in range(1 + (frame.tick in AGAIN)):
            row, decisions = self.build.step(
                spec, self.bundle, before, frame, FreeBudget(2 * attempt)
            )
            decisions = replace(
                decisions, spent={**decisions.spent, "worker": "w", "attempt": attempt}
            )
            self.rows[frame.cohort] = row
            for record in ActionRecords(spec, "w", attempt).make(frame, decisions, 0):
                assert record.value is not None
                assert record.key is not None
                sent.append(msgspec.json.decode(record.value, type=Action))
                self.tape.by_entity(record.topic, record.key.decode(), record.value, time_us)
            if (logged := self.build.logs(frame, decisions)) is not None:
                value = encode_trajectory(spec, frame, logged)
                self.tape.put(topic(spec, "trajectories"), frame.cohort, key, value, time_us)
        if frame.tick == self.build.delayed:
            self.waiting += sent
            return
        self._act(sent[::-1] if self.build.newest_first else sent)
        if frame.tick == self.build.delayed + 1 and frame.cohort == spec.cohorts - 1:
            self._act(self.waiting)

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            now_us = action.time + self.build.arrives_us(action.tick)
            report = self.actuator.offer(action, now_us)
            if report is None:
                continue
            said = report.applied
            self.tape.by_entity(topic(self.spec, "applied"), said.entity, encode(said), now_us)
            values = [[said.values[name] for name in self.spec.action_columns]]
            entity = self.aligner.intern([said.entity])
            tick, status = np.array([said.tick]), np.array([said.status])
            self.aligner.applied(entity, tick, np.array(values), status)


def _partitions(spec: SystemSpec) -> dict[str, int]:
    return {t.name: t.partitions for t in topics_of(spec)}


def stored(spec: SystemSpec, log: Log, build: Build) -> list[dict[str, Any]]:
    """What a sink makes of a log's trajectories and reports."""
    reports = build.reports()
    for entry in log.of("applied"):
        reports.add(msgspec.json.decode(entry.value or b"", type=Applied), entry.stamp_ms)
    frames = [
        read_frame(e.partition, e.offset, e.stamp_ms, e.value or b"")
        for e in log.of("trajectories")
    ]
    names = [*COLUMNS, *(f"action:{name}" for name in spec.action_columns)]
    kept = build.stores(frames)
    rows: list[dict[str, Any]] = table_of(spec, kept, reports).select(names).to_pylist()
    return rows


@dataclass(frozen=True)
class Lab:
    """A system, its bundle, and a sound run of it."""

    spec: SystemSpec
    bundle: Bundle
    folder: Path
    sound: Log

    def verdict(self, log: Log) -> Verdict:
        return check(log, undisturbed(self.spec, [self.folder / "bundle"]))

    def of_build(self, build: Build) -> Verdict:
        log = Run(self.spec, self.bundle, build).go()
        return self.verdict(replace(log, clock="wall"))
