"""Records in any batches reach the aligner's core as the same events one by one."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from hypothesis import given, settings

from schemas.codes import Flag
from schemas.frames import Frame, Offsets
from schemas.messages import (
    WATERMARK_HEADER,
    Action,
    Applied,
    Control,
    Outcome,
    Watermark,
    encode,
)
from schemas.system import parse_spec
from schemas.topics import topic
from streams.align import Aligner
from streams.align_feed import Feed, Place, topics_read
from tests.streams.align_events import (
    SPEC,
    Event,
    Step,
    content,
    events_of,
    feed,
    new_aligner,
    random_steps,
    steps,
    through_bytes,
)


def message(
    name: str,
    partition: int,
    offset: int,
    key: str | bytes | None,
    value: bytes | None,
    headers: Any = None,
) -> Message:
    key = key.encode() if isinstance(key, str) else key
    return Message(
        topic=name, partition=partition, offset=offset, key=key, value=value, headers=headers
    )


def record(event: Event) -> Message:
    """The record that an event of the core's tests stands for."""
    place = (event.topic, event.partition, event.offset)
    if event.kind == "watermark":
        value = encode(Watermark(event.content))
        return message(*place, None, value, [(WATERMARK_HEADER, b"1")])
    if event.kind == "control":
        return message(*place, event.content.key, encode(event.content))
    name, *rest = event.content
    if event.kind == "reading":
        _, name, time_us, values = event.content
        fields = {k: v if len(v) > 1 else v[0] for k, v in values.items()}
        return message(*place, name, json.dumps({"ts": time_us / 1e6, **fields}).encode())
    values = dict(zip(SPEC.action_columns, rest[-1], strict=True))
    tick = rest[0]
    time_us = SPEC.epoch_us + tick * SPEC.period_us
    if event.kind == "applied":
        return message(*place, name, encode(Applied("", name, tick, values, rest[1], time_us)))
    action = Action("", SPEC.system, name, tick, time_us, values, time_us, 0, 0)
    return message(*place, name, encode(action))


def no_more(place: Place) -> int:
    return 0


def one_by_one(records: Sequence[Message]) -> list[Frame]:
    """Each record is known when it is read, and none before."""
    aligner = new_aligner()
    intake = Feed(SPEC, aligner, no_more)
    frames = []
    for single in records:
        intake.take([single])
        frames += aligner.close()
    return frames


def in_order(frames: Sequence[Frame]) -> list[tuple[Any, ...]]:
    return sorted(map(content, frames), key=lambda c: c[:2])


@settings(max_examples=60, deadline=None)
@given(steps)
def test_records_mean_what_the_events_mean(taken: list[Step]) -> None:
    log = events_of(taken)
    expected = feed(new_aligner(), log, 1)
    assert in_order(one_by_one([record(event) for event in log])) == in_order(expected)


def test_records_mean_what_the_events_mean_in_long_streams() -> None:
    log = events_of(random_steps(7, 1_200))
    expected = feed(new_aligner(), log, 1)
    assert len(expected) > 200
    assert in_order(one_by_one([record(event) for event in log])) == in_order(expected)


# batches

WATCHED = topics_read(SPEC)[2:]


