"""Avro and Protobuf from devices to frames, with a schema registry that may be silent."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

from infra.plants.base import make_plant
from infra.registry import Registry
from schemas.frames import Frame, decode_frame
from schemas.messages import DeadLetter
from schemas.system import SystemSpec, parse_spec
from streams.codecs import make_writer
from streams.codecs.base import REASONS
from streams.plant import run_plant
from streams.readings import send_watermark
from streams.topic_io import make_consumer, make_producer, partitions
from tests.registry_server import RegistryServer, serving
from tests.support import shipped_text, unique
from tests.system.loop import constant_worker, make_topics, messages, records
from tests.system.test_align_kafka import aligning, wait_for

pytestmark = pytest.mark.broker
Kafka = dict[str, str]
NAMES = ("ant", "bee", "cat")
TICKS = 6

TEXT = """
system: {system}
entity: animal
tick: 100 ms
lateness: 1 s
cohorts: 2
sensors:
  body:
    topic: {system}.state
    codec: avro
    time: {{field: at, unit: us}}
    every: 100 ms
    max_age: 10 s
    channels:
      weight: {{unit: kg, range: [0, 1000]}}
      v: {{unit: m/s, range: [-50, 50], shape: [2]}}
  head:
    topic: {system}.state
    codec: avro
    time: {{field: at, unit: us}}
    every: 100 ms
    max_age: 10 s
    channels: {{warmth: {{unit: K, range: [0, 1000]}}}}
  steps:
    codec: {{protobuf: {{records: steps}}}}
    time: {{field: at, unit: us}}
    every: 100 ms
    max_age: 10 s
    channels: {{force: {{unit: N, range: [0, 1e6], align: sum}}}}
actions:
  u: {{unit: m, low: -1, high: 1}}
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 5, horizon: 2, iterations: 1}}}}}}
"""


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with serving() as found:
        yield found


def new_system(kafka: Kafka) -> SystemSpec:
    spec = parse_spec(TEXT.format(system=unique()), "zoo.yaml")
    make_topics(spec, kafka)
    return spec


class Devices:
    """Sends what the animals' sensors have to say."""

    def __init__(self, spec: SystemSpec, kafka: Kafka, server: RegistryServer) -> None:
        self.producer = make_producer(kafka["bootstrap.servers"], kafka)
        registry = Registry({"url": server.url})
        body, head, steps = spec.sensors.values()
        self.state, self.steps = body.topic, steps.topic
        self.avro = make_writer([body, head], registry)
        self.protobuf = make_writer([steps], registry)
        names = (self.state, self.steps, f"{spec.system}.applied")
        consumer = make_consumer(kafka["bootstrap.servers"], kafka)
        self.places = [(name, number) for name in names for number in partitions(consumer, name)]
        consumer.close()

    def tick(self, tick: int) -> None:
        due = tick * 100_000
        for number, name in enumerate(NAMES):
            row = [due - 10_000, number + tick, [tick, -number], 300 + tick]
            values = self.avro.encode(["at", "weight", "v", "warmth"], [row])
            values += [b"\0" + (99).to_bytes(4, "big") + b"?", b"\1junk", values[0][:-3], b""]
            for value in values if tick == 2 else values[:1]:
                self.producer.produce(self.state, value, name)
            force = self.protobuf.encode(["at", "force"], [[due - 20_000, tick], [due - 5_000, 1]])
            for value in force:
                self.producer.produce(self.steps, value, name)
        send_watermark(self.producer, self.places, due)
        self.producer.flush()


def frames_of(spec: SystemSpec, kafka: Kafka) -> list[Frame]:
    return [decode_frame(spec, m.value() or b"") for m in records(spec, kafka, "frames")]


