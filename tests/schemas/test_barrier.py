"""Barriers: the condition that a constraint's margin shrinks no faster than by a share per tick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.barrier import barrier
from schemas.expression import Expression, ExpressionError
from schemas.system import SpecError, SystemSpec, load_spec, parse_spec
from tests.support import shipped_text

NEXT = {"velocity[0]": "velocity[0] + 0.1 * acceleration[0]"}
PARSED = {name: Expression.parse(text) for name, text in NEXT.items()}
NUMBER = st.floats(-1e3, 1e3)


def spec_with(holds: str, gamma: float = 0.5, kind: str = "hard", **more: Any) -> SystemSpec:
    given_ = {"gamma": gamma, "next": more.get("after", NEXT)}
    fast = {"holds": holds, "kind": kind, "barrier": given_}
    return parse_spec(shipped_text("nav2d", constraints={"fast": fast}))


@given(NUMBER, NUMBER, st.floats(0.01, 1.0), st.sampled_from(["<=", "<", ">", ">="]))
def test_the_margin_after_the_tick_is_at_least_a_share_of_that_before(
    v: float, a: float, gamma: float, sign: str
) -> None:
    found = barrier(Expression.parse(f"velocity[0] {sign} 5"), PARSED, gamma)
    side = 1.0 if "<" in sign else -1.0
    before, after = side * (5 - v), side * (5 - (v + 0.1 * a))
    columns = {"velocity[0]": np.array(v), "acceleration[0]": np.array(a)}
    if abs(after - (1 - gamma) * before) > 1e-9:
        assert bool(found.numpy(columns)) is (after >= (1 - gamma) * before)


def test_at_the_boundary_it_holds() -> None:
    found = barrier(Expression.parse("velocity[0] <= 5"), PARSED, 0.5)
    for a, holds in ((10.0, True), (10.001, False)):  # 3 + 1 leaves half of the 2 that were left
        columns = {"velocity[0]": np.array(3.0), "acceleration[0]": np.array(a)}
        assert bool(found.numpy(columns)) is holds


def test_each_part_of_a_conjunction_is_a_barrier_of_its_own() -> None:
    found = barrier(Expression.parse("-5 <= velocity[0] <= 5 and velocity[0] >= -9"), PARSED, 1.0)
    assert found.tree.op == "and"
    for v, a, holds in ((4.0, 9.0, True), (4.0, 11.0, False), (-4.0, -11.0, False)):
        columns = {"velocity[0]": np.array(v), "acceleration[0]": np.array(a)}
        assert bool(found.numpy(columns)) is holds


@pytest.mark.parametrize(
    ("holds", "told"),
    [
        ("velocity[0] == 5", "needs comparisons"),
        ("velocity[0] <= 5 or velocity[0] >= 9", "needs comparisons"),
        ("not velocity[0] <= 5", "needs comparisons"),
        ("position[0] <= 5", "reads no column of `next`"),
        (f"velocity[0] <= max({'1, ' * 1000}1)", "an expression has at most"),
    ],
)
def test_what_is_no_barrier_is_told(holds: str, told: str) -> None:
    with pytest.raises(ExpressionError, match=told):
        barrier(Expression.parse(holds), PARSED, 0.5)
    with pytest.raises(SpecError, match=rf"<spec>:\d+: constraints\.fast\.holds: .*{told}"):
        spec_with(holds)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gamma": 0.0}, r"barrier\.gamma: Input should be greater than 0"),
        ({"gamma": 1.1}, r"barrier\.gamma: Input should be less than or equal to 1"),
        ({"kind": "soft"}, "write `kind: hard`"),
        ({"after": {}}, r"barrier\.next: .* at least 1"),
        ({"after": {"speed": "velocity[0]"}}, r"next\.speed: there is no such column; there are"),
        ({"after": {"velocity[0]": "velocity[0] + acel"}}, "unknown name 'acel'"),
        ({"after": {"velocity[0]": "0.9 * velocity[0]"}}, "no action stands in `next`"),
    ],
)
def test_a_barrier_that_cannot_be_kept_is_told(change: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        spec_with("velocity[0] <= 5", **change)


def test_what_the_gate_enforces_is_the_barrier_in_place_of_the_constraint() -> None:
    spec = spec_with("velocity[0] <= 5")
    assert set(spec.enforced) == {"fast"}  # the shipped constraint is soft
    assert spec.enforced["fast"].names == {"velocity[0]", "acceleration[0]"}
    plain = parse_spec(
        shipped_text("nav2d", constraints={"fast": {"holds": "velocity[0] <= 5", "kind": "hard"}})
    )
    assert plain.enforced["fast"].source == "velocity[0] <= 5"
    assert spec.objective_hash == plain.objective_hash  # what is trained for stays the same
    assert spec.spec_hash != plain.spec_hash
    assert "barrier" not in load_spec("nav2d").model_dump()["constraint_texts"]["arena"]