def lockstep(ticks: int, seed: int) -> list[Message]:
    """Readings in the order of their times, then watermarks, then reports, tick after tick."""
    rng = np.random.default_rng(seed)
    ends: dict[Place, int] = defaultdict(int)
    log: list[Message] = []

    def add(name: str, partition: int, key: str | None, value: bytes, headers: Any = None) -> None:
        log.append(message(name, partition, ends[name, partition], key, value, headers))
        ends[name, partition] += 1

    for tick in range(1, ticks):
        due = tick * SPEC.period_us
        for number, name in enumerate(("ant", "bee", "cat", "dog", "elk")):
            for sensor in SPEC.sensors.values():
                early = rng.integers(1, SPEC.period_us, int(rng.integers(0, 3))).tolist()
                # One at the tick itself: `linear` else depends on whether the next one is there.
                for before in (*sorted(early, reverse=True), 0):
                    time_us = due - before
                    fields: dict[str, Any] = {"ts": time_us / 1e6}
                    for channel in sensor.channels.values():
                        row = rng.normal(size=channel.size).tolist()
                        fields[channel.name] = row if channel.size > 1 else row[0]
                    add(sensor.topic, number % 2, name, msgspec.json.encode(fields))
        for name in (*(s.topic for s in SPEC.sensors.values()), topic(SPEC, "applied")):
            for partition in range(2):
                mark = encode(Watermark(due))
                add(name, partition, None, mark, [(WATERMARK_HEADER, b"1")])
        for number, name in enumerate(("ant", "bee", "cat", "dog", "elk")):
            values = dict(zip(SPEC.action_columns, rng.normal(size=3).tolist(), strict=True))
            report = Applied("", name, tick, values, 2, due)
            add(topic(SPEC, "applied"), number % 2, name, encode(report))
    return log


def deliver(
    log: Sequence[Message], rng: np.random.Generator, seek: Offsets, aligner: Aligner, most: int
) -> list[Frame]:
    """All of `log` from `seek` on is there already; it is read in any batches, partition-wise."""
    queues: dict[Place, list[Message]] = defaultdict(list)
    highs: dict[Place, int] = defaultdict(int)
    for single in log:
        place = (single.topic() or "", single.partition() or 0)
        highs[place] = (single.offset() or 0) + 1
        if (single.offset() or 0) >= seek.get(place[0], {}).get(place[1], 0):
            queues[place].append(single)
    intake = Feed(SPEC, aligner, lambda place: highs[place])
    intake.begin(queues)
    frames: list[Frame] = []
    while any(queues.values()):
        batch: list[Message] = []
        places = [place for place, queue in queues.items() if queue]
        for chosen in rng.permutation(len(places))[: int(rng.integers(1, 4))]:
            count = int(rng.integers(1, most))
            batch += queues[places[chosen]][:count]
            del queues[places[chosen]][:count]
        intake.take(batch)
        frames += aligner.close()
    assert not intake.letters
    return frames


