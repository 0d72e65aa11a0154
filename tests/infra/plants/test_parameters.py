"""Parameters drawn per entity and episode: from their ranges, from the seed, and with an effect."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.plants.base import PlantError, make_plant
from infra.plants.gym import GymPlant, spec_for
from infra.plants.nav2d import Nav2d
from infra.plants.parameters import Variable, draw, draws
from schemas.system import SpecError, load_spec, parse_spec

NAV2D = load_spec("nav2d")
RANGES = {"mass": [0.7, 1.5], "drag": [0.05, 0.6], "action_delay": [0.0, 0.2]}
STILL = {"actuation_noise": 0.0, "position_noise": 0.0, "velocity_noise": 0.0}


def nav2d(**options: Any) -> Nav2d:
    plant = make_plant(NAV2D, **{"robots": 6, **options})
    assert isinstance(plant, Nav2d)
    return plant


def gym(env: str = "Pendulum-v1", **options: Any) -> GymPlant:
    plant = make_plant(parse_spec(spec_for(env, entities=3, **options)))
    assert isinstance(plant, GymPlant)
    return plant


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_draws_are_within_range_and_of_nothing_but_seed_entity_and_episode(
    seed: int, entities: int, episode: int
) -> None:
    ranges = {"b": (-1.0, 2.0), "a": (3.0, 3.0)}
    found = draws(ranges, seed, entities, episode)
    assert (found["a"] == 3.0).all()
    assert ((found["b"] >= -1.0) & (found["b"] <= 2.0)).all()
    turned = dict(reversed(ranges.items()))
    assert draw(turned, seed, entities - 1, episode)["b"] == found["b"][-1]
    assert draw(ranges, seed, entities - 1, episode + 1)["b"] != found["b"][-1]


def test_every_robot_has_its_own_and_another_with_every_reset() -> None:
    plant = nav2d(randomise=RANGES)
    plant.reset(1)
    first = plant.values
    for name, (low, high) in RANGES.items():
        assert len(set(first[name])) == 6, name
        assert ((first[name] >= low) & (first[name] <= high)).all()
    plant.reset(2)
    assert (plant.values["mass"] != first["mass"]).all()
    plant.reset(1)
    assert (plant.values["mass"] == first["mass"]).all()


def test_a_robot_of_drawn_parameters_moves_as_one_that_was_given_them() -> None:
    plant = nav2d(randomise=RANGES, **STILL)
    plant.reset(5)
    values = plant.values
    for robot in range(3):
        mine = {name: float(value[robot]) for name, value in values.items()}
        alone = nav2d(**mine, **STILL)
        alone.reset(5)
        for k in range(8):
            action = np.full((6, 2), 0.5 - 0.1 * k)
            if robot == 0:
                plant.step(action)
            alone.step(action)
        np.testing.assert_array_equal(plant.state[robot], alone.state[robot])


def test_what_a_caller_gives_is_not_drawn_and_an_empty_spec_draws_nothing() -> None:
    text = "plant: {kind: nav2d, robots: 6, randomise: {mass: [0.7, 1.5], drag: [0.2, 0.3]}}"
    spec = parse_spec(NAV2D_TEXT.replace(PLANT, text))
    plant = make_plant(spec, mass=2.0)
    assert isinstance(plant, Nav2d)
    plant.reset(0)
    assert (plant.values["mass"] == 2.0).all()
    assert len(set(plant.values["drag"])) == 6
    heavy = gym(randomise={"m": [0.5, 0.6], "l": [0.9, 1.1]})
    pinned = make_plant(heavy.spec, set={"m": 2.0})
    assert isinstance(pinned, GymPlant)
    pinned.reset(0)
    assert (pinned.values["m"] == 2.0).all()
    assert len(set(pinned.values["l"])) == 3
    assert NAV2D.spec_hash == parse_spec(NAV2D_TEXT).spec_hash != spec.spec_hash
    assert "randomise" not in NAV2D.model_dump(mode="json")["plant"]


PLANT = "plant: {kind: nav2d, robots: 200}"


def _text() -> str:
    from schemas.system import SHIPPED

    return (SHIPPED / "nav2d.yaml").read_text()


NAV2D_TEXT = _text()


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"weight": [1, 2]}, "no parameter 'weight'; it has mass, drag, action_delay"),
        ({"mass": [2, 1]}, "randomise.mass: from 2 to 1 is no range"),
        ({"mass": [0, 1]}, "only values above 0"),
        ({"drag": [-1, 1]}, "no range of it"),
        ({"drag": 1}, r"two numbers are needed, as \[0.7, 1.5\]"),
        ({"drag": [0, float("nan")]}, "two numbers are needed"),
    ],
)
def test_ranges_that_cannot_be_are_refused(ranges: dict[str, Any], message: str) -> None:
    with pytest.raises(PlantError, match=message):
        nav2d(randomise=ranges)


def test_a_spec_says_file_line_and_field_of_a_range() -> None:
    text = "plant:\n  kind: nav2d\n  randomise: {mass: [2, 1]}"
    with pytest.raises(SpecError, match=r"mine\.yaml:\d+: plant\.randomise\.mass: .*low to high"):
        parse_spec(NAV2D_TEXT.replace(PLANT, text), "mine.yaml")


def test_an_environment_draws_anew_with_every_episode_and_can_be_taken_back() -> None:
    plant = gym("CartPole-v1", randomise={"gravity": [5, 15], "action_delay": [0.0, 0.06]})
    plant.reset(3)
    first = plant.values["gravity"]
    begun = np.zeros(3, dtype=bool)
    for _ in range(60):
        state = plant.snapshot()
        before = plant.values["gravity"]
        sample = plant.step(np.ones((3, 1)))
        fresh = sample.outcomes["reset"] > 0
        assert ((plant.values["gravity"] != before) == fresh).all()
        begun |= fresh
    assert begun.all(), "all have fallen and begun again"
    assert (plant.values["gravity"] != first).all()
    last = plant.values["gravity"]
    plant.restore(state)
    again = plant.step(np.ones((3, 1)))
    np.testing.assert_array_equal(
        again.batches[0].values["state"], sample.batches[0].values["state"]
    )
    np.testing.assert_array_equal(plant.values["gravity"], last)


def test_actions_of_an_environment_come_late_and_friction_slows() -> None:
    late, usual = gym(action_delay=0.1), gym()
    late.reset(0)
    start = late.snapshot()
    usual.reset(0)
    for plant in (late, usual):
        plant.place({"state": np.tile([1.0, 0.0, 0.0], (3, 1))}, np.zeros((3, 3, 1)))
    torques = np.random.default_rng(0).uniform(-2, 2, (6, 3, 1))
    seen: dict[GymPlant, list[Any]] = {late: [], usual: []}
    for k in range(6):
        for plant, action in (
            (late, torques[k]),
            (usual, torques[k - 2] if k > 1 else 0 * torques[0]),
        ):
            seen[plant].append(plant.step(action).batches[0].values["state"])
    np.testing.assert_array_equal(np.array(seen[late]), np.array(seen[usual]))
    late.restore(start)
    slow, free = gym(friction=1.0, set={"g": 0.0}), gym(set={"g": 0.0})
    for plant in (slow, free):
        plant.reset(0)
        plant.place({"state": np.tile([1.0, 0.0, 4.0], (3, 1))}, np.zeros((1, 3, 1)))
        shown = plant.step(np.zeros((3, 1))).batches[0].values["state"]
        wanted = 4.0 * (np.exp(-0.05) if plant is slow else 1.0)
        np.testing.assert_allclose(shown[:, 2], wanted, rtol=1e-6)


@pytest.mark.parametrize("make", [nav2d, gym, lambda: gym("CartPole-v1")])
def test_placed_where_a_plant_was_it_goes_on_as_that_did(make: Any) -> None:
    options = STILL if make is nav2d else {}
    plant, other = (make(**options) for _ in range(2))
    assert isinstance(cast(object, plant), Variable)
    rng = np.random.default_rng(1)
    low, high = plant.spec.action_low, plant.spec.action_high
    count = len(plant.entities)
    late = np.full(count, 0.1 if make is nav2d else 0.04)
    past: list[Any] = []
    plant.reset(0)
    other.reset(9)
    for each in (plant, other):
        each.vary({"action_delay": late})
    for _ in range(5):
        past.insert(0, np.rint(rng.uniform(low, high, (count, len(low)))))
        sample = plant.step(past[0])
    channels = {n: v for batch in sample.batches for n, v in batch.values.items()}
    if make is nav2d:
        channels = {
            "position": plant.state[:, :2],
            "velocity": plant.state[:, 2:],
            "goal": plant._goal,
        }
    other.place(channels, np.array(past))
    for _ in range(3):
        action = np.rint(rng.uniform(low, high, (count, len(low))))
        mine, its = plant.step(action), other.step(action)
        for one, two in zip(mine.batches[:1], its.batches[:1], strict=True):
            for name in one.values:
                np.testing.assert_allclose(one.values[name], two.values[name], atol=1e-5)


def test_what_has_no_known_state_is_refused() -> None:
    with pytest.raises(PlantError, match="not known which of its numbers are speeds"):
        make_plant(parse_spec(spec_for("FrozenLake-v1", entities=1)), friction=0.5)
    plant = make_plant(parse_spec(spec_for("FrozenLake-v1", entities=1)))
    assert isinstance(plant, GymPlant)
    plant.reset(0)
    with pytest.raises(PlantError, match="how an observation tells its state"):
        plant.place({"state": np.zeros((1, 1))}, np.zeros((1, 1, 1)))
