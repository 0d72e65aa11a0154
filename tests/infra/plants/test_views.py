"""Light changes what a camera sees, each picture for itself, and nothing where it is as usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streams
from infra.plants.base import PlantError, make_plant
from infra.plants.nav2d import Nav2d
from infra.plants.parameters import LIGHT as PARAMETERS
from infra.plants.parameters import nav2d_parameters
from infra.plants.views import LIGHT, PIXELS, lit, pictures
from schemas.system import load_spec

SIGHT = load_spec(Path(streams.__file__).parent / "examples" / "sight.yaml")
PLACES = np.array([[3.0, 2.0], [-4.0, 1.0]])
USUAL = [1.0, 0.0, 0.0]


def seen(*light: list[float]) -> Any:
    return pictures(PLACES, np.random.default_rng(0), np.array(light)).astype(float)


def sight(**options: Any) -> Nav2d:
    plant = make_plant(SIGHT, **{"robots": 4, **options})
    assert isinstance(plant, Nav2d)
    return plant


def test_usual_light_is_none_and_each_picture_has_its_own() -> None:
    usual = pictures(PLACES, np.random.default_rng(0))
    np.testing.assert_array_equal(usual, seen(USUAL, USUAL))
    one = seen(USUAL, [0.5, 0.0, 0.0])
    np.testing.assert_array_equal(one[0], usual[0])
    assert one[1].mean() == pytest.approx(usual[1].mean() / 2, abs=1)


def test_light_is_a_factor_a_lamp_a_slope_and_glare_a_spot() -> None:
    scene = np.full((1, PIXELS, PIXELS, 3), 80.0)
    np.testing.assert_array_equal(lit(scene, np.array([USUAL])), scene)
    np.testing.assert_array_equal(lit(scene, np.array([[2.0, 0, 0]])), 2 * scene)
    side = lit(scene, np.array([[1.0, 0.5, 0]]))[0, :, :, 0]
    np.testing.assert_allclose(side.mean(), 80.0)
    np.testing.assert_allclose(side[:, [0, -1]], np.tile([40, 120], (PIXELS, 1)), atol=1)
    bright = lit(scene, np.array([[1.0, 0, 1.0]]))[0, :, :, 0] - 80
    row, column = np.unravel_index(bright.argmax(), bright.shape)
    assert row < PIXELS / 2 < column
    assert bright.max() > 175
    assert bright[-1, 0] < 1


def test_a_robot_carries_its_light_and_moves_as_without() -> None:
    assert PARAMETERS == LIGHT
    dark, usual = sight(light=0.5), sight()
    ranges = {"light": [0.2, 0.4], "glare": [0.5, 1.0]}
    drawn = sight(randomise=ranges)
    for plant in (dark, usual, drawn):
        plant.reset(3)
    for _ in range(3):
        shown = [plant.step(np.full((4, 2), 0.3)) for plant in (dark, usual, drawn)]
    for name in ("camera", "lidar", "odometry"):
        first, second, third = (
            next(batch for batch in sample.batches if batch.sensor == name) for sample in shown
        )
        for channel, value in second.values.items():
            np.testing.assert_array_equal(first.values[channel], value)
            np.testing.assert_array_equal(third.values[channel], value)
        assert (second.light is None) == (name != "camera")
        if first.light is not None and third.light is not None:
            np.testing.assert_array_equal(first.light, [[0.5, 0, 0]] * 4)
            assert len(set(third.light[:, 0])) == 4
            assert ((third.light[:, 2] >= 0.5) & (third.light[:, 1] == 0)).all()
            np.testing.assert_array_equal(third.take(np.array([2])).light, third.light[2:3])
    more = sight(randomise=ranges, robots=6)
    more.reset(3)
    np.testing.assert_array_equal(drawn.values["light"], more.values["light"][:4])


def test_readings_keep_their_light_through_faults() -> None:
    plant = make_plant(SIGHT, robots=3, lamp=0.5, faults={"camera": {"late": 0.5}})
    plant.reset(0)
    for _ in range(4):
        for batch in plant.step(np.zeros((3, 2))).batches:
            if batch.sensor == "camera":
                np.testing.assert_array_equal(batch.light, [[1.0, 0.5, 0.0]] * len(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"light": -1.0}, "light of 0 or more"),
        ({"lamp": 1.5}, r"lamp in \[-1, 1\]"),
        ({"glare": -0.1}, "glare in"),
        ({"randomise": {"light": [-1, 1]}}, "no range of it"),
    ],
)
def test_light_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlantError, match=message):
        sight(**options)


def test_without_a_camera_there_is_no_light() -> None:
    blind = load_spec("nav2d")
    with pytest.raises(PlantError, match="option light: is of what a camera sees, and nav2d has"):
        make_plant(blind, light=0.5)
    with pytest.raises(PlantError, match=r"no parameter 'glare'; it has mass, drag, action_delay$"):
        make_plant(blind, randomise={"glare": [0, 1]})
    assert not set(LIGHT) & nav2d_parameters(0.1).keys()
