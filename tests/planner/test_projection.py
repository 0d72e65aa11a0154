"""Projection onto hard constraints: nearest point, inside the box, and honest about failure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import projection
from schemas.system import SystemSpec
from tests.planner.worlds import edited

F64 = npt.NDArray[np.float64]


def spec_with(*texts: str) -> SystemSpec:
    lines = "".join(f'\n  c{i}: {{holds: "{t}", kind: hard}}' for i, t in enumerate(texts))
    old = '\n  arena: {holds: "max(abs(position[0]), abs(position[1])) <= 15", kind: soft}'
    return edited("nav2d", (old, lines))


def projected(spec: SystemSpec, action: list[float], values: list[float] | None = None) -> F64:
    here = np.array([values or [0.0] * 6])
    box = np.ones((1, 2))
    out: F64 = projection.project(spec, here, np.array([action]), -box, box)[0]
    return out


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1.5, 1.5))
def test_one_half_space_gives_the_nearest_point(a: float, b: float, bound: float) -> None:
    spec = spec_with(f"acceleration[0] + 2 * acceleration[1] <= {bound!r}")
    found = projected(spec, [a, b])
    assert (np.abs(found) <= 1).all()
    assert found[0] + 2 * found[1] <= bound + 1e-9
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 81), np.linspace(-1, 1, 81)), -1).reshape(-1, 2)
    inside = grid[grid @ [1, 2] <= bound]
    nearest = np.linalg.norm(inside - [a, b], axis=1).min()
    assert np.linalg.norm(found - [a, b]) <= nearest + 1e-6


def test_two_half_spaces_are_both_met() -> None:
    spec = spec_with("acceleration[0] + acceleration[1] <= 0.5", "acceleration[0] >= 0.25")
    found = projected(spec, [-1.0, 1.0])
    assert found[0] >= 0.25
    assert found.sum() <= 0.5
    assert found == pytest.approx([0.25, 0.25], abs=1e-7)


def test_slopes_may_depend_on_channels() -> None:
    spec = spec_with("velocity[0] * acceleration[0] <= 0.5 and goal[0] / 2 >= acceleration[1]")
    found = projected(spec, [1.0, 1.0], [0.0, 0.0, 2.0, 0.0, 0.5, 0.0])
    assert found == pytest.approx([0.25, 0.25], abs=1e-7)


def test_a_part_that_no_action_changes_keeps_nobody_from_the_others() -> None:
    spec = spec_with("position[0] <= 1 and acceleration[0] <= 0.5")
    assert projected(spec, [0.9, 0.9]).tolist() == pytest.approx([0.5, 0.9], abs=1e-7)
    beyond, action = np.array([[2.0, 0, 0, 0, 0, 0]]), np.array([[0.5, 0.9]])
    assert projection.violated(spec, beyond, action).all(), "it is asked all the same"


@pytest.mark.parametrize(
    "text",
    [
        "acceleration[0] * acceleration[1] <= 0.5",
        "abs(acceleration[0]) <= 0.5",
        "1 / acceleration[0] <= 0.5",
        "acceleration[0] <= 0.5 or acceleration[1] <= 0.5",
        "acceleration[0] == 0.5",
        "position[0] <= 1",
        "acceleration[0] <= 0.5 and abs(acceleration[1]) <= 0.5",
    ],
)
def test_what_is_not_affine_is_left_alone(text: str) -> None:
    (hard,) = projection.hard_constraints(spec_with(text))
    assert hard.margins == ()
    assert projected(spec_with(text), [0.9, 0.9]).tolist() == [0.9, 0.9]


def test_missing_channels_violate_and_are_not_projected() -> None:
    spec = spec_with("acceleration[0] <= velocity[0]")
    values = np.array([[0.0, 0.0, np.nan, 0.0, 0.0, 0.0]])
    action = np.array([[0.5, 0.5]])
    assert projection.violated(spec, values, action).tolist() == [True]
    assert projected(spec, [0.5, 0.5], values[0].tolist()).tolist() == [0.5, 0.5]


def test_an_impossible_constraint_goes_to_the_nearest_corner() -> None:
    assert projected(spec_with("acceleration[0] <= -3"), [0.5, 0.5]).tolist() == [-1.0, 0.5]


def test_what_comes_nearer_too_slowly_ends_after_so_many_rounds() -> None:
    """Between two almost opposite half-spaces each step is short; the gate then falls back."""
    spec = spec_with(
        "acceleration[0] + 0.05 * acceleration[1] <= 0",
        "0.05 * acceleration[1] - acceleration[0] <= 0",
    )
    found = projected(spec, [0.0, 1.0])
    assert (np.abs(found) <= 1).all()
    assert 0 < found[1] < 1
    assert projection.violated(spec, np.zeros((1, 6)), found[None]).tolist() == [True]


def test_no_slope_leaves_the_action() -> None:
    spec = spec_with("velocity[0] * acceleration[0] <= -1")
    assert projected(spec, [0.5, 0.5]).tolist() == [0.5, 0.5]


def test_rows_are_independent() -> None:
    spec = spec_with("acceleration[0] <= velocity[0]")
    values = np.zeros((3, 6))
    values[:, 2] = [0.0, 0.25, 5.0]
    box = np.ones((3, 2))
    out = projection.project(spec, values, np.full((3, 2), 0.5), -box, box)
    assert out[:, 0] == pytest.approx([0.0, 0.25, 0.5], abs=1e-7)
    assert (out[:, 1] == 0.5).all()
