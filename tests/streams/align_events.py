"""Random streams for the aligner's tests: disorder, gaps, repetitions, NaN, watermarks, reports."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from schemas.frames import Frame, decode_frame, encode_frame
from schemas.messages import Control
from schemas.system import SystemSpec, parse_spec
from schemas.topics import topic
from streams.align import Aligner
from streams.desk import Clock
from tests.streams.align_reference import Reference, Row

PARTITIONS = 2
NAMES = ("ant", "bee", "cat", "dog", "elk")

_TEXT = """
system: zoo
entity: animal
tick: 10 ms
lateness: 15 ms
forget_after: 100 ms
cohorts: 3
sensors:
  fast:
    every: 5 ms
    max_age: 40 ms
    channels:
      a: {unit: m, range: [-50, 50], align: latest}
      b: {unit: m, range: [-50, 50], align: linear}
      c: {unit: m, range: [-50, 50], align: mean}
      d: {unit: m, range: [-50, 50], shape: [2], align: latest}
  slow:
    every: 25 ms
    max_age: 60 ms
    channels:
      e: {unit: m, range: [-50, 50], align: sum}
      f: {unit: m, range: [-50, 50], align: max}
      g: {unit: m, range: [-50, 50], align: count}
      h: {unit: m, range: [-50, 50], shape: [2], align: linear}
actions:
  u: {unit: m, low: -1, high: 1}
  v: {unit: m, low: -1, high: 1, shape: [2]}
