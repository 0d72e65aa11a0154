"""The aligner on a real broker: nothing is lost, doubled or held up; what is bad is set aside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message, Producer, TopicPartition
from prometheus_client import REGISTRY

from infra.kafka import KafkaSetupError
from schemas.codes import Status
from schemas.frames import Frame, FrameHeader, decode_frame, encode_frame
from schemas.messages import (
    EPOCH_HEADER,
    WATERMARK_HEADER,
    Applied,
    Control,
    DeadLetter,
    Watermark,
    encode,
)
from schemas.system import SystemSpec, parse_spec
from schemas.topics import cohort_of, cohort_partitions, entity_partitions, partition_of, topic
from streams.align_kafka import run_align
from streams.topic_io import make_consumer, make_producer, partitions
from tests.streams.align_events import content
from tests.support import unique
from tests.system.loop import make_topics, messages, records

pytestmark = pytest.mark.broker
Kafka = dict[str, str]
NAMES = ("ant", "bee", "cat", "dog", "elk")
WAIT_S = 60.0

TEXT = """
system: {system}
entity: animal
tick: {tick}
epoch: 1000000
lateness: {lateness}
cohorts: 3
sensors:
  fast:
    time: {{field: at, unit: us}}
    every: {every}
    max_age: 10 s
    channels:
      a: {{unit: m, range: [-50, 50]}}
      v: {{unit: m, range: [-50, 50], shape: [2], align: mean}}
