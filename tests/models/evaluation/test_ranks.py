"""Ranks against their definitions."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.ranks import auroc, correlation, kendall, spearman

# Few different values, so that there are ties.
FEW = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)
PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=10)


@given(FEW, FEW)
def test_auroc_is_the_share_of_pairs_in_order(usual: list[float], changed: list[float]) -> None:
    pairs = [(a < b) + 0.5 * (a == b) for a in usual for b in changed]
    assert auroc(np.array(usual), np.array(changed)) == pytest.approx(np.mean(pairs))


def test_auroc_leaves_out_what_is_no_number() -> None:
    assert auroc(np.array([0.0, np.nan]), np.array([np.nan, 1.0])) == 1.0
    assert np.isnan(auroc(np.array([np.nan]), np.array([1.0])))


@given(PAIRS)
def test_kendall_is_the_balance_of_pairs(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=np.float64).T
    agree = apart_x = apart_y = 0.0
    for i, j in combinations(range(len(x)), 2):
        agree += np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
        apart_x += x[i] != x[j]
        apart_y += y[i] != y[j]
    expected = agree / np.sqrt(apart_x * apart_y) if apart_x * apart_y else np.nan
    np.testing.assert_allclose(kendall(x[None], y[None]), [expected])


@given(PAIRS)
def test_spearman_depends_on_order_alone(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=np.float64).T
    np.testing.assert_allclose(spearman(np.exp(x), y**3), spearman(x, y))
    np.testing.assert_allclose(spearman(-x, y), -spearman(x, y))


def test_correlation_of_a_line_is_one_and_of_a_constant_none() -> None:
    x = np.array([1.0, 2.0, np.nan, 5.0])
    assert correlation(x, 3 * x - 1) == pytest.approx(1.0)
    assert np.isnan(correlation(x, np.ones(4)))
