"""A plant seen through the spec's encoders: as over topics, each reading by itself, repeatable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streams
from infra.plants.base import PlantError, Sample, make_plant
from infra.plants.nav2d import Nav2d
from infra.plants.rows import row_maker
from planner.encoded import Encoded, encoded_plant
from schemas.system import load_spec
from streams.raw_inputs import RawReader
from streams.readings import ReadingEncoder

EXAMPLES = Path(streams.__file__).parent / "examples"
SIGHT, CROWD = (load_spec(EXAMPLES / f"{name}.yaml") for name in ("sight", "crowd"))


def sight(robots: int = 3, **options: Any) -> Encoded:
    plant = encoded_plant(SIGHT, robots=robots, **options)
    assert isinstance(plant, Encoded)
    return plant


def told(sample: Sample, sensor: str = "camera") -> Any:
    (batch,) = [batch for batch in sample.batches if batch.sensor == sensor]
    (value,) = batch.values.values()
    return value


def test_sensors_tell_what_is_true_with_the_encoders_error_and_others_exactly() -> None:
    plant, true = sight(), make_plant(SIGHT, robots=3)
    for each in (plant, true):
        each.reset(1)
    action = np.full((3, 2), 0.4)
    shown, wanted = plant.step(action), true.step(action)
    assert plant.version == f"{true.version}+encoded-1"
    for name in ("camera", "lidar"):
        off = np.abs(told(shown, name) - told(wanted, name))
        assert 0.0 < off.max() < 0.8
    np.testing.assert_array_equal(told(shown, "odometry"), told(wanted, "odometry"))
    np.testing.assert_array_equal(shown.reward, wanted.reward)
    assert plant.score() == true.score()


def test_light_deceives_the_camera_and_nothing_else() -> None:
    usual, dark = (sight(light=light).reset(1) for light in (1.0, 0.125))
    assert np.abs(told(dark) - told(usual)).max() > 1.0
    for name in ("lidar", "odometry"):
        np.testing.assert_array_equal(told(dark, name), told(usual, name))


def test_what_is_drawn_depends_on_seed_sensor_entity_and_time_alone() -> None:
    plant = sight(robots=5)
    shown = plant.plant.reset(2)
    plant.reset(2)
    (camera,) = [batch for batch in shown.batches if batch.sensor == "camera"]
    whole = plant._read(camera).values["offset"]
    some = np.array([3, 0])
    np.testing.assert_array_equal(plant._read(camera.take(some)).values["offset"], whole[some])
    same = replace(camera, values={"offset": np.repeat(camera.values["offset"][:1], 5, axis=0)})
    everywhere = plant._read(same).values["offset"]
    assert len(set(everywhere[:, 0])) == 5, "each has grain of its own"
    later = plant._read(replace(same, time_us=same.time_us + 1)).values["offset"]
    assert (later != everywhere).any(axis=1).all()
    plant.reset(3)
    assert (plant._read(same).values["offset"] != everywhere).any(axis=1).all()


def test_a_plant_that_is_taken_back_sees_the_same_again() -> None:
    plant = sight(lamp=0.3)
    plant.reset(4)
    state, action = plant.snapshot(), np.full((3, 2), 0.5)
    first = [plant.step(action) for _ in range(2)]
    plant.restore(state)
    for one in first:
        again = plant.step(action)
        for name in ("camera", "lidar", "odometry"):
            np.testing.assert_array_equal(told(again, name), told(one, name))
    assert isinstance(plant.branch(np.array([1, 1])), Nav2d)


@pytest.mark.parametrize("spec", [SIGHT, CROWD], ids=["sight", "crowd"])
def test_rows_are_those_that_perceive_reads_of_the_same_views(spec: Any) -> None:
    plant = make_plant(spec, robots=3, **({"light": 0.5} if spec is SIGHT else {}))
    sample = plant.reset(1)
    for sensor, raw in spec.perceived:
        (batch,) = [batch for batch in sample.batches if batch.sensor == sensor.name]
        alone = replace(sample, batches=(batch.take(np.array([1])),))
        messages = ReadingEncoder(spec, plant.entities, raw=True)
        (group,) = messages.encode(alone, -(2**60))
        own = dict((group.headers or [[]])[0])
        read = RawReader(sensor, raw).read(b"robot-01", group.values[0], own)
        row = row_maker(sensor)(batch, 1, np.random.default_rng(0))
        assert row.dtype == read.row.dtype
        np.testing.assert_array_equal(row, read.row)


def test_faults_are_of_what_was_encoded() -> None:
    fault = {"camera": {"noise": {"offset": 0.5}}}
    usual, noisy = sight().reset(1), encoded_plant(SIGHT, robots=3, faults=fault)
    shown = noisy.reset(1)
    assert noisy.version.endswith("+encoded-1+degraded-1")
    off = told(shown) - told(usual)
    assert 0.05 < np.abs(off).max() < 2.5
    np.testing.assert_array_equal(told(shown, "lidar"), told(usual, "lidar"))


def test_what_simulators_do_not_show_is_refused_and_without_encoders_nothing_changes() -> None:
    assert isinstance(encoded_plant(load_spec("nav2d"), robots=2), Nav2d)
    camera = SIGHT.sensors["camera"]
    assert camera.perceive is not None
    small = camera.model_copy(
        update={"perceive": camera.perceive.model_copy(update={"size": (32, 32)})}
    )
    with pytest.raises(PlantError, match="sensor camera: simulators show one place of size 2, as"):
        row_maker(small)
