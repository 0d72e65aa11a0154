"""Devices' clocks on the way of readings: from records with the broker's stamps into frames."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Message

from schemas.frames import Frame
from schemas.system import SpecError, parse_spec
from streams.align import Aligner
from streams.align_discipline import Discipline
from streams.align_feed import Feed, Place

S = 1_000_000
BEGIN = 1_700_000_000 * S
TRANSIT = 3_000
TEXT = """
system: fleet
entity: robot
tick: 100 ms
lateness: 60 ms
cohorts: 1
sensors:
  pose:
    time: {field: ts, unit: us}
    every: 100 ms
    max_age: 5 s
    channels: {x: {unit: m, range: [-100, 100]}}
actions: {u: {unit: m, low: -1, high: 1}}
fallback: {kind: value}
budget: {tiers: {one: {candidates: 5, horizon: 2, iterations: 1}}}
"""
OFFSETS = {"right": 0, "fast": 250_000, "slow": -250_000}
"""By how much a robot's clock is ahead, us."""


class Fleet:
    """Robots that report with every tick, and the aligner's way up to its frames."""

    def __init__(self, text: str = TEXT, kind: int = TIMESTAMP_LOG_APPEND_TIME) -> None:
        self.spec, self.kind = parse_spec(text), kind
        self.topic = self.spec.sensors["pose"].topic
        self.aligner = Aligner(self.spec, "wall", ahead_us=60 * S)
        self.now, self.behind = BEGIN, False
        self.clocks = Discipline(self.spec, self.aligner.names.__getitem__, lambda: self.now)
        self.feed = Feed(self.spec, self.aligner, self._high, clocks=self.clocks)
        self.offset = 0
        self.rng = np.random.default_rng(0)
        self.frames: list[Frame] = []

    def _high(self, place: Place) -> int:
        return self.offset + (1 if self.behind else 0)

    def run(
        self, ticks: Sequence[int], jitter: float = 40_000.0, jump: int = 0, late: int = 0
    ) -> None:
        """Records as they come, `late` us after the broker had them; jump: of the right clock."""
        for tick in ticks:
            true = BEGIN + tick * 100_000
            way = TRANSIT + self.rng.uniform(0, jitter, len(OFFSETS))
            for name, after in sorted(zip(OFFSETS, way, strict=True), key=lambda pair: pair[1]):
                stamp = true + OFFSETS[name] + (jump if name == "right" else 0)
                came = true + int(after)
                self.now = max(self.now, came + late)
                self.feed.take([self._message(name, stamp, came)])
                self.frames += self.aligner.close(self.now)
            self.clocks.rest()
        self.now += 100_000
        self.frames += self.aligner.close(self.now)

    def _message(self, name: str, stamp: int, came: int) -> Message:
        value = json.dumps({"ts": stamp, "x": stamp // 100_000 % 50}).encode()
        self.offset += 1
        when = (self.kind, came // 1_000)
        return Message(self.topic, 0, self.offset - 1, name.encode(), value, timestamp=when)

    def ages(self, name: str) -> Any:
        """[frames] of the last 100, s."""
        return np.array([f.ages[f.entities.index(name), 0] for f in self.frames[-100:]])


def test_readings_are_aligned_by_the_brokers_clock() -> None:
    fleet = Fleet()
    fleet.run(range(200))
    assert fleet.clocks.corrected == 2
    assert (fleet.ages("right") == 0.0).all(), "at the tick's time belongs to the tick"
    for name in ("fast", "slow"):
        # By the broker's clock they are measured when the first could be there.
        assert fleet.ages(name) == pytest.approx(0.1 - TRANSIT / S, abs=0.005)
    worst = dict(fleet.clocks.worst())
    assert worst["pose/fast"]["offset_s"] == pytest.approx(0.25 - TRANSIT / S, abs=0.005)
    assert worst["pose/slow"]["offset_s"] == pytest.approx(-0.25 - TRANSIT / S, abs=0.005)
    assert all(known["uncertainty_s"] < 0.005 for known in worst.values())
    assert fleet.aligner.counters["late"] < 60, "only before it was learnt"


def test_a_clock_that_is_set_is_counted() -> None:
    fleet = Fleet()
    fleet.run(range(100))
    fleet.run(range(100, 250), jump=-600_000)
    assert fleet.clocks.jumps == 1
    assert fleet.ages("right") == pytest.approx(0.1 - TRANSIT / S, abs=0.005)
    assert fleet.clocks.summary()["corrected"] == 3


@pytest.mark.parametrize("behind", [False, True])
def test_without_the_brokers_times_those_count_at_which_records_are_received(behind: bool) -> None:
    fleet = Fleet(kind=TIMESTAMP_CREATE_TIME)
    fleet.behind = behind
    fleet.run(range(150), late=1_000 if not behind else 30 * S)
    assert fleet.clocks.corrected == (0 if behind else 2), "old records say nothing"
    if not behind:
        assert fleet.ages("fast") == pytest.approx(0.1 - 0.004, abs=0.005)


def test_large_batches_are_learnt_from_by_samples_of_every_device() -> None:
    spec = parse_spec(TEXT.replace("cohorts: 1", "cohorts: 4"))
    aligner = Aligner(spec, "wall", ahead_us=60 * S)
    clocks = Discipline(spec, aligner.names.__getitem__, lambda: BEGIN)
    feed = Feed(spec, aligner, lambda place: 0, clocks=clocks)
    offset = 0
    for second in range(20):
        batch = []
        for tick in range(10):
            for robot in range(200):
                at = BEGIN + second * S + tick * 100_000 + robot
                value = json.dumps({"ts": at - 400_000, "x": 1.0}).encode()
                when = (TIMESTAMP_LOG_APPEND_TIME, (at + TRANSIT) // 1_000)
                topic = spec.sensors["pose"].topic
                key = f"robot-{robot}".encode()
                batch.append(Message(topic, 0, offset, key, value, timestamp=when))
                offset += 1
        feed.take(batch)
        aligner.close(BEGIN + second * S)
        clocks.rest()
    assert clocks.corrected == 200


def test_a_sensor_whose_clock_is_right_can_be_left_out() -> None:
    fleet = Fleet(TEXT.replace("unit: us}", "unit: us, discipline: off}"))
    fleet.run(range(100))
    assert (fleet.clocks.corrected, fleet.clocks.summary()["worst"]) == (0, {})
    far = Fleet(TEXT.replace("unit: us}", "unit: us, discipline: 400 ms}"))
    far.run(range(100))
    assert far.clocks.corrected == 0


@pytest.mark.parametrize("text", ["0 s", "soon", "5", "true"])
def test_what_discipline_cannot_be(text: str) -> None:
    with pytest.raises(SpecError, match="discipline"):
        parse_spec(TEXT.replace("unit: us}", f"unit: us, discipline: {text}}}"))
