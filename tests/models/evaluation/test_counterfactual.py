"""Whether effects of actions are known: figures that follow from the definition, and a real one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.counterfactual import FELT, _agreement, _held, compared, counterfactuals
from models.evaluation.tried import Tried
from models.evaluation.world import Explorer
from tests.models.evaluation.conftest import MakeWorld


def effects(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(20, 7))


@given(st.floats(0.1, 3.0), st.integers(0, 50))
def test_effects_that_are_scaled_have_sign_and_order_but_not_size(scale: float, seed: int) -> None:
    true = effects(seed)
    found = _agreement(scale * true, true, 1.0)
    assert (found.sign, found.kendall) == (1.0, 1.0)
    assert found.spearman == pytest.approx(1.0)
    assert found.slope == pytest.approx(scale)


def test_effects_that_are_reversed_or_unrelated() -> None:
    true = effects()
    against = _agreement(-true, true, 1.0)
    assert (against.sign, against.kendall, against.slope) == (0.0, -1.0, -1.0)
    nothing = _agreement(effects(1), true, 1.0)
    assert abs(nothing.sign - 0.5) < 0.15
    assert abs(nothing.spearman) < 0.35  # pairs of a state share the sequence they differ from


def test_small_effects_are_not_asked_for_their_sign() -> None:
    true = np.array([[0.0, FELT / 2, -FELT / 2, 1.0]])
    found = _agreement(np.array([[0.0, -1.0, 1.0, 1.0]]), true, 1.0)
    assert found.felt == pytest.approx(1 / 3)
    assert found.sign == 1.0
    assert _agreement(true, np.zeros((1, 4)), 1.0).felt == 0.0


def test_what_was_cut_off_is_left_out_and_constant_channels_are_not_named(
    make_world: MakeWorld,
) -> None:
    true = np.random.default_rng(0).normal(size=(3, 5, 4, 6))
    true[..., 4:] = 7.0  # no action moves a goal
    returns = true.sum(axis=(0, 3))
    whole = np.ones((5, 4), dtype=bool)
    whole[1, 2] = False
    wrong = true.copy()
    wrong[:, 1] *= -5.0  # only where the episode was cut off
    found = compared(make_world(), [Tried(wrong, true, returns, returns, whole)] * 2)
    assert (found.states, found.actions, found.horizon) == (8, 3, 3)
    assert list(found.agreement) == [
        "return",
        *(f"{c}[{i}]" for c in ("position", "velocity") for i in (0, 1)),
    ]
    assert all(one.slope == pytest.approx(1.0) for one in found.agreement.values())


def test_the_shipped_bundle_knows_what_accelerating_does(make_world: MakeWorld) -> None:
    found = counterfactuals(make_world(robots=30), moments=2)
    assert (found.states, found.horizon, found.actions) == (60, 10, 8)
    for column in ("velocity[0]", "velocity[1]", "position[0]"):
        one = found.agreement[column]
        assert one.sign > 0.9
        assert one.kendall > 0.8
        assert 0.5 < one.slope < 1.2
    again = counterfactuals(make_world(robots=30), moments=2)
    assert again.as_dict() == found.as_dict()


def test_a_model_of_the_wrong_plant_is_found_out_by_the_size(make_world: MakeWorld) -> None:
    usual = counterfactuals(make_world(robots=20), moments=1).agreement["velocity[0]"].slope
    heavy = counterfactuals(make_world(robots=20, mass=2.0), moments=1).agreement["velocity[0]"]
    assert heavy.slope == pytest.approx(2 * usual, rel=0.1)  # half the true effect


def test_sequences_begin_with_what_is_in_force_and_stay_in_range(make_world: MakeWorld) -> None:
    world = make_world()
    world.reset(0)
    policy = Explorer(world.spec, world.entities, 0.8, 0)
    for _ in range(4):
        world.step(policy(world))
    sequences = _held(world, 5, 7, seed=0)
    assert sequences.shape == (6, 6, 7, 2)
    np.testing.assert_array_equal(sequences[:, 0, 0], world.applied)
    assert (np.abs(sequences) <= 1.0).all()
    assert (np.diff(sequences, axis=2) == 0).all()
    assert sequences[:, 1:].std(axis=1).min() > 0.1
