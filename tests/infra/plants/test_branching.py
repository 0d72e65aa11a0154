"""Plants taken back to a state, and entities copied: what follows is what would have followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.plants.base import Branching, Plant, PlantError, Restorable, Sample, make_plant
from infra.plants.gym import GymPlant, spec_for
from infra.plants.nav2d import Nav2d
from schemas.system import load_spec, parse_spec

NAV2D = load_spec("nav2d")
QUIET = {"actuation_noise": 0.0, "position_noise": 0.0, "velocity_noise": 0.0}


def nav2d(**options: Any) -> Nav2d:
    plant = make_plant(NAV2D, **{"robots": 3, **options})
    assert isinstance(plant, Nav2d)
    return plant


def gym(env: str = "Pendulum-v1", **options: Any) -> GymPlant:
    plant = make_plant(parse_spec(spec_for(env, entities=3, **options)))
    assert isinstance(plant, GymPlant)
    return plant


def cluster(**options: Any) -> Plant:
    return make_plant(load_spec("autoscale"), services=3, **options)


def shown(sample: Sample) -> list[NDArray[Any]]:
    """All that a sample says, as arrays."""
    found: list[NDArray[Any]] = [sample.reward, sample.done, *sample.outcomes.values()]
    for batch in sample.batches:
        found += [batch.entity, batch.time_us, *batch.values.values()]
    return found


def drive(plant: Plant, ticks: int, seed: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    low, high = plant.spec.action_low, plant.spec.action_high
    size = (len(plant.entities), len(low))
    found: list[NDArray[Any]] = []
    for _ in range(ticks):
        found += shown(plant.step(np.rint(rng.uniform(low, high, size) * 8) / 8))
    return found


MAKERS: dict[str, Callable[[], Any]] = {
    "nav2d": lambda: nav2d(action_delay=0.17, reach=3.0),
    "pendulum": gym,
    "cartpole": lambda: gym("CartPole-v1"),  # its episodes end on the way
    "cluster": cluster,
}


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), before=st.integers(0, 25), after=st.integers(1, 12))
def test_a_restored_plant_does_the_same_again(
    kind: str, seed: int, before: int, after: int
) -> None:
    plant: Any = MAKERS[kind]()
    assert isinstance(plant, Restorable)
    plant = cast(Any, plant)
    plant.reset(seed)
    drive(plant, before, seed)
    state = plant.snapshot()
    for again in (0, 1):  # a snapshot may be used more than once
        first = drive(plant, after, seed + 1)
        score = plant.score()
        plant.restore(state)
        second = drive(plant, after, seed + 1)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))
        np.testing.assert_equal(plant.score(), score)
        plant.restore(state)
        drive(plant, again + 1, seed + 2)  # what comes after must not reach into the snapshot
        plant.restore(state)


@pytest.mark.parametrize("plant", [nav2d(**QUIET, action_delay=0.12), gym()], ids=["nav2d", "gym"])
def test_a_branch_goes_on_as_its_origin_would(plant: Plant) -> None:
    assert isinstance(plant, Branching)
    plant.reset(4)
    drive(plant, 6, 1)
    index = np.array([2, 0, 2, 1])
    branch = plant.branch(index)
    assert len(branch.entities) == 4
    rng = np.random.default_rng(3)
    low, high = plant.spec.action_low, plant.spec.action_high
    for _ in range(5):
        action = rng.uniform(low, high, (3, len(low)))
        mine, theirs = plant.step(action), branch.step(action[index])
        np.testing.assert_allclose(theirs.reward, mine.reward[index])
        for name, outcome in mine.outcomes.items():
            np.testing.assert_allclose(theirs.outcomes[name], outcome[index])
        for a, b in zip(mine.batches, theirs.batches, strict=True):
            for channel, values in a.values.items():
                if len(a) % 3 == 0 and a.sensor != "mission":  # there robots take turns
                    rows = values.reshape(-1, 3, *values.shape[1:])[:, index]
                    np.testing.assert_allclose(b.values[channel], rows.reshape(-1, *rows.shape[2:]))


def test_a_branch_leaves_its_origin_alone_and_has_no_noise() -> None:
    runs = []
    for branches in (False, True):
        plant = nav2d()
        plant.reset(0)
        if branches:
            made = plant.branch(np.arange(3))
            drive(made, 4, 9)
            assert isinstance(made, Nav2d)
            assert made.options.position_noise == made.options.actuation_noise == 0.0
        runs.append(drive(plant, 4, 2))
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_heavier_robot_gains_less_speed_and_a_late_one_starts_later() -> None:
    speeds = {}
    full = np.tile([1.0, 0.0], (3, 1))
    for name, options in {
        "usual": {},
        "heavy": {"mass": 2.0},
        "late": {"action_delay": 0.3},
    }.items():
        plant = nav2d(**QUIET, drag=0.0, **options)
        plant.reset(0)
        samples = [plant.step(full) for _ in range(6)]
        readings = [s.batches[0].values["velocity"].reshape(-1, 3, 2)[-1, :, 0] for s in samples]
        speeds[name] = np.array(readings)[:, 0]
    np.testing.assert_allclose(speeds["usual"], 0.1 * np.arange(1, 7))
    np.testing.assert_allclose(speeds["heavy"], 0.05 * np.arange(1, 7))
    np.testing.assert_allclose(speeds["late"], 0.1 * np.array([0, 0, 0, 1, 2, 3]), atol=1e-12)


def test_a_delay_may_end_within_a_tick() -> None:
    plant = nav2d(**QUIET, drag=0.0, action_delay=0.15)  # three steps of 50 ms
    plant.reset(0)
    full = np.tile([1.0, 0.0], (3, 1))
    seen = [
        plant.step(full).batches[0].values["velocity"].reshape(-1, 3, 2)[:, 0, 0] for _ in "abc"
    ]
    np.testing.assert_allclose(np.concatenate(seen), [0, 0, 0, 0.05, 0.1, 0.15], atol=1e-12)


@pytest.mark.parametrize("option", [{"mass": 0.0}, {"mass": -1.0}, {"action_delay": -0.1}])
def test_impossible_robots_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(PlantError, match=r"mass above 0, and an action_delay of 0 s or more"):
        nav2d(**option)


def test_numbers_of_an_environment_can_be_set_from_the_spec() -> None:
    usual, heavy = gym(), gym(set={"m": 2.0})
    assert (usual.attributes["m"], heavy.attributes["m"]) == (1.0, 2.0)
    for plant in (usual, heavy):
        plant.reset(0)
    push = np.full((3, 1), 2.0)
    a, b = (plant.step(push).batches[0].values["state"] for plant in (usual, heavy))
    # The torque counts half: 3 / (m l²) × u × dt is 0.3 or 0.15; gravity does the same to both.
    np.testing.assert_allclose(a[:, 2] - b[:, 2], 0.15, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mass": 1.0}, r"no number 'mass'; it has dt, g, l, m"),
        ({"m": "heavy"}, r"m: a number is needed, not 'heavy'"),
        ({"m": True}, r"m: a number is needed, not True"),
        (1.5, r"option set: a mapping"),
    ],
)
def test_what_cannot_be_set_is_refused(value: Any, message: str) -> None:
    with pytest.raises(PlantError, match=message):
        gym(set=value)