actions:
  u: {{unit: m, low: -1, high: 1}}
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 5, horizon: 2, iterations: 1}}}}}}
"""


def new_system(
    kafka: Kafka, tick: str = "100 ms", lateness: str = "1 s", every: str = "100 ms"
) -> SystemSpec:
    text = TEXT.format(system=unique(), tick=tick, lateness=lateness, every=every)
    spec = parse_spec(text, "zoo.yaml")
    make_topics(spec, kafka)
    return spec


class Devices:
    """Sends readings, reports and watermarks of a small system."""

    def __init__(self, spec: SystemSpec, kafka: Kafka) -> None:
        self.spec = spec
        self.producer: Producer = make_producer(kafka["bootstrap.servers"], kafka)
        self.sensor = spec.sensors["fast"].topic

    def due(self, tick: int) -> int:
        return self.spec.epoch_us + tick * self.spec.period_us

    def reading(self, name: str, time_us: int, a: float, v: tuple[float, float] = (0, 0)) -> None:
        value = msgspec.json.encode({"at": time_us, "a": a, "v": v, "note": "}{"})
        self.producer.produce(self.sensor, value, name)

    def watermark(self, time_us: int) -> None:
        for name in (self.sensor, topic(self.spec, "applied")):
            for partition in range(entity_partitions(self.spec)):
                headers: dict[str, str | bytes | None] = {WATERMARK_HEADER: b"1"}
                mark = encode(Watermark(time_us))
                self.producer.produce(name, mark, None, partition, headers=headers)

    def tick(self, tick: int) -> None:
        """What all animals send up to a tick, and what was in force before it."""
        for number, name in enumerate(NAMES):
            report = Applied(
                "", name, tick - 1, {"u": number / 8}, Status.APPLIED, self.due(tick) - 9
            )
            self.producer.produce(topic(self.spec, "applied"), encode(report), name)
            for early in (30_000, 10_000):
                v = (number + early / 1e6, tick % 7)
                self.reading(name, self.due(tick) - early, number + tick / 100, v)
        self.watermark(self.due(tick))
        self.producer.poll(0)


def frames_of(spec: SystemSpec, kafka: Kafka) -> list[Frame]:
    return [decode_frame(spec, m.value() or b"") for m in records(spec, kafka, "frames")]


def wait_for(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def wait_for_tick(spec: SystemSpec, kafka: Kafka, tick: int, cohorts: int) -> None:
    wait_for(lambda: sum(f.tick == tick for f in frames_of(spec, kafka)) == cohorts)


@contextmanager
def aligning(spec: SystemSpec, kafka: Kafka, **options: Any) -> Iterator[dict[str, Any]]:
    """An aligner in a thread; the summary is filled in when it has ended."""
    stop, summary = threading.Event(), dict[str, Any]()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_align, spec, kafka["bootstrap.servers"], kafka, stop, **options)
        try:
            yield summary
        finally:
            stop.set()
            summary.update(run.result(WAIT_S))


COHORTS = len({cohort_of(name, 3) for name in NAMES})


# what is bad

GOOD = b'{"at":1050000,"a":1,"v":[1,2]}'
BAD: dict[str, tuple[str, bytes | None, bytes | None]] = {
    "text": ("malformed", b"ant", b"hello"),
    "cut off": ("malformed", b"ant", GOOD[:-4]),
    "two in one": ("malformed", b"ant", GOOD + b"," + GOOD),
    "a word for a number": ("wrong_type", b"bee", b'{"at":1050000,"a":"one"}'),
    "a list": ("wrong_type", b"bee", b"[1,2,3]"),
    "no time": ("missing_field", b"bee", b'{"a":1,"v":[1,2]}'),
    "a short vector": ("wrong_length", b"cat", b'{"at":1050000,"a":1,"v":[1]}'),
    "out of range": ("out_of_range", b"cat", b'{"at":1050000,"a":51,"v":[1,2]}'),
    "the year 2300": ("future", b"cat", b'{"at":10413792000000000,"a":1}'),
    "no value": ("tombstone", b"dog", None),
    "no key": ("no_key", None, GOOD),
    "an empty key": ("empty_key", b"", GOOD),
    "a key of bytes": ("bad_key", b"\xff\xfe", GOOD),
    "a long key": ("long_key", b"k" * 2_000, GOOD),
    "a long value": ("oversized", b"dog", b'{"at":1050000,"q":"' + b"x" * 70_000 + b'"}'),
}


def send_bad(devices: Devices) -> dict[str, tuple[str, int, int]]:
    """Sends all of `BAD` among good readings; gives the coordinates of each."""
    found: dict[str, tuple[str, int, int]] = {}

    def note(kind: str) -> Callable[[Any, Message], None]:
        def delivered(error: Any, message: Message) -> None:
            assert error is None
            found[kind] = (message.topic() or "", message.partition() or 0, message.offset() or 0)

        return delivered

    for number, (kind, (_, key, value)) in enumerate(BAD.items()):
        devices.reading(NAMES[number % 5], devices.due(1) - 40_000 - number, 0.5, (1, 2))
        devices.producer.produce(devices.sensor, value, key, number % 2, on_delivery=note(kind))
    devices.producer.flush()
    return found


def test_what_is_bad_is_set_aside_and_all_the_rest_arrives(kafka: Kafka) -> None:
    spec = new_system(kafka)
    devices = Devices(spec, kafka)
    shown: list[float | None] = []

    def look(count: int) -> None:
        name, labels = "rehearse_align_readings_total", {"system": spec.system}
        if len(shown) < 500:
            shown.append(REGISTRY.get_sample_value(name, labels | {"result": "malformed"}))

    with aligning(spec, kafka, on_batch=look) as summary:
        coordinates = send_bad(devices)
        for tick in range(1, 6):
            devices.tick(tick)
        wait_for_tick(spec, kafka, 5, COHORTS)
        devices.reading("ant", devices.due(2), 7)  # long closed
        devices.tick(6)
        wait_for_tick(spec, kafka, 6, COHORTS)
    letters = messages(spec, kafka, "deadletter", DeadLetter) + [
        msgspec.json.decode(m.value() or b"", type=DeadLetter)
        for m in records(spec, kafka, "deadletter")
        if not m.key()
    ]
    by_place = {(d.topic, d.partition, d.offset): d for d in letters}
    assert len(by_place) == len(letters) == len(BAD) + 1
    for kind, place in coordinates.items():
        letter = by_place.pop(place)
        assert letter.reason == BAD[kind][0], kind
        assert letter.detail
    ((_, late),) = by_place.items()
    assert (late.reason, late.key, late.time) == ("late", "ant", devices.due(2))

    expected = Counter(reason for reason, _, _ in BAD.values()) + Counter({"late": 1})
    assert summary["dead_letters"] == dict(sorted(expected.items()))
    assert {k: summary["counters"][k] for k in expected} == dict(expected)
    # 15 among the bad ones, 2 of each animal and tick, the late one, and two that were half used.
    assert summary["counters"]["readings"] == 15 + 6 * 2 * 5 + 1 + 2
    assert 3.0 in shown

    frames = frames_of(spec, kafka)
    assert sorted((f.tick, f.cohort) for f in frames) == sorted(
        (tick, cohort) for tick in range(1, 7) for cohort in {cohort_of(n, 3) for n in NAMES}
    )
    for frame in frames:
        for name, row in zip(frame.entities, frame.values, strict=True):
            number = NAMES.index(name)
            assert row[0] == number + frame.tick / 100
            readings = [(number + 0.03, frame.tick % 7), (number + 0.01, frame.tick % 7)]
            if frame.tick == 1:
                readings += [(1, 2)] * 3 + [(1, 2)] * (name == "cat")
            np.testing.assert_allclose(row[1:], np.mean(readings, axis=0))
        if frame.tick == 6:  # ticks wait for reports once a watermark was read there
            assert set(frame.status.tolist()) == {int(Status.APPLIED)}


def test_other_topics_have_bad_records_too(kafka: Kafka) -> None:
    spec = new_system(kafka)
    devices = Devices(spec, kafka)
    produce = devices.producer.produce
    produce(topic(spec, "control"), b'{"kind":"sing","time":0}', "x")
    produce(topic(spec, "control"), encode(hold := Control("hold", 0, "ant")), hold.key)
    produce(topic(spec, "applied"), b'{"id":""}', "ant", 0)
    produce(topic(spec, "actions"), b"?", "ant", 0)
    produce(devices.sensor, b"{}", None, 0, headers={WATERMARK_HEADER: b"1"})
    devices.producer.flush()
    with aligning(spec, kafka) as summary:
        devices.tick(1)
        wait_for_tick(spec, kafka, 1, COHORTS)
    assert summary["dead_letters"] == {
        "bad_control": 1, "bad_watermark": 1, "malformed": 1, "missing_field": 1,
    }  # fmt: skip
    assert {f.header.control.holds for f in frames_of(spec, kafka)} == {("ant",)}


# lockstep and restart


def test_a_watermark_closes_a_tick_at_once(kafka: Kafka) -> None:
    """Nothing is sent before the frames of the tick before are there."""
    spec = new_system(kafka)
    devices = Devices(spec, kafka)
    consumer = make_consumer(kafka["bootstrap.servers"], kafka, auto_offset_reset="earliest")
    name = topic(spec, "frames")
    consumer.assign([TopicPartition(name, p, 0) for p in partitions(consumer, name)])
    with aligning(spec, kafka) as summary:
        for tick in range(1, 30):
            devices.tick(tick)
            seen: list[Frame] = []
            limit = time.monotonic() + WAIT_S
            while len(seen) < COHORTS and time.monotonic() < limit:
                message = consumer.poll(0.1)
                if message is not None and message.error() is None:
                    frame = decode_frame(spec, message.value() or b"")
                    assert message.key() == str(frame.cohort).encode()
                    assert message.partition() == partition_of(frame.cohort, 3)
                    assert dict(message.headers() or ()) == {EPOCH_HEADER: b"0"}
                    seen.append(frame)
            assert {f.tick for f in seen} == {tick}
            assert {f.header.closed_by for f in seen} == {"passed"}
    consumer.close()
    assert summary["frames"] == 29 * COHORTS
    assert summary["dead_letters"] == {}


def test_a_killed_aligner_goes_on_as_if_nothing_had_been(kafka: Kafka, tmp_path: Path) -> None:
    spec, twin = new_system(kafka), new_system(kafka)
    sent = 150
    for system in (spec, twin):
        devices = Devices(system, kafka)
        for tick in range(1, 60):
            devices.tick(tick)
            if tick == 20:
                bad = devices.producer.produce
                bad(devices.sensor, b"?", "ant", 0)
        devices.producer.flush()
    with aligning(twin, kafka):
        devices = Devices(twin, kafka)
        for tick in range(60, sent):
            devices.tick(tick)
        wait_for_tick(twin, kafka, sent - 1, COHORTS)

    devices = Devices(spec, kafka)
    file = tmp_path / "zoo.yaml"
    file.write_text(TEXT.format(system=spec.system, tick="100 ms", lateness="1 s", every="100 ms"))
    with process(file, kafka) as first:
        for tick in range(60, 110):
            devices.tick(tick)
            time.sleep(0.01)
            if tick == 90:
                wait_for(lambda: any(f.tick > 65 for f in frames_of(spec, kafka)))
                os.kill(first.pid, signal.SIGKILL)
    with process(file, kafka) as second:
        for tick in range(110, sent):
            devices.tick(tick)
        wait_for_tick(spec, kafka, sent - 1, COHORTS)
        second.terminate()
        out, _ = second.communicate(timeout=WAIT_S)
    assert second.returncode == 0
    assert msgspec.json.decode(out)["epoch"] == 1

    frames, expected = frames_of(spec, kafka), frames_of(twin, kafka)
    assert {f.header.epoch for f in frames} == {0, 1}
    places = Counter((f.cohort, f.tick) for f in frames)
    assert set(places.values()) == {1}
    assert sorted(map(content, frames), key=lambda c: c[:2]) == sorted(
        map(content, expected), key=lambda c: c[:2]
    )
    letters = messages(spec, kafka, "deadletter", DeadLetter)
    assert {d.reason for d in letters} == {"malformed"}


@contextmanager
def process(file: Path, kafka: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """An aligner as its own process, started and ready; ended with the block."""
    command = [sys.executable, "-m", "streams.cli", "align", str(file), "--clock", "event"]
    command += ["--bootstrap-servers", kafka["bootstrap.servers"], "--json"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_frames_of_another_topic_are_no_place_to_go_on_from(kafka: Kafka) -> None:
    spec = new_system(kafka)
    places = {spec.sensors["fast"].topic: {0: 77}}
    header = FrameHeader(
        spec.system, 0, 5, 6, interface_hash=spec.interface_hash, offsets=places, positions=places
    )
    none = np.zeros((1, 1))
    frame = Frame(
        header, ("ant",), np.zeros((1, 3)), np.zeros((1, 2), np.float32), none,
        np.zeros(1, np.uint8), np.zeros(1, np.uint8),
    )  # fmt: skip
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    producer.produce(topic(spec, "frames"), encode_frame(spec, frame), "0", 0)
    producer.flush()
    with pytest.raises(KafkaSetupError, match="another topic"):
        run_align(spec, kafka["bootstrap.servers"], kafka, threading.Event())
    text = TEXT.format(system=spec.system, tick="50 ms", lateness="1 s", every="1 s")
    with pytest.raises(KafkaSetupError, match="under another spec"):
        run_align(parse_spec(text), kafka["bootstrap.servers"], kafka, threading.Event())


def test_a_restart_passes_over_what_is_no_frame(kafka: Kafka) -> None:
    spec = new_system(kafka)
    devices, name = Devices(spec, kafka), topic(spec, "frames")
    with aligning(spec, kafka):
        for tick in range(1, 5):
            devices.tick(tick)
        wait_for_tick(spec, kafka, 4, COHORTS)
    for partition in range(cohort_partitions(spec)):
        for _ in range(100):
            devices.producer.produce(name, b"no frame", None, partition)
    devices.producer.flush()
    with aligning(spec, kafka) as summary:
        devices.tick(5)
        wait_for(lambda: len(list(records(spec, kafka, "frames"))) == 300 + 5 * COHORTS)
    assert (summary["frames"], summary["epoch"]) == (COHORTS, 1)


# the wall clock


def test_under_the_wall_clock_lateness_is_real_time(kafka: Kafka) -> None:
    """One animal falls silent: its cohort waits for it, for as long as `lateness`, and goes on."""
    spec = new_system(kafka, tick="200 ms", lateness="500 ms", every="500 ms")
    devices = Devices(spec, kafka)
    ant, peer = _of_one_cohort()

    def now() -> int:
        return time.time_ns() // 1_000

    with aligning(spec, kafka, clock="wall") as summary:
        begun = silent = 0
        for step in range(16):
            devices.reading(ant, sent := now(), step)
            begun = begun or sent + 1
            if step < 6:
                devices.reading(peer, silent := now(), step)
            devices.producer.flush()
            time.sleep(0.1)
        ended = now()
        wait_for(lambda: any(f.header.time_us > ended for f in frames_of(spec, kafka)))
        devices.reading(ant, begun, 1)
        devices.producer.flush()
        wait_for(lambda: begun in {d.time for d in messages(spec, kafka, "deadletter", DeadLetter)})
    # A machine that stalls for longer than `lateness` has further ones.
    assert summary["dead_letters"].keys() == {"late"}
    stamped = [
        (decode_frame(spec, m.value() or b""), m.timestamp()[1] * 1_000)
        for m in records(spec, kafka, "frames")
    ]
    ticks = [frame.tick for frame, _ in stamped]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
    # It is waited for from when it is due until it is silent, after three of its periods.
    until = min(ended, silent + 1_500_000)
    waited = [f for f, _ in stamped if silent + 500_000 <= f.header.time_us < until]
    assert {f.header.closed_by for f in waited} == {"lateness"}
    assert {f.entities for f in waited} == {tuple(sorted((ant, peer)))}
    for frame, written_us in stamped:
        if frame.header.closed_by == "lateness":
            assert written_us >= frame.header.time_us + spec.lateness_us - 1_000


def _of_one_cohort() -> tuple[str, str]:
    found: dict[int, str] = {}
    for name in NAMES:
        other = found.setdefault(cohort_of(name, 3), name)
        if other != name:
            return other, name
    raise AssertionError("five names in three cohorts")
