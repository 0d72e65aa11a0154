"""Tests of what all plants share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.plants.base import (
    PlantError,
    SensorBatch,
    checked_action,
    make_plant,
    names,
    option_value,
    readings,
    seconds,
    seeds,
    stamps,
)
from infra.plants.degrade import Degraded
from schemas.clock import tick_of
from schemas.system import load_spec, parse_spec, spec_path


@given(st.integers(-50, 1000), st.integers(1, 10**7), st.integers(1, 10**7))
def test_stamps_are_all_multiples_that_belong_to_the_tick(
    tick: int, period: int, every: int
) -> None:
    found = stamps(tick, period, every) if period / every < 1000 else np.zeros(0, np.int64)
    assert all(tick_of(int(time), 0, period) == tick for time in found)
    assert (found % every == 0).all()
    if found.size:
        assert tick_of(int(found[0]) - every, 0, period) < tick
        assert tick_of(int(found[-1]) + every, 0, period) > tick


def test_readings_go_by_time_and_then_by_entity() -> None:
    vector = np.arange(12.0).reshape(2, 3, 2)
    batch = readings("s", np.array([10, 20]), {"a": vector[..., 0], "b": vector}, 3)
    assert batch.time_us.tolist() == [10, 10, 10, 20, 20, 20]
    assert batch.entity.tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.values["a"].tolist() == [0, 2, 4, 6, 8, 10]
    assert batch.values["b"][4].tolist() == [8, 9]
    assert len(batch) == 6
    part = batch.take(np.array([5, 0]))
    assert isinstance(part, SensorBatch)
    assert (part.time_us.tolist(), part.values["a"].tolist()) == ([20, 10], [10, 0])


@given(st.integers(1, 2000))
def test_names_sort_by_number(count: int) -> None:
    made = names("service", count)
    assert list(made) == sorted(set(made))
    assert len(made) == count


def test_durations_have_units_or_are_seconds() -> None:
    assert (seconds("250 ms"), seconds(3), seconds(0.5)) == (0.25, 3.0, 0.5)


def test_seeds_differ_along_every_path() -> None:
    found = [next(seeds(*path)) for path in ((1, 0), (1, 1), (2, 0), (2, 1))]
    assert len(set(found)) == 4
    assert next(seeds(1, 0)) == found[0]


def test_actions_are_checked() -> None:
    action = checked_action(np.array([[1], [2]], dtype=np.int32), (2, 1))
    assert action.dtype == np.float64
    with pytest.raises(PlantError, match=r"shape \(2,\), the plant needs \(2, 1\)"):
        checked_action(np.zeros(2), (2, 1))
    with pytest.raises(PlantError, match="entity 1 is not finite"):
        checked_action(np.array([[1.0], [np.inf]]), (2, 1))


def test_a_spec_names_its_plant_and_its_faults() -> None:
    text = spec_path("nav2d").read_text()
    line = "plant: {kind: nav2d, robots: 200}"
    assert line in text
    faults = "{odometry: {dropout: 0.5, delay: 50 ms}}"
    bad = parse_spec(text.replace(line, f"plant: {{kind: nav2d, robots: 7, faults: {faults}}}"))
    plant = make_plant(bad)
    assert isinstance(plant, Degraded)
    assert (plant.faults["odometry"].delay, plant.faults["odometry"].dropout) == (0.05, 0.5)
    assert len(make_plant(bad, robots=9).entities) == 9
    without = parse_spec(text.replace(line, ""))
    with pytest.raises(PlantError, match="nav2d: the spec names no plant"):
        make_plant(without)


@pytest.mark.parametrize(("system", "options"), [("autoscale", {"services": 3}), ("nav2d", {})])
def test_shipped_plants_read_all_channels_of_their_spec(
    system: str, options: dict[str, int]
) -> None:
    spec = load_spec(system)
    plant = make_plant(spec, **options)
    sample = plant.reset(0)
    read = {name for batch in sample.batches for name in batch.values}
    assert read == {channel.name for channel in spec.channels}
    for batch in sample.batches:
        for name, value in batch.values.items():
            channel = spec.sensors[batch.sensor].channels[name]
            assert ((value >= channel.low) & (value <= channel.high)).all()
            assert value.shape == ((len(batch), channel.shape) if channel.shape else (len(batch),))
    assert list(plant.entities) == sorted(plant.entities)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e6", 1e6),
        ("30 s", "30 s"),
        ("{m: 1.5}", {"m": 1.5}),
        ("{mass: [0.7, 1.5]}", {"mass": [0.7, 1.5]}),
    ],
)
def test_options_of_a_command_line_are_numbers_texts_and_mappings(text: str, value: object) -> None:
    assert option_value(text) == value


def test_ranges_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(PlantError, match="a mapping to ranges is needed"):
        make_plant(load_spec("nav2d"), randomise="mass")
