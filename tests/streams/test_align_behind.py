"""An aligner that reads behind: ticks wait for what partitions are known to have."""

import json

from confluent_kafka import Message

from schemas.frames import Frame
from streams.align_feed import Feed, Place
from tests.streams.align_events import SPEC, new_aligner
from tests.streams.test_align_feed import message

FAST = SPEC.sensors["fast"].topic
T = 1_000_000  # us, of the first reading
TICK = SPEC.period_us


class Reader:
    """A feed under the wall clock; `high` is what partitions are known to have."""

    def __init__(self) -> None:
        self.high: dict[Place, int] = {}
        self.aligner = new_aligner(clock="wall")
        self.feed = Feed(SPEC, self.aligner, lambda place: self.high.get(place, 0))

    def close(self, time_us: int) -> list[Frame]:
        return self.aligner.close(time_us)


def reading(partition: int, offset: int, time_us: int) -> Message:
    value = json.dumps({"ts": time_us / 1e6, "a": 1, "b": 1, "c": 1, "d": [1, 1]})
    return message(FAST, partition, offset, "ant" if partition == 0 else "bee", value.encode())


def end(partition: int, offset: int) -> Message:
    return message(FAST, partition, offset, None, None)


def test_an_end_that_is_not_the_end_any_more_lets_nothing_close() -> None:
    reader = Reader()
    reader.high[FAST, 0] = 3
    reader.feed.take([reading(0, 0, T)], [end(0, 1)])
    assert reader.close(T + 9 * TICK) == []
    reader.feed.take([reading(0, 1, T + 1), reading(0, 2, T + 2)], [end(0, 3)])
    assert reader.close(T + 9 * TICK)


def test_a_partition_that_got_records_meanwhile_is_waited_for() -> None:
    reader = Reader()
    reader.feed.take([reading(0, 0, T), reading(1, 0, T)])
    assert [frame.tick for frame in reader.close(T + 3 * TICK)][-1] == 101
    reader.high[FAST, 1] = 2
    reader.feed.take([reading(0, 1, T + 3 * TICK)])
    assert reader.close(T + 9 * TICK) == []
    reader.feed.take([reading(1, 1, T + 2 * TICK + 1)])
    assert reader.close(T + 9 * TICK)
    assert reader.aligner.counters.get("late") is None


def test_what_is_passed_over_is_counted_and_what_comes_then_is_not_late() -> None:
    reader = Reader()
    reader.high[FAST, 0] = 1_000
    reader.feed.take([reading(0, 0, T)])
    assert reader.feed.shed({(FAST, 0): 900, (FAST, 1): 0}) == 899
    (letter,) = reader.feed.letters
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == (FAST, 0, 1, "shed")
    assert letter.detail.startswith("899 records, up to offset 899")
    assert reader.close(T + 20 * TICK) == []
    reader.feed.take([reading(0, 900, T + 19 * TICK)], [end(0, 901)])
    assert reader.aligner.counters == {"readings": 2, "shed": 899}
    assert reader.feed.reasons["shed"] == 899
