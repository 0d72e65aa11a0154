"""Sequences: executable as the gate has it, spread and noise as said."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.gate import envelope
from planner.sequences import coloured, executable, first_spread
from schemas.spec_parts import COLOUR
from schemas.system import load_spec
from tests.planner.worlds import edited

NAV = load_spec("nav2d")
AUTOSCALE = load_spec("autoscale")
UNEVEN = edited(
    "autoscale",
    ("kind: integer", "kind: continuous"),
    ("rate: {up: 10, down: 3}", "rate: {up: 0.1, down: 0.7}"),
)
F64 = npt.NDArray[np.float64]


@pytest.mark.parametrize("spec", [AUTOSCALE, UNEVEN], ids=["integer", "uneven"])
@given(
    sequences=hnp.arrays(np.float64, (2, 3, 5, 1), elements=st.floats(-1e6, 1e6)),
    applied=hnp.arrays(np.float64, (2, 1), elements=st.floats(-10, 300) | st.just(np.nan)),
)
def test_executable_is_what_the_gate_lets_out_step_by_step(
    spec: object, sequences: F64, applied: F64
) -> None:
    assert isinstance(spec, type(AUTOSCALE))
    out = executable(spec, applied, sequences)
    before = np.broadcast_to(applied[:, None], (2, 3, 1))
    for t in range(5):
        low, high = envelope(spec, before)
        step = out[:, :, t]
        assert (step >= low).all()
        assert (step <= high).all()
        wanted = np.clip(sequences[:, :, t], spec.action_low, spec.action_high)
        wanted = np.where(spec.action_integer, np.rint(wanted), wanted)
        np.testing.assert_array_equal(step, np.clip(wanted, low, high))
        before = step
    np.testing.assert_array_equal(executable(spec, applied, out), out)


@given(
    sequences=hnp.arrays(np.float64, (2, 3, 5, 1), elements=st.floats(-1e3, 1e3)),
    past=hnp.arrays(np.float64, (2, 2, 1), elements=st.floats(-10, 300) | st.just(np.nan)),
    known=st.booleans(),
)
def test_executable_keeps_to_the_acceleration_that_the_gate_lets_out(
    sequences: F64, past: F64, known: bool
) -> None:
    spec = edited("autoscale", ("down: 3}", "down: 9}, accel: {up: 3, down: 2.5}"))
    before, applied = past
    out = executable(spec, applied, sequences, before if known else None)
    older = np.broadcast_to(before[:, None] if known else np.full((2, 1, 1), np.nan), (2, 3, 1))
    last = np.broadcast_to(applied[:, None], (2, 3, 1))
    for t in range(5):
        low, high = envelope(spec, last, older)
        wanted = np.rint(np.clip(sequences[:, :, t], spec.action_low, spec.action_high))
        np.testing.assert_array_equal(out[:, :, t], np.clip(wanted, low, high))
        older, last = last, out[:, :, t]


def test_the_first_spread_follows_bounds_and_rates() -> None:
    spread = first_spread(AUTOSCALE, np.array([[3.0], [np.nan], [198.0]]), 4)
    assert spread[0, :, 0].tolist() == [(13 - 1) / 4, (23 - 1) / 4, (33 - 1) / 4, (43 - 1) / 4]
    assert spread[1, :, 0].tolist() == [199 / 4] * 4
    assert spread[2, 0, 0] == (200 - 195) / 4


def test_coloured_noise_has_unit_variance_and_is_smooth() -> None:
    white = np.random.default_rng(0).standard_normal((16, 20_000, 1)).astype(np.float32)
    out = coloured(white, COLOUR)
    assert out.shape == (20_000, 16, 1)
    np.testing.assert_allclose(out.std(axis=0), 1.0, atol=0.03)
    step = np.diff(out[..., 0], axis=1).std()
    assert step < 0.6  # of white noise: 1.41
