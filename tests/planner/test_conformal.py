"""Intervals hold what they promise: exchangeable scores, any scores, and scores that drift."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.conformal import (
    LEAST,
    AdaptiveFactor,
    conformal_factor,
    conformity,
    factors_at,
    quantiles,
    rate_for,
    stretched,
)
from planner.manifest import Recalibration

numbers = st.floats(-100, 100, width=32)
levels = st.sampled_from([0.5, 0.8, 0.95])


@given(arrays(np.float64, (7, 4), elements=numbers), st.floats(0, 20), st.floats(0.1, 10))
def test_a_stretched_interval_holds_exactly_the_truths_with_a_score_up_to_its_factor(
    samples: np.ndarray, factor: float, scale: float
) -> None:
    low, median, high = np.sort(samples[:3], axis=0)
    truth, width = samples[3], np.full(4, scale)
    score = conformity(truth, median, low, high, width)
    lower, upper = stretched(median, low, high, np.array(factor), width)
    inside = (truth >= lower) & (truth <= upper)
    clear = np.abs(score - factor) > 1e-9 * (1 + factor)
    np.testing.assert_array_equal(inside[clear], (score <= factor)[clear])


def test_an_unknown_truth_has_no_score() -> None:
    score = conformity(np.array([np.nan]), *(np.zeros(1),) * 3, np.ones(1))
    assert np.isnan(score).all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_quantiles_of_a_perfect_model_hold_what_they_promise(level: float) -> None:
    rng = np.random.default_rng(0)
    samples = np.sort(rng.standard_normal((39, 40_000)), axis=0)
    low, high = quantiles(samples, np.array([(1 - level) / 2, (1 + level) / 2]))
    truth = rng.standard_normal(40_000)
    assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(level, abs=0.007)


@given(st.lists(st.floats(0, 50), min_size=1, max_size=80), levels)
def test_the_factor_is_the_order_statistic_of_split_conformal(
    scores: list[float], level: float
) -> None:
    factor = conformal_factor(np.array(scores), level)
    rank = math.ceil(round((len(scores) + 1) * level, 6))
    assert factor == (sorted(scores)[rank - 1] if rank <= len(scores) else math.inf)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_exchangeable_scores_are_held_as_often_as_promised(level: float) -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(4000):
        scores = rng.exponential(size=60) ** 2
        held.append(scores[-1] <= conformal_factor(scores[:-1], level))
    assert level - 0.02 <= np.mean(held) <= level + 1 / 60 + 0.02


def _recalibration() -> Recalibration:
    table = ((1.0, 2.0), (3.0, 6.0), (5.0, 5.0))
    return Recalibration((0.5, 0.8), (1, 5, 10), (table, table), 100)


def test_factors_are_linear_between_the_horizons_that_were_fitted() -> None:
    known = _recalibration()
    np.testing.assert_allclose(factors_at(known, 1), [[1, 2], [1, 2]])
    np.testing.assert_allclose(factors_at(known, 3), [[2, 4], [2, 4]])
    np.testing.assert_allclose(factors_at(known, 10), [[5, 5], [5, 5]])
    np.testing.assert_allclose(factors_at(known, 99), [[5, 5], [5, 5]])


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [0.8, 0.5]},
        {"levels": [0.5, 1.0]},
        {"levels": []},
        {"horizons": [0, 5, 10]},
        {"horizons": [1, 5]},
        {"factors": [[[1.0, 2.0], [3.0, 6.0], [5.0]]] * 2},
        {"factors": [[[1.0, 2.0], [3.0, 6.0], [5.0, -1.0]]] * 2},
        {"factors": []},
    ],
)
def test_malformed_factors_are_refused(change: dict[str, object]) -> None:
    content = msgspec.to_builtins(_recalibration())
    assert msgspec.convert(content, Recalibration) == _recalibration()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(content | change, Recalibration)


@given(
    st.lists(st.floats(0.02, 50), min_size=1, max_size=200),
    st.floats(0.05, 20),
    levels,
    st.floats(0.01, 0.5),
)
def test_whatever_the_scores_the_share_of_misses_keeps_its_bound(
    scores: list[float], first: float, level: float, rate: float
) -> None:
    tracker = begun = AdaptiveFactor.begin(np.array(first), level, rate)
    missed = 0
    for score in scores:
        missed += not tracker.covers(np.array(score))
        tracker = tracker.after(np.array(score))
    assert begun.factor == first  # nothing is changed in place
    count, start = len(scores), float(begun.factor)
    off = missed / count - (1 - level)
    above = (math.log(max(*scores, start) / start) + rate) / (rate * count)
    below = (math.log(start / min(*scores, start)) + rate) / (rate * count)
    assert off <= above + 1e-9
    if min(*scores, start) >= LEAST * math.exp(rate):
        assert off >= -below - 1e-9


@given(arrays(np.float64, (5, 3), elements=st.floats(0, 5)), st.permutations(range(5)))
def test_entities_share_a_factor_whatever_their_order(scores: np.ndarray, order: list[int]) -> None:
    tracker = AdaptiveFactor.begin(np.ones(3), 0.8)
    there, back = tracker.after(scores), tracker.after(scores[order])
    np.testing.assert_allclose(there.factor, back.factor)
    each = [tracker.after(row).factor for row in scores]
    np.testing.assert_allclose(np.log(there.factor), np.log(each).mean(0), atol=1e-12)


def test_what_is_not_known_changes_nothing() -> None:
    tracker = AdaptiveFactor.begin(np.ones(2), 0.8)
    after = tracker.after(np.array([[np.nan, 3.0], [np.nan, np.nan]]))
    assert after.factor[0] == 1.0
    assert after.factor[1] > 1.0


def test_under_drift_a_fixed_factor_loses_its_coverage_and_an_adaptive_one_keeps_it() -> None:
    rng = np.random.default_rng(2)
    fixed = conformal_factor(np.abs(rng.standard_normal(1000)), 0.8)
    tracker = AdaptiveFactor.begin(np.array(fixed), 0.8)
    growing = np.abs(rng.standard_normal(2000)) * np.linspace(1, 4, 2000)
    held = []
    for score in growing:
        held.append(bool(tracker.covers(score)))
        tracker = tracker.after(score)
    assert np.mean(growing[1000:] <= fixed) < 0.5
    assert np.mean(held[:1000]) == pytest.approx(0.8, abs=0.03)
    assert np.mean(held[1000:]) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("entities", [1, 24, 64, 1000])
def test_the_more_entities_the_sooner_a_sudden_change_is_met_and_no_less_steadily(
    entities: int,
) -> None:
    rng = np.random.default_rng(3)
    tracker = AdaptiveFactor.begin(np.array(1.2816), 0.8, rate_for(entities))
    factors, held = [], []
    for tick in range(300):
        scores = np.abs(rng.standard_normal(entities)) * (1 if tick < 150 else 6)
        held.append(tracker.covers(scores).mean())
        tracker = tracker.after(scores)
        factors.append(float(tracker.factor))
    assert np.log(factors[50:150]).std() < 0.25
    assert np.mean(held[160:]) == pytest.approx(0.8, abs=0.02 if entities > 1 else 0.06)


@pytest.mark.parametrize("given", [(1.0, 1.0, 0.1), (1.0, 0.8, 0.0), (math.inf, 0.8, 0.1)])
def test_what_cannot_be_tracked_is_refused(given: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="level"):
        AdaptiveFactor.begin(np.array(given[0]), given[1], given[2])
