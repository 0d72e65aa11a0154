"""What a plant shows becomes the messages that devices would send, at the times they are due."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streams
from infra.plants.base import Sample, SensorBatch, make_plant
from planner.encoder import Encoder
from schemas.system import load_spec
from streams.plant_log import RewardMeter
from streams.raw_inputs import RawReader
from streams.readings import ReadingEncoder
from tests.streams.specs import small_spec

SPEC = small_spec()
NAMES = ("a", "b")


def sample(tick: int, times_ms: list[int], depths: list[float]) -> Sample:
    """Both tanks at each time; tank b is 1 m deeper."""
    times = np.repeat(np.array(times_ms, dtype=np.int64) * 1_000, 2)
    slots = np.tile(np.arange(2, dtype=np.int32), len(times_ms))
    depth = np.repeat(np.array(depths), 2) + np.tile([0.0, 1.0], len(depths))
    flow = np.stack([depth / 100, -depth / 100], axis=1)
    batch = SensorBatch("level", slots, times, {"depth": depth, "flow": flow})
    return Sample(tick, (batch,), np.zeros(2), np.zeros(2, dtype=bool), {})


def test_readings_have_the_fields_and_the_unit_of_the_spec() -> None:
    groups = ReadingEncoder(SPEC, NAMES).encode(sample(3, [2500, 3000], [1.0, 2.0]), 2_000_000)
    assert [(g.send_us, g.topic, g.keys) for g in groups] == [
        (2_500_000, "tanks.sensors.level", ["a", "b"]),
        (3_000_000, "tanks.sensors.level", ["a", "b"]),
    ]
    assert json.loads(groups[1].values[1]) == {"at": 3000.0, "d": 3.0, "flow": [0.03, -0.03]}
    assert groups[1].slots.tolist() == [0, 1]


def test_a_reading_without_a_value_is_null_and_a_late_one_goes_out_now() -> None:
    delayed = sample(9, [1500, 9000], [float("nan"), 2.0])
    first, second = ReadingEncoder(SPEC, NAMES).encode(delayed, 8_000_000)
    assert (first.send_us, second.send_us) == (8_000_001, 9_000_000)
    assert json.loads(first.values[0])["d"] is None
    assert json.loads(first.values[0])["at"] == 1500.0, "its own time stays what it was"


@given(st.integers(0, 4_000_000_000_000_000), st.integers(-(2**40), 2**40))  # to the year 2096
def test_event_times_survive_the_unit_to_the_microsecond(time_us: int, shift: int) -> None:
    if time_us + shift < 0:
        return
    batch = SensorBatch(
        "level",
        np.zeros(1, dtype=np.int32),
        np.array([time_us]),
        {"depth": np.ones(1), "flow": np.ones((1, 2))},
    )
    made = Sample(0, (batch,), np.zeros(2), np.zeros(2, dtype=bool), {})
    (group,) = ReadingEncoder(SPEC, NAMES, shift).encode(made, -(2**60))
    reading = msgspec.json.decode(group.values[0])
    assert round(reading["at"] * SPEC.sensors["level"].time.microseconds) == time_us + shift


def test_the_reward_is_the_specs_on_the_next_readings() -> None:
    meter = RewardMeter(SPEC, 2)
    action = np.array([[0.5, 1.0], [0.5, 4.0]])
    assert np.isnan(meter.reward(sample(0, [0], [4.0]), None)).all()
    # depth is aligned as a mean: (4 + 6) / 2 = 5 for tank a, 6 for tank b
    reward = meter.reward(sample(1, [500, 1000], [4.0, 6.0]), action)
    assert np.allclose(reward, [-0.1, -1.0 - 0.4])
    # a tick without a value: the last one stands
    reward = meter.reward(sample(2, [2000], [float("nan")]), action * 0)
    assert np.allclose(reward, [0.0, -1.0])


EXAMPLES = Path(streams.__file__).parent / "examples"


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("sight", 0.0, 0.8), ("crowd", 0.1, 1.0)],  # errors of both examples, m and m/s²
)
def test_a_plant_shows_what_an_encoder_makes_its_readings_of(
    name: str, least: float, most: float
) -> None:
    spec = load_spec(EXAMPLES / f"{name}.yaml")
    plant = make_plant(spec, robots=5)
    sample = plant.reset(1)
    truth = {batch.sensor: batch for batch in sample.batches}
    groups = ReadingEncoder(spec, plant.entities, 700, raw=True).encode(sample, -(2**60))
    for sensor, raw in spec.perceived:
        (group,) = [g for g in groups if g.topic == raw.topic]
        batch = truth[sensor.name]
        reader, encoder = RawReader(sensor, raw), Encoder(raw, 2, "cpu")
        messages = zip(group.keys, group.values, group.headers or (), strict=True)
        read = [reader.read(key.encode(), value, dict(own)) for key, value, own in messages]
        assert [message.time for message in read] == (batch.time_us + 700).tolist()
        seen = encoder.encode(np.stack([message.row for message in read]))
        wanted = next(iter(batch.values.values()))
        assert np.abs(seen - wanted).max() < most
        assert np.abs(wanted).max() > least
    assert {g.topic for g in groups if g.headers is None} == {spec.sensors["odometry"].topic}


def test_a_plant_without_others_shows_none() -> None:
    spec = load_spec(EXAMPLES / "crowd.yaml")
    batch = SensorBatch(
        "others", np.zeros(1, np.int32), np.ones(1, np.int64), {"push": np.zeros((1, 2))}
    )
    shown = Sample(0, (batch,), np.zeros(1), np.zeros(1, dtype=bool), {})
    encoder = ReadingEncoder(spec, ("a",), raw=True)
    with pytest.raises(ValueError, match="sensor others: this simulator shows no other entities"):
        encoder.encode(shown, -(2**60))
