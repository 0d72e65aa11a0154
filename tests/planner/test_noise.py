"""Noise is a function of its key: equal keys give equal numbers, others independent ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.noise import normal

keys = st.tuples(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**31),
    st.integers(-(2**40), 2**40),
    st.integers(0, 2**31),
)


@settings(deadline=None, max_examples=50)
@given(key=keys)
def test_equal_keys_give_equal_numbers_whatever_was_drawn_between(
    key: tuple[int, int, int, int],
) -> None:
    first = normal(*key, (3, 5))
    np.random.default_rng(7).standard_normal(4)
    normal(1, 2, 3, 4, (17,))
    second = normal(*key, (3, 5))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(normal(*key, (60,))[:15], first.reshape(-1))


@settings(deadline=None, max_examples=50)
@given(key=keys, part=st.integers(0, 3), step=st.integers(1, 1000))
def test_a_change_in_any_part_of_the_key_gives_unrelated_numbers(
    key: tuple[int, int, int, int], part: int, step: int
) -> None:
    seed, cohort, tick, stream = (value + step * (i == part) for i, value in enumerate(key))
    one, two = normal(*key, (2000,)), normal(seed, cohort, tick, stream, (2000,))
    assert not np.intersect1d(one[:50], two[:50]).size
    assert abs(np.corrcoef(one, two)[0, 1]) < 6 / np.sqrt(2000)


def test_the_parts_of_a_key_are_not_interchangeable() -> None:
    drawn = {normal(*key, (4,)).tobytes() for key in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)]}
    drawn |= {normal(*key, (4,)).tobytes() for key in [(0, 0, 0, 1), (0, 0, 0, 0), (1, 1, 0, 0)]}
    assert len(drawn) == 6


def test_moments_over_many_keys() -> None:
    samples = np.stack([normal(0, 3, tick, 1, (4000,)) for tick in range(100)]).astype(float)
    n = samples.size
    assert abs(samples.mean()) < 5 / np.sqrt(n)
    assert abs(samples.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((samples**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((samples**4).mean() - 3) < 5 * np.sqrt(96 / n)
    share = (np.abs(samples) > 3).mean()
    assert share == pytest.approx(0.0026998, abs=5 * np.sqrt(0.0027 / n))
    across = samples.mean(axis=0) * np.sqrt(100)  # the same position under successive ticks
    assert across.var() == pytest.approx(1, abs=5 * np.sqrt(2 / 4000))


def test_golden_values() -> None:
    """Recorded plans depend on these: a change here means old recordings replay differently."""
    expected = [[-1.3820133, -0.29355, 2.6048744], [0.341096, -0.1699534, -0.7615514]]
    np.testing.assert_allclose(normal(1, 2, 3, 4, (2, 3)), expected, rtol=1e-6)
    np.testing.assert_allclose(normal(0, 0, -1, 0, (2,)), [-1.2112659, -0.744462], rtol=1e-6)
