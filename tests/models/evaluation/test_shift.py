"""A changed plant raises doubt, an unchanged one does not; the table of changes is sound."""

import dataclasses

import numpy as np
import pytest

from infra.plants.base import Plant, make_plant
from infra.plants.gym import GymPlant, spec_for
from models.evaluation.shift import (
    Doubts,
    OutOfDistribution,
    _by_entity,
    _judged,
    _rms,
    out_of_distribution,
)
from models.evaluation.shifts import USUAL, Shift, bursts, shifts, usual_options
from planner.library import SHIPPED
from planner.session import Bundle, load_bundle
from schemas.system import SystemSpec, load_spec, parse_spec

LATE = Shift("late", "delay", {"action_delay": 0.4})


def judged(spec: SystemSpec, bundle: Bundle, seed: int = 0, robots: int = 60) -> OutOfDistribution:
    def make(shift: Shift) -> Plant:
        return make_plant(spec, robots=robots, **shift.options)

    return out_of_distribution(spec, bundle, make, (USUAL, LATE), ticks=60, seed=seed)


def test_a_late_actuator_is_told_by_the_innovation_and_chance_is_not(
    nav2d: SystemSpec, bundle: Bundle
) -> None:
    found = judged(nav2d, bundle)
    usual, late = found.shifts
    assert 0.4 < usual.disagreement < 0.6
    assert 0.4 < usual.innovation < 0.6
    assert late.innovation > 0.85
    assert late.run_innovation > 0.95
    assert late.error_ratio > 2.0
    assert found.moments == 60 * 4
    assert found.as_dict()["shifts"]["late"]["kind"] == "delay"


def test_equal_seeds_give_equal_figures(nav2d: SystemSpec, bundle: Bundle) -> None:
    one, same, other = (judged(nav2d, bundle, seed, 5).as_dict() for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_too_short_runs_are_refused(nav2d: SystemSpec, bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="20 ticks are too short: 26 are the least"):
        out_of_distribution(nav2d, bundle, lambda _: make_plant(nav2d, robots=2), (), ticks=20)


def test_what_is_broken_or_unknown_does_not_count() -> None:
    values = np.array([[[3.0, np.nan]], [[np.nan, 4.0]]])
    np.testing.assert_allclose(_rms(values), [np.sqrt(12.5)])
    assert np.isnan(_rms(np.full((2, 1, 2), np.nan)))
    n = np.array([1.0, np.nan, 3.0, 5.0])
    run = Doubts(n, n, n, n, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(_by_entity(n, run), [1.0, 4.0])
    far = dataclasses.replace(run, disagreement=n + 10)
    found = _judged(USUAL, run, far)
    assert (found.disagreement, found.innovation, found.error_ratio) == (1.0, 0.5, 1.0)


@pytest.mark.parametrize("system", ["nav2d", "autoscale"])
def test_every_change_of_the_table_can_be_made(system: str) -> None:
    spec, bundle = load_spec(system), load_bundle(SHIPPED / system, provider="cpu")
    base = usual_options(spec, {}, 0)
    table = shifts(spec, bundle, {})
    assert len({one.name for one in table}) == len(table) >= 7
    usual = make_plant(spec, **base)
    first = usual.reset(0)
    for one in table:
        plant = make_plant(spec, **{**base, **one.options})
        assert plant.reset(0).tick == first.tick or one.kind == "traffic"


def test_physics_of_an_environment_is_changed_where_there_is_some(bundle: Bundle) -> None:
    spec = parse_spec(spec_for("Pendulum-v1", entities=1))
    plant = make_plant(spec)
    assert isinstance(plant, GymPlant)
    few = dataclasses.make_dataclass("Few", ["channel_scale"])(np.ones(3, np.float32))
    table = shifts(spec, few, plant.attributes)
    changed = {one.name: one.options["set"] for one in table if one.kind == "physics"}
    assert changed == {"m × 1.5": {"m": 1.5}, "l × 1.5": {"l": 1.5}, "g × 1.5": {"g": 15.0}}
    for one in table:
        make_plant(spec, **one.options).reset(0)


def test_the_usual_load_begins_in_the_morning_unless_one_is_given() -> None:
    spec = load_spec("autoscale")
    made = usual_options(spec, {"services": 3}, 1)
    assert made["services"] == 3
    assert made["trace"].rates.shape == (1440 - 480,)
    given = {"trace": bursts()}
    assert usual_options(spec, given, 1)["trace"] is given["trace"]
    assert usual_options(load_spec("nav2d"), {}, 1) == {}
