"""Whatever comes to the gate: nothing outside the envelope leaves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.gate import envelope, gate
from schemas.codes import Mode
from schemas.frames import ControlView
from schemas.system import SystemSpec
from tests.planner.gates import (
    AUTOSCALE,
    HARD,
    NAV,
    SMOOTH,
    STEPPED,
    WALLED,
    WATCHED,
    WHOLE,
    one,
)
from tests.planner.worlds import edited, make_frame

F64 = npt.NDArray[np.float64]
ANY = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64)
KEYS = ("autoscale", "nav2d", "hard", "whole", "smooth", "stepped", "walled", "watched")
SPECS = dict(
    zip(KEYS, (AUTOSCALE, NAV, HARD, WHOLE, SMOOTH, STEPPED, WALLED, WATCHED), strict=True)
)


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    spec = SPECS[draw(st.sampled_from(KEYS))]
    count = draw(st.integers(0, 4))
    width = len(spec.action_columns)

    def floats(*shape: int, elements: Any = ANY) -> F64:
        out: F64 = draw(hnp.arrays(np.float64, shape, elements=elements))
        return out

    shape = (count, width) if draw(st.booleans()) else draw(hnp.array_shapes(max_side=4))
    overrides = draw(
        st.dictionaries(
            st.sampled_from(["e000", "e001"]),
            st.dictionaries(st.sampled_from([*spec.action_columns, "other"]), ANY, max_size=2),
        )
    )
    control = ControlView(
        holds=tuple(draw(st.lists(st.sampled_from(["*", "e000"]), max_size=1))), overrides=overrides
    )
    frame = make_frame(
        spec, floats(count, len(spec.columns)), applied=floats(count, width), control=control
    )
    frame.ages[:] = draw(st.sampled_from([0.0, 100.0, np.nan]))
    return {
        "spec": spec,
        "proposal": floats(*shape),
        "fallback": floats(count, width),
        "frame": frame,
        "last_applied": frame.applied,
        "uncertainty": floats(count),
        "before": draw(st.none() | hnp.arrays(np.float64, (count, width), elements=ANY)),
        "mode": draw(hnp.arrays(np.uint8, count, elements=st.sampled_from([0, 1, 2, 3]))),
        "believed": draw(hnp.arrays(np.bool_, count)),
        "risk": draw(st.none() | hnp.arrays(np.float64, count, elements=ANY)),
        "latched": draw(st.none() | hnp.arrays(np.bool_, count)),
        "model": draw(st.booleans()),
        "late": draw(st.booleans()),
    }


@given(situations())
def test_nothing_outside_the_envelope_ever_leaves(situation: dict[str, Any]) -> None:
    spec, applied = situation["spec"], situation["last_applied"]
    before = {name: np.array(situation[name]) for name in ("proposal", "fallback", "mode")}
    out = gate(**situation)
    for name, array in before.items():  # pure: its arguments are as they were
        np.testing.assert_array_equal(situation[name], array)
    assert out.action.shape == applied.shape
    sent = out.action[out.published]
    before_ = situation["before"]
    low, high = envelope(
        spec, applied[out.published], None if before_ is None else before_[out.published]
    )
    assert np.isfinite(sent).all()
    assert ((sent >= low) & (sent <= high)).all()
    assert ((sent >= spec.action_low) & (sent <= spec.action_high)).all()
    assert (np.rint(sent)[:, spec.action_integer] == sent[:, spec.action_integer]).all()
    rise = sent - np.clip(applied[out.published], spec.action_low, spec.action_high)
    slack = spec.action_integer * 0.5  # an applied value between whole numbers counts as rounded
    assert not (rise > spec.rate_up + slack).any()
    assert not (-rise > spec.rate_down + slack).any()
    assert np.isnan(out.action[~out.published]).all()
    learned = np.isin(out.mode, (Mode.PLAN, Mode.FOLLOW, Mode.ACTOR))
    assert not (learned & ~situation["believed"]).any()
    assert situation["model"] or not learned.any()
    if spec is WATCHED and situation["risk"] is not None:
        assert not (learned & ~(situation["risk"] <= 0.25)).any()
    assert situation["latched"] is None or not (learned & situation["latched"]).any()


@given(situations())
def test_the_gate_is_idempotent_on_what_it_let_out(situation: dict[str, Any]) -> None:
    first = gate(**situation)
    again = gate(
        **{**situation, "proposal": first.action, "mode": first.mode, "fallback": first.action}
    )
    kept = first.published & again.published
    np.testing.assert_array_equal(first.action[kept], again.action[kept])


VALUES = hnp.arrays(np.float64, (3, 1), elements=ANY | st.floats(-300, 300))


@given(VALUES, st.none() | VALUES, st.sampled_from([AUTOSCALE, STEPPED]))
def test_the_envelope_is_never_empty(applied: F64, before: F64 | None, spec: SystemSpec) -> None:
    low, high = envelope(spec, applied, before)
    assert (low <= high).all()
    assert (low >= 1).all()
    assert (high <= 200).all()
    assert (np.rint(low) == low).all()
    assert (np.rint(high) == high).all()


def test_a_range_wider_than_numbers_are_leaves_an_envelope() -> None:
    ends = "low: -1.7e+308, high: 1.7e+308, accel: {up: 1, down: 1}"
    wide = edited("nav2d", ("low: -1, high: 1, fallback: 0", ends))
    low, high = envelope(wide, np.full((1, 2), 1.7e308), np.full((1, 2), -1.7e308))
    assert (low <= high).all()  # the change between them is infinite


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.sampled_from([-1.0, 0.0, 1.0]))
def test_step_after_step_the_change_changes_within_its_limit(
    wanted: list[float], at: float
) -> None:
    """Unless the end of the range is in the way."""
    before, applied = np.full((1, 2), at), np.full((1, 2), at)
    for proposal in wanted:
        frame = make_frame(SMOOTH, np.zeros((1, 6)), applied=applied)
        action, _, _ = one(SMOOTH, frame, [proposal, 0.0], before=before)
        turned = (action - applied[0]) - (applied - before)[0]
        assert turned[0] <= 0.25 + 1e-9 or action[0] == -1.0
        assert turned[0] >= -0.5 - 1e-9 or action[0] == 1.0
        before, applied = applied, action[None]
