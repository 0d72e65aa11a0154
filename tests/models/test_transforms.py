"""Normalisation undoes itself and fits the data."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.transforms import ColumnScale, Scaler, fit_column, fit_step

RNG = np.random.default_rng(0)
FINITE = st.floats(-1e4, 1e4, width=32)


def test_columns_that_span_decades_are_compressed_and_others_are_not() -> None:
    spiky = np.exp(RNG.normal(0, 3, 5000))
    even = RNG.uniform(50, 150, 5000)
    assert fit_column("queue", spiky, 0, 1e7).kind == "log"
    assert fit_column("requests", even, 0, 1e6).kind == "linear"
    assert fit_column("late", even, 0, 1, share=True).kind == "share"


def test_normalised_data_has_unit_spread_and_missing_values_do_not_count() -> None:
    values = np.where(RNG.random(4000) < 0.2, np.nan, RNG.normal(5, 3, 4000))
    scale = fit_column("x", values, -100, 100)
    normal = Scaler([scale])(
        torch.tensor(values[np.isfinite(values)], dtype=torch.float32)[:, None]
    )
    assert normal.mean().item() == pytest.approx(0, abs=1e-3)
    assert normal.std().item() == pytest.approx(1, abs=1e-2)


def test_the_step_is_the_typical_change_in_normalised_units() -> None:
    walk = np.cumsum(RNG.normal(0, 0.5, 20_000))
    scale = fit_column("x", walk, -1e6, 1e6)
    assert fit_step(scale, walk[:-1], walk[1:]).step == pytest.approx(0.5 / scale.std, rel=0.03)
    assert 0 < fit_step(scale, walk, walk).step < 0.01


def test_a_column_without_values_or_spread_stays_finite() -> None:
    empty = fit_column("x", np.full(5, np.nan), -1, 1)
    constant = fit_column("x", np.full(5, 3.0), 0, 10)
    assert empty.std == 1.0
    assert constant.std > 0


@given(FINITE, st.sampled_from(["linear", "log"]))
def test_inverse_returns_to_the_raw_value(value: float, kind: str) -> None:
    scale = ColumnScale("x", kind, -1e5, 1e5, 1.5, 2000.0 if kind == "linear" else 1.7, 10.0)  # type: ignore[arg-type]
    scaler = Scaler([scale])
    raw = torch.tensor([[value]])
    assert scaler.inverse(scaler(raw)).item() == pytest.approx(value, rel=1e-3, abs=0.05)


def test_inverse_stays_within_the_range_of_the_spec() -> None:
    scaler = Scaler([ColumnScale("x", "linear", 0.0, 10.0, 5.0, 3.0)])
    out = scaler.inverse(torch.tensor([[-50.0], [50.0], [0.0]]))
    assert out.flatten().tolist() == [0.0, 10.0, 5.0]


def test_spread_is_the_slope_times_the_deviation() -> None:
    scaler = Scaler([ColumnScale("x", "log", 0.0, 1e6, 1.0, 2.0, 10.0)])
    at = torch.tensor([[0.3]], requires_grad=True)
    (slope,) = torch.autograd.grad(scaler.inverse(at).sum(), at)
    assert scaler.spread(at, torch.tensor([[0.1]])).item() == pytest.approx(0.1 * slope.item())


def test_large_linear_columns_beside_logarithmic_ones_keep_finite_gradients() -> None:
    large = ColumnScale("requests", "linear", 0.0, 1e6, 400.0, 100.0)
    queue = ColumnScale("queue", "log", 0.0, 1e7, 1.0, 1.5, unit=11.0)
    normal = torch.tensor([[3.0, 2.0]], requires_grad=True)
    Scaler([large, queue]).inverse(normal).sum().backward()  # type: ignore[no-untyped-call]
    assert normal.grad is not None
    assert torch.isfinite(normal.grad).all()
    assert normal.grad[0, 0] == pytest.approx(100.0)
    spread = Scaler([large, queue]).spread(normal.detach(), torch.ones(1, 2))
    assert spread[0, 0] == pytest.approx(100.0)