fallback: {kind: value}
budget: {tiers: {one: {candidates: 5, horizon: 2, iterations: 1}}}
"""
SPEC = parse_spec(_TEXT)
UNLINKED = parse_spec(_TEXT.replace("align: linear", "align: latest"))
"""Without `linear` channels, which need their later neighbours."""


class Event(NamedTuple):
    """One record of the log, which came at `at` us; `offset` counts in its topic and partition."""

    kind: str
    topic: str
    partition: int
    offset: int
    content: Any
    at: int = 0


Step = tuple[int, int, int, int, int, int]

steps = st.lists(
    st.tuples(
        st.integers(0, 19),  # what
        st.integers(0, len(NAMES) - 1),  # whose
        st.integers(0, 9),  # how much time goes by, ms
        st.integers(0, 59),  # how much earlier it was measured
        st.integers(0, 255),  # which channels are missing or out of range
        st.integers(-40, 40),  # value
    ),
    max_size=80,
)


def random_steps(seed: int, count: int) -> list[Step]:
    """Longer streams than Hypothesis makes, in which less is odd."""
    rng = np.random.default_rng(seed)
    high = np.array([20, len(NAMES), 6, 60, 256, 81])
    rows = rng.integers(0, high, size=(count, 6))
    rows[:, 5] -= 40
    rows[rng.random(count) < 0.8, 3] = 0
    rows[rng.random(count) < 0.8, 4] = 1
    return [tuple(row) for row in rows.tolist()]


class Log:
    """Records as they are written, one step after the other."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now = 1_000_000
        self._places: dict[tuple[str, int], int] = {}

    def add(self, kind: str, name: str, partition: int, content: Any) -> None:
        """Writes a record now."""
        offset = self._places.get((name, partition), 0)
        self._places[name, partition] = offset + 1
        self.events.append(Event(kind, name, partition, offset, content, self.now))

    def step(self, step: Step, jitter: int = 0) -> None:
        """Writes what a step stands for."""
        what, who, passes, earlier, mask, value = step
        self.now += passes * 1_000 + jitter * (value % 7)
        tick = (self.now - 1) // SPEC.period_us + 1
        back = max(0, earlier - 40) * 1_500
        if what == 19 and earlier > 50:
            self.now += 40_000 * (earlier - 50)
        elif what <= 13:
            sensor = "slow" if what < 4 else "fast"
            reading = (sensor, NAMES[who], self.now - back, _values(sensor, mask, value))
            self.add("reading", SPEC.sensors[sensor].topic, who % PARTITIONS, reading)
        elif what == 14:
            action = (value / 40, -value / 40, value / 80)
            report = (NAMES[who], tick - earlier % 3, 1 + mask % 5, action)
            self.add("applied", topic(SPEC, "applied"), who % PARTITIONS, report)
        elif what == 15:
            action = (value / 50, -value / 50, value / 90)
            self.add("issued", topic(SPEC, "actions"), 0, (NAMES[who], tick - earlier % 2, action))
        elif what == 16:
            record = _control(who, mask, self.now + back // 2, value)
            self.add("control", topic(SPEC, "control"), 0, record)
        elif what in (17, 18) and mask % 4 == 0:
            names = [SPEC.sensors[s].topic for s in ("fast", "slow")]
            name = [*names, topic(SPEC, "applied")][value % 3]
            for partition in range(PARTITIONS if mask < 200 else 1):
                self.add("watermark", name, partition, self.now - back)

    def repeat(self, event: Event) -> None:
        """Writes a record once more."""
        self.add(event.kind, event.topic, event.partition, event.content)


def events_of(steps: Sequence[Step], jitter: int = 0) -> list[Event]:
    """The log that `steps` stand for."""
    log = Log()
    for step in steps:
        log.step(step, jitter)
    return log.events


def _values(sensor: str, mask: int, value: int) -> dict[str, tuple[float, ...]]:
    made = {}
    for i, channel in enumerate(SPEC.sensors[sensor].channels.values()):
        parts = [value + 0.1 * i + 0.37 * j for j in range(channel.size)]
        if mask >> i & 1 and mask % 3:
            parts[-1] = 99.0 if mask % 5 == 0 else np.nan
        made[channel.name] = tuple(parts)
    return made


def _control(who: int, mask: int, time: int, value: int) -> Control:
    entity = NAMES[who]
    kinds = [
        Control("hold", time, entity),
        Control("resume", time, entity),
        Control("release", time, bundle=str(value)),
        Control("override", time, entity, {"u": float(value)}),
        Control("budget", time, tier="one"),
    ]
    return kinds[mask % 5]


def feed(aligner: Aligner, events: Sequence[Event], chunk: int) -> list[Frame]:
    """Gives `events` to an aligner, up to `chunk` readings of one sensor in a call."""
    frames: list[Frame] = []
    run: list[Event] = []
    for event in [*events, None]:
        if run and (event is None or not _joins(run[0], event) or len(run) >= chunk):
            _readings(aligner, run)
            frames += aligner.close()
            run = []
        if event is not None and event.kind == "reading":
            run.append(event)
        elif event is not None:
            _other(aligner, event)
            frames += aligner.close()
    return frames


def _joins(first: Event, event: Event) -> bool:
    return event.kind == "reading" and event.content[0] == first.content[0]


def _readings(aligner: Aligner, run: Sequence[Event]) -> None:
    sensor = run[0].content[0]
    channels = SPEC.sensors[sensor].channels.values()
    aligner.readings(
        sensor,
        aligner.intern([event.content[1] for event in run]),
        np.array([event.content[2] for event in run]),
        {c.name: np.array([event.content[3][c.name] for event in run]) for c in channels},
        np.array([event.partition for event in run]),
        np.array([event.offset for event in run]),
    )


def _other(aligner: Aligner, event: Event) -> None:
    place = {"partition": event.partition, "offset": event.offset}
    if event.kind == "watermark":
        aligner.watermark(event.topic, event.content, **place)
    elif event.kind == "control":
        aligner.control(event.content)
        aligner.consumed(event.topic, event.partition, event.offset + 1)
    else:
        name, tick, *rest = event.content
        row, ticks, offset = aligner.intern([name]), np.array([tick]), np.array([event.offset])
        where = (event.partition, offset)
        if event.kind == "applied":
            status, values = rest
            report = (np.array([values]), np.array([status]))
            aligner.applied(row, ticks, *report, None, *where)
        else:
            aligner.issued(row, ticks, np.array([rest[0]]), None, *where)


def refer(events: Sequence[Event], spec: SystemSpec = SPEC, clock: Clock = "event") -> Reference:
    """What the reference makes of `events`; under the wall clock it is told when they came."""
    reference = Reference(spec, PARTITIONS, clock)
    for event in events:
        if clock == "wall":
            reference.time_goes_on(event.at)
        tell(reference, event)
    return reference


def tell(reference: Reference, event: Event) -> None:
    """Gives one record to the reference."""
    if event.kind == "watermark":
        reference.watermark(event.topic, event.partition, event.content)
    elif event.kind == "control":
        reference.control(event.content)
    else:
        getattr(reference, event.kind)(*event.content)


def new_aligner(spec: SystemSpec = SPEC, clock: Clock = "event") -> Aligner:
    """An aligner that knows the partitions of the events' topics."""
    names = [topic(spec, "applied"), *(sensor.topic for sensor in spec.sensors.values())]
    return Aligner(spec, clock, partitions=dict.fromkeys(names, PARTITIONS))


def through_bytes(frames: Sequence[Frame], spec: SystemSpec = SPEC) -> list[Frame]:
    """Frames as a consumer reads them."""
    return [decode_frame(spec, encode_frame(spec, frame)) for frame in frames]


def content(frame: Frame) -> tuple[Any, ...]:
    """Everything in a frame but where it was read from; bytes, so that NaN equals NaN."""
    head = frame.header
    return (
        head.tick,
        head.cohort,
        frame.entities,
        head.left,
        head.closed_by,
        head.control,
        frame.values.tobytes(),
        frame.ages.tobytes(),
        frame.applied.tobytes(),
        frame.status.tobytes(),
        frame.flags.tobytes(),
    )


def assert_agrees(frame: Frame, row: Row) -> None:
    """A frame says what the reference does."""
    head = frame.header
    assert (head.tick, head.cohort, head.left, head.closed_by) == (
        row["tick"],
        row["cohort"],
        row["left"],
        row["closed_by"],
    )
    view = {key: getattr(head.control, key) for key in row["control"]}
    assert view == row["control"]
    assert frame.entities == tuple(row["rows"])
    expected = list(row["rows"].values())
    np.testing.assert_allclose(frame.values, [r["values"] for r in expected], 1e-9, 1e-9)
    np.testing.assert_allclose(frame.ages, np.array([r["ages"] for r in expected]), 1e-6)
    np.testing.assert_array_equal(frame.applied, [r["action"] for r in expected])
    np.testing.assert_array_equal(frame.status, [r["status"] for r in expected])
    np.testing.assert_array_equal(frame.flags, [r["flags"] for r in expected])
