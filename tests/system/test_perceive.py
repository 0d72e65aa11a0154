"""Pictures and clouds of points from devices become channels of frames, with a kill between."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import streams
from infra.plants.views import RANGE_M, clouds, jpeg, pictures
from schemas.frames import Frame, decode_frame
from schemas.messages import DeadLetter
from schemas.system import SystemSpec, load_spec
from schemas.topics import topic
from streams.perceive import ENCODER_HEADER
from streams.raw_inputs import MAX_PIXELS
from streams.readings import send_watermark
from streams.supervise import Process, Supervisor
from streams.topic_io import make_consumer, make_producer, partitions, read_to_end
from tests.support import unique
from tests.system.loop import make_topics, records
from tests.system.test_align_kafka import aligning, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.system]
Kafka = dict[str, str]
Floats = npt.NDArray[np.float64]
EXAMPLES = Path(streams.__file__).parent / "examples"
NAMES = ("ant", "bee", "cat")
TICKS = 8
KILLED_AT = 4
WITHIN_M = 0.8  # 95 % of errors are below 0.13 (camera) and 0.37 (lidar)


def new_spec(folder: Path, batch: int) -> Path:
    """The example under a name of its own; two cohorts, so that topics have two partitions."""
    text = (EXAMPLES / "sight.yaml").read_text()
    text = text.replace("system: sight", f"system: {unique()}").replace("cohorts: 1", "cohorts: 2")
    # Ticks are closed by watermarks alone, however late one sense is encoded beside the other.
    text = text.replace("lateness: 50 ms", "lateness: 60 s")
    for name in ("camera", "lidar"):
        text = text.replace(f"{name}.onnx", f"{EXAMPLES / name}.onnx, batch: {batch}, wait: 20 ms")
    file = folder / "sight.yaml"
    file.write_text(text)
    return file


class Devices:
    """Robots that send what their cameras and lidars see of the goals at `offsets`."""

    def __init__(self, spec: SystemSpec, kafka: Kafka) -> None:
        self.spec, self.rng = spec, np.random.default_rng(4)
        self.offsets = self.rng.uniform(-0.9 * RANGE_M, 0.9 * RANGE_M, (TICKS + 1, len(NAMES), 2))
        self.producer = make_producer(kafka["bootstrap.servers"], kafka)
        self.camera, self.lidar = (raw.topic for _, raw in spec.perceived)
        consumer = make_consumer(kafka["bootstrap.servers"], kafka)
        odometry = spec.sensors["odometry"].topic  # nothing but watermarks
        read = (self.camera, self.lidar, odometry, topic(spec, "applied"))
        self.places = [(name, number) for name in read for number in partitions(consumer, name)]
        consumer.close()

    def send(self, name: str, value: bytes | None, key: str | None, time: str | None) -> None:
        headers: dict[str, str | bytes | None] | None = None if time is None else {"ts": time}
        self.producer.produce(name, value, key, headers=headers)

    def tick(self, tick: int) -> None:
        due = tick * self.spec.period_us
        seen = pictures(self.offsets[tick], self.rng), clouds(self.offsets[tick], self.rng, 200)
        for name, picture, cloud in zip(NAMES, *seen, strict=True):
            self.send(self.camera, jpeg(picture), name, str(due - 30_000))
            self.send(self.lidar, cloud.tobytes(), name, str(due - 10_000))
        if tick == 2:
            self.poison(jpeg(pictures(self.offsets[tick][:1], self.rng)[0]), str(due - 20_000))
        send_watermark(self.producer, self.places, due)
        self.producer.flush()

    def poison(self, good: bytes, time: str) -> None:
        bomb = good.replace(b"\x08\x00\x40\x00\x40\x03", b"\x08\xff\xf0\xff\xf0\x03")
        assert bomb != good
        assert MAX_PIXELS < 0xFFF0**2
        for value, key, when in (
            (bomb, "ant", time),
            (good[: len(good) // 2], "ant", time),
            (b"GIF89a", "ant", time),
            (good, "ant", None),
            (good, "ant", "noon"),
            (good, None, time),
            (None, "ant", time),
        ):
            self.send(self.camera, value, key, when)
        nothing = np.full((9, 3), np.nan, np.float32).tobytes()
        for value in (nothing, nothing[:-1]):
            self.send(self.lidar, value, "bee", time)


POISON = {"oversized": 1, "malformed": 4, "missing_field": 1, "wrong_type": 1, "tombstone": 1}
POISON |= {"no_key": 1}


def frames_of(spec: SystemSpec, kafka: Kafka) -> list[Frame]:
    return [decode_frame(spec, m.value() or b"") for m in records(spec, kafka, "frames")]


def ticks_of(spec: SystemSpec, kafka: Kafka) -> int:
    return max((frame.tick for frame in frames_of(spec, kafka)), default=0)


def test_what_robots_see_becomes_channels_though_perceive_is_killed(
    kafka: Kafka, tmp_path: Path
) -> None:
    file = new_spec(tmp_path, batch=4)
    spec = load_spec(file)
    make_topics(spec, kafka)
    devices = Devices(spec, kafka)
    where = ("--bootstrap-servers", kafka["bootstrap.servers"], "--clock", "event")
    with Supervisor(tmp_path) as supervisor, aligning(spec, kafka) as summary:
        arguments = (str(file), *where, "--data-dir", str(tmp_path / "p0"))
        perceive = supervisor.start("perceive", "perceive", *arguments)
        for tick in range(1, KILLED_AT + 1):
            devices.tick(tick)
        wait_for(lambda: ticks_of(spec, kafka) >= KILLED_AT)
        kill(perceive)
        devices.tick(KILLED_AT + 1)
        supervisor.check()  # starts it again
        for tick in range(KILLED_AT + 2, TICKS + 1):
            devices.tick(tick)
        wait_for(lambda: ticks_of(spec, kafka) >= TICKS)
    assert perceive.restarts == 1
    check_frames(frames_of(spec, kafka), devices.offsets)
    check_readings(spec, kafka)
    # What was done before the kill may be done again: dead letters too, which nobody acts upon.
    letters = all_letters(spec, kafka)
    repeats = [letter for letter in letters if letter.topic not in (devices.camera, devices.lidar)]
    assert {letter.reason for letter in repeats} <= {"late"}  # of ticks that had long closed
    letters = [letter for letter in letters if letter not in repeats]
    once = {(letter.topic, letter.partition, letter.offset): letter for letter in letters}
    assert Counter(letter.reason for letter in once.values()) == POISON
    assert all(letter.detail for letter in letters)
    counters = summary["counters"]
    again = counters.get("duplicate", 0) + counters.get("late", 0)
    assert counters["readings"] - again == 2 * len(NAMES) * TICKS
    said = perceive.summary()["sensors"]
    assert set(said) == {"camera", "lidar"}
    assert said["camera"]["encoded"] >= len(NAMES) * (TICKS - KILLED_AT)
    assert said["camera"]["encoder"] == spec.perceived[0][1].sha256[:16]


def kill(process: Process) -> None:
    assert process.child is not None
    process.child.send_signal(signal.SIGKILL)
    process.child.wait()


def check_frames(frames: list[Frame], offsets: Floats) -> None:
    """Every robot at every tick, both senses near the truth, each as old as its picture."""
    seen = set()
    for frame in frames:
        for name, values, ages in zip(frame.entities, frame.values, frame.ages, strict=True):
            truth = offsets[frame.tick, NAMES.index(name)]
            assert np.abs(values[:4] - np.tile(truth, 2)).max() < WITHIN_M, (name, frame.tick)
            assert ages[:2].tolist() == pytest.approx([0.03, 0.01])
            seen.add((name, frame.tick))
    assert seen == {(name, tick) for name in NAMES for tick in range(1, TICKS + 1)}


def check_readings(spec: SystemSpec, kafka: Kafka) -> None:
    """What was encoded twice has the same bytes, and says which encoder made it."""
    for sensor, raw in spec.perceived:
        found: dict[tuple[bytes, bytes], set[bytes]] = {}
        for message in read_to_end(kafka["bootstrap.servers"], kafka, sensor.topic):
            key, value = message.key(), message.value() or b""
            if key is None:
                continue
            assert dict(message.headers() or ()) == {ENCODER_HEADER: raw.sha256[:16].encode()}
            found.setdefault((key, value[:8]), set()).add(value)
        assert len(found) == len(NAMES) * TICKS
        assert {len(values) for values in found.values()} == {1}


def all_letters(spec: SystemSpec, kafka: Kafka) -> list[DeadLetter]:
    found = records(spec, kafka, "deadletter")
    return [msgspec.json.decode(m.value() or b"", type=DeadLetter) for m in found]