def test_readings_under_schemas_arrive_though_the_registry_was_silent(
    kafka: Kafka, server: RegistryServer
) -> None:
    spec = new_system(kafka)
    devices = Devices(spec, kafka, server)
    server.failing = True
    settings = {**kafka, "schema.registry.url": server.url}
    asked = len(server.requests)
    with aligning(spec, settings) as summary:
        for tick in range(1, TICKS + 1):
            devices.tick(tick)
        wait_for(lambda: sum("ids" in r for r in server.requests[asked:]) > 1)
        assert frames_of(spec, kafka) == [], "ticks wait for what is held back"
        server.failing = False
        wait_for(lambda: len(frames_of(spec, kafka)) >= 2 * TICKS)
    rows = {}
    for frame in frames_of(spec, kafka):
        for name, values in zip(frame.entities, frame.values, strict=True):
            rows[name, frame.tick] = values.tolist()
    expected = {
        (name, tick): [number + tick, tick, -number, 300 + tick, tick + 1]
        for number, name in enumerate(NAMES)
        for tick in range(1, TICKS + 1)
    }
    assert rows == expected
    letters = messages(spec, kafka, "deadletter", DeadLetter)
    found = Counter(letter.reason for letter in letters)
    assert found == {"unknown_schema": 3, "bad_magic": 3, "truncated": 6}
    assert found.keys() <= REASONS.keys()
    assert all(letter.detail and letter.topic == devices.state for letter in letters)
    assert summary["counters"]["readings"] == len(NAMES) * TICKS * 4


def test_a_registry_that_stays_silent_stops_nothing(
    kafka: Kafka, server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.align_kafka._REGISTRY_S", {"event": 1.0, "wall": 1.0})
    spec = new_system(kafka)
    devices = Devices(spec, kafka, server)
    server.silent.add(1)  # Avro's: the registry fails for it, and answers for Protobuf's
    with aligning(spec, {**kafka, "schema.registry.url": server.url}):
        for tick in range(1, TICKS + 1):
            devices.tick(tick)
        wait_for(lambda: len(frames_of(spec, kafka)) >= 2 * TICKS)
    letters = messages(spec, kafka, "deadletter", DeadLetter)
    assert {letter.reason for letter in letters} >= {"no_registry"}
    forces = [frame.values[:, -1] for frame in frames_of(spec, kafka)]
    assert np.nansum(np.concatenate(forces)) == len(NAMES) * sum(range(2, TICKS + 2))


def frames_of_a_plant(
    kafka: Kafka, url: str, odometry: str, mission: str
) -> dict[tuple[str, int], list[float]]:
    """What robots that are always pushed the same way look like in frames."""
    text = shipped_text("nav2d").replace("system: nav2d", f"system: {unique()}")
    document = yaml.safe_load(text)
    document["sensors"]["odometry"]["codec"] = json.loads(odometry)
    document["sensors"]["mission"]["codec"] = json.loads(mission)
    spec = parse_spec(json.dumps(document))
    make_topics(spec, kafka)
    settings = {**kafka, "schema.registry.url": url}
    plant = make_plant(spec, robots=3)
    with (
        aligning(spec, settings),
        constant_worker(spec, kafka, plant.entities, (0.5, -0.5)),
    ):
        address = kafka["bootstrap.servers"]
        run_plant(spec, plant, address, settings, threading.Event(), ticks=TICKS, seed=3)
        wait_for(lambda: len(frames_of(spec, kafka)) >= TICKS)
    return {
        (name, frame.tick): values.tolist()
        for frame in frames_of(spec, kafka)
        for name, values in zip(frame.entities, frame.values, strict=True)
        if frame.tick <= TICKS
    }


def test_a_plant_looks_the_same_through_every_codec(kafka: Kafka, server: RegistryServer) -> None:
    plain = frames_of_a_plant(kafka, server.url, '"json"', '"json"')
    assert len(plain) >= 3 * TICKS
    assert frames_of_a_plant(kafka, server.url, '"avro"', '"protobuf"') == plain
    raw = '{"raw": {"fields": {"ts": "<i8", "goal": "(2,)<f8"}}}'
    assert frames_of_a_plant(kafka, server.url, '"arrow"', raw) == plain
