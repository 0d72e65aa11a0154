"""Weights of path integrals: by score, whatever its unit, and never nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from planner.mppi import SHARPNESS, Mppi, weights

F64 = npt.NDArray[np.float64]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
def test_the_last_counts_as_little_as_said_in_any_unit(unit: float) -> None:
    found = weights(unit * np.array([[5.0, 4.0, 3.0], [-1.0, -1.5, -9.0]]))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(found[:, 2] / found[:, 0], np.exp(-SHARPNESS))
    assert (np.diff(found, axis=1) < 0).all()


def test_equals_count_the_same_and_what_is_not_finite_nothing() -> None:
    found = weights(np.array([[2.0, 2.0, 2.0], [3.0, -np.inf, -np.inf], [-np.inf] * 3]))
    np.testing.assert_allclose(found[0], 1 / 3)
    assert found[1].tolist() == found[2].tolist() == [1.0, 0.0, 0.0]


def test_the_mean_is_nearer_the_better_ones_and_the_spread_is_about_it() -> None:
    elites, score = np.array([[[[1.0]], [[3.0]]]]), np.array([[10.0, 4.0]])
    mean, spread = Mppi._centre(elites, score)
    less = np.exp(-SHARPNESS) / (1 + np.exp(-SHARPNESS))
    assert mean.item() == pytest.approx(1.0 + 2.0 * less)
    assert spread.item() == pytest.approx(2.0 * np.sqrt(less * (1 - less)))
