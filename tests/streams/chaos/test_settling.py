"""When a run is over: not before its last readings were read (found by chaos seed 811)."""

from __future__ import annotations

from types import SimpleNamespace

from schemas.frames import Frame
from streams.chaos.settling import STILL_S, Ends, Settling
from tests.streams.frames import frame
from tests.streams.specs import small_spec

SENSORS: Ends = {("zoo.a", 0): 10, ("zoo.a", 1): 4}
SAID: Ends = {("zoo.frames", 0): 7}


def last(*read: int, seen_us: int = 1) -> Frame:
    positions = {"zoo.a": dict(enumerate(read))}
    return frame(small_spec("zoo"), 0, 5, positions=positions, seen_us=seen_us)


def test_it_is_over_when_the_newest_frame_covers_all_readings() -> None:
    settling = Settling(lambda: 0.0)
    assert not settling.look({0: last(10, 3), 1: last(9, 4)}, SENSORS, SAID)
    assert not settling.look({}, SENSORS, SAID)
    assert settling.look({0: last(10, 4, seen_us=2), 1: last(9, 4)}, SENSORS, SAID)
    assert not settling.look({0: last(10, 4, seen_us=2), 1: last(9, 4, seen_us=3)}, SENSORS, SAID)


def test_it_is_over_when_nothing_more_is_said_and_a_broker_is_there() -> None:
    now = SimpleNamespace(s=0.0)
    settling, newest = Settling(lambda: now.s), {0: last(9, 4)}
    assert not settling.look(newest, SENSORS, SAID)
    now.s = STILL_S - 0.1
    assert not settling.look(newest, SENSORS, SAID)
    settling.interrupted()  # a broker that was away had nothing to say
    now.s = STILL_S + 1.0
    assert not settling.look(newest, SENSORS, SAID)
    now.s += STILL_S - 0.1
    assert not settling.look(newest, SENSORS, {**SAID, ("zoo.deadletter", 0): 1})
    now.s += STILL_S - 0.1
    assert not settling.look(newest, SENSORS, {**SAID, ("zoo.deadletter", 0): 1})
    now.s += 0.1
    assert settling.look(newest, SENSORS, {**SAID, ("zoo.deadletter", 0): 1})