@pytest.mark.parametrize("seed", range(4))
def test_which_partition_is_read_first_changes_nothing(seed: int) -> None:
    log = lockstep(60, seed)
    expected = one_by_one(log)
    assert len(expected) == 59 * 2  # one cohort is empty
    for most in (5, 80):
        rng = np.random.default_rng([seed, most])
        frames = deliver(log, rng, {}, new_aligner(), most)
        assert in_order(frames) == in_order(expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_restart_goes_on_in_any_batches(seed: int) -> None:
    log = lockstep(60, seed)
    expected = one_by_one(log)
    rng = np.random.default_rng(seed)
    kill = int(rng.integers(len(log) // 3, len(log)))
    emitted = deliver(log[:kill], rng, {}, new_aligner(), 40)
    restarted = new_aligner()
    seek = restarted.restore(through_bytes(emitted))
    further = deliver(log, rng, seek, restarted, 40)
    assert {frame.header.epoch for frame in further} == {1}
    assert in_order([*emitted, *further]) == in_order(expected)


# what cannot be used


def reading(
    offset: int, key: str | bytes | None, value: bytes | None, partition: int = 0
) -> Message:
    return message(SPEC.sensors["fast"].topic, partition, offset, key, value)


def test_dead_letters_have_their_bytes_and_coordinates() -> None:
    aligner = new_aligner()
    intake = Feed(SPEC, aligner, no_more)
    good = b'{"ts":5,"a":1,"b":2,"c":3,"d":[1,2]}'
    far = b'{"ts":5.001,"a":999,"b":2,"c":3,"d":[1,2]}'
    name = SPEC.sensors["fast"].topic
    intake.take(
        [
            reading(10, "ant", good),
            reading(11, None, good),
            reading(12, "bee", b"?"),
            reading(7, "cat", far, partition=1),
            reading(13, "bee", None),
            message(name, 0, 14, None, b"{}", [(WATERMARK_HEADER, b"1")]),
            reading(15, "dog", good),
        ]
    )
    found = {(d.partition, d.offset, d.reason, d.key) for d in intake.letters}
    assert found == {
        (0, 11, "no_key", None),
        (0, 12, "malformed", "bee"),
        (1, 7, "out_of_range", "cat"),
        (0, 13, "tombstone", "bee"),
        (0, 14, "bad_watermark", None),
    }
    assert {d.topic for d in intake.letters} == {name}
    by_reason = {d.reason: d for d in intake.letters}
    assert by_reason["malformed"].value == "Pw=="
    assert by_reason["tombstone"].value is None
    assert by_reason["out_of_range"].time == 5_001_000
    assert aligner.counters == {
        "readings": 3, "out_of_range": 1,
        "no_key": 1, "malformed": 1, "tombstone": 1, "bad_watermark": 1,
    }  # fmt: skip
    assert aligner.entities == 4, "who is named by a key is known, whatever the value"


def test_what_was_reported_before_a_restart_is_not_reported_again() -> None:
    aligner = new_aligner()
    name = SPEC.sensors["fast"].topic
    intake = Feed(SPEC, aligner, no_more, known={name: {0: 12}})
    intake.take([reading(offset, "ant", b"?") for offset in (10, 11, 12)])
    assert [letter.offset for letter in intake.letters] == [12]
    assert aligner.counters == {"malformed": 1}


SHARED = parse_spec("""
system: share
tick: 1 s
cohorts: 1
sensors:
  a:
    topic: both
    every: 1 s
    max_age: 9 s
    channels: {x: {unit: m, range: [0, 9]}}
  b:
    topic: both
    time: {field: when, unit: s}
    every: 1 s
    max_age: 9 s
    channels: {y: {unit: m, range: [0, 9]}}
actions: {u: {unit: m, low: -1, high: 1}}
fallback: {kind: value}
budget: {tiers: {one: {candidates: 5, horizon: 2, iterations: 1}}}
""")


def test_two_sensors_may_share_a_topic() -> None:
    aligner = Aligner(SHARED)
    intake = Feed(SHARED, aligner, no_more)
    values = [
        b'{"ts":0.5,"x":1}', b'{"when":0.6,"y":2}', b'{"ts":1,"when":1,"x":3,"y":4}', b'{"z":1}',
    ]  # fmt: skip
    intake.take([message("both", 0, i, "ant", value) for i, value in enumerate(values)])
    assert [(d.offset, d.reason) for d in intake.letters] == [(3, "missing_field")]
    (frame,) = aligner.close(2_500_000)[:1]
    assert (frame.tick, frame.values.tolist()) == (1, [[3, 4]])


# several readings per message

LISTS = parse_spec("""
system: lists
tick: 1 s
cohorts: 1
sensors:
  a:
    topic: many
    codec: {json: {records: r}}
    every: 1 s
    max_age: 9 s
    channels: {x: {unit: m, range: [0, 9999], align: sum}}
actions: {u: {unit: m, low: -1, high: 1}}
fallback: {kind: value}
budget: {tiers: {one: {candidates: 5, horizon: 2, iterations: 1}}}
""")


def listed(offset: int, *readings: tuple[float, float]) -> Message:
    content = {"r": [{"ts": ts, "x": x} for ts, x in readings]}
    return message("many", 0, offset, "ant", json.dumps(content).encode())


def sums(frames: Sequence[Frame]) -> dict[int, float]:
    return {frame.tick: float(frame.values[0, 0]) for frame in frames}


def test_a_record_may_hold_several_readings() -> None:
    aligner = Aligner(LISTS)
    intake = Feed(LISTS, aligner, no_more)
    intake.take(
        [listed(0, (0.2, 1), (0.4, 2), (0.9, 4), (1.5, 8)), listed(1), listed(2, (1.9, 16))]
    )
    assert sums(aligner.close(3_500_000)) == {1: 7, 2: 24}
    assert intake.letters == []
    assert aligner.counters["readings"] == 5


def test_late_readings_of_a_record_are_one_dead_letter() -> None:
    aligner = Aligner(LISTS)
    intake = Feed(LISTS, aligner, no_more)
    intake.take([listed(7, (9.5, 1))])
    aligner.close(11_500_000)
    intake.take([listed(8, (1.1, 1), (1.2, 1), (9.6, 1), (20, 1), (20.1, 20000), (20.2, 30000))])
    found = [(d.offset, d.reason, "readings of it" in d.detail) for d in intake.letters]
    assert sorted(found) == [(8, "late", True), (8, "out_of_range", True)]
    assert aligner.counters["late"] == 3


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_tick_that_closes_within_a_record_loses_none_of_it(cut: int) -> None:
    """The last frame before a restart was closed by a reading in the middle of a record."""
    readings = [(0.5 + 0.3 * i, float(2**i)) for i in range(12)]
    log = [listed(0, *readings[:4]), listed(1, *readings[4:9]), listed(2, *readings[9:])]
    log.append(listed(3, (9.0, 1)))
    aligner = Aligner(LISTS)
    whole = Feed(LISTS, aligner, no_more)
    whole.take(log)
    expected = aligner.close(9_500_000)

    aligner = Aligner(LISTS)
    intake = Feed(LISTS, aligner, no_more)
    frames = []
    for record in log[:cut]:
        intake.take([record])
        frames += aligner.close()
    again = Aligner(LISTS)
    seek = again.restore(frames)
    intake = Feed(LISTS, again, no_more)
    begin = max(seek.get("many", {}).get(0, 0), 0)
    for record in log[begin:]:
        intake.take([record])
        frames += again.close()
    frames += again.close(9_500_000)
    assert sums(frames) == sums(expected)
    assert intake.letters == []


# control and outcomes


def test_control_records_and_tombstones() -> None:
    aligner = Aligner(SHARED)
    intake = Feed(SHARED, aligner, no_more)
    name = topic(SHARED, "control")
    hold = Control("hold", 1_000_000, "ant")
    intake.take(
        [
            message(name, 0, 0, hold.key, encode(hold)),
            message(name, 0, 1, "x", b'{"kind":"sing","time":0}'),
        ]
    )
    both = b'{"ts":%d,"when":%d,"x":3,"y":4}'
    intake.take([message("both", 0, 0, "ant", both % (1, 1))])
    held = aligner.close(2_500_000)
    assert [frame.header.control.holds for frame in held] == [("ant",)]
    intake.take([message(name, 0, 2, hold.key, None)])
    intake.take([message("both", 0, 1, "ant", both % (2, 2))])
    assert next(iter(aligner.close(9_000_000))).header.control.holds == ()
    assert [(d.offset, d.reason) for d in intake.letters] == [(1, "bad_control")]


def test_the_end_of_an_episode_resets_from_the_next_tick_on() -> None:
    aligner = Aligner(SHARED)
    intake = Feed(SHARED, aligner, no_more)
    name = topic(SHARED, "outcomes")
    end = Outcome("ant", 2, 2_000_000, {}, "end")
    intake.take([message(name, 0, 0, "ant", encode(end)), message(name, 0, 1, "ant", b'"end"')])
    both = b'{"ts":%d,"when":%d,"x":3,"y":4}'
    for second in range(1, 5):
        intake.take([message("both", 0, second, "ant", both % (second, second))])
    flags = {frame.tick: int(frame.flags[0]) for frame in aligner.close(4_000_000)}
    assert {tick: flag & Flag.RESET for tick, flag in flags.items()} == {
        1: 0, 2: 0, 3: Flag.RESET, 4: 0,
    }  # fmt: skip
    assert [(d.offset, d.reason) for d in intake.letters] == [(1, "bad_outcome")]
