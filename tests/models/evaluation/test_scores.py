"""Scores against their definitions, spelled out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.evaluation import scores

small = st.floats(-50, 50, width=32)


@given(arrays(np.float64, (6, 2), elements=small), arrays(np.float64, 2, elements=small))
def test_crps_is_distance_less_half_the_samples_own(samples: np.ndarray, truth: np.ndarray) -> None:
    count = len(samples)
    own = np.abs(samples[:, None] - samples[None]).sum((0, 1)) / (count * (count - 1))
    wanted = np.abs(samples - truth).mean(0) - own / 2
    found = scores.crps(np.sort(samples, axis=0), truth)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_fair_crps_does_not_favour_few_samples_or_too_narrow_ones() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(100_000)

    def mean(count: int, width: float) -> float:
        samples = np.sort(width * rng.standard_normal((count, len(truth))), axis=0)
        return float(scores.crps(samples, truth).mean())

    assert mean(3, 1.0) == pytest.approx(mean(30, 1.0), abs=0.01)
    assert mean(10, 1.0) < min(mean(10, 0.5), mean(10, 2.0)) - 0.01


def test_nll_is_that_of_a_normal_and_bounded_for_what_never_moves() -> None:
    found = scores.gaussian_nll(np.array([1.0]), np.array([2.0]), np.array([3.0]), np.array([4.0]))
    assert found[0] == pytest.approx(0.5 * np.log(2 * np.pi) + np.log(2 / 4) + 0.5)
    still = scores.gaussian_nll(np.zeros(1), np.zeros(1), np.zeros(1), np.ones(1))
    assert still[0] == pytest.approx(0.5 * np.log(2 * np.pi) + np.log(1e-3))


def test_pit_is_flat_for_the_truth_even_where_most_values_tie() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.poisson(0.3, (20, 30_000)).astype(float)
    place = scores.pit(np.sort(drawn[1:], axis=0), drawn[0], rng)
    bars = scores.histogram(place[:, None], bins=5)
    np.testing.assert_allclose(bars, 1.0, atol=0.05)
    wide = scores.pit(np.sort(3 * rng.standard_normal((19, 9000)), axis=0), drawn[0, :9000], rng)
    assert scores.histogram(wide[:, None], bins=5)[2, 0] > 1.3


@given(arrays(np.float64, 12, elements=st.sampled_from([0.1, 0.2, 0.5, 0.9])), st.integers(1, 4094))
def test_auroc_is_the_share_of_pairs_in_the_right_order(score: np.ndarray, bits: int) -> None:
    label = np.array([(bits >> i) & 1 for i in range(12)], bool)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[label] for b in score[~label]]
    assert scores.auroc(score, label) == pytest.approx(np.mean(pairs))


def test_without_both_kinds_there_is_no_auroc() -> None:
    assert np.isnan(scores.auroc(np.ones(3), np.zeros(3, bool)))


def test_brier_and_log_loss() -> None:
    chance, label = np.array([0.9, 0.2, 1.0]), np.array([True, False, False])
    assert scores.brier(chance, label) == pytest.approx((0.01 + 0.04 + 1) / 3)
    wanted = -(np.log(0.9) + np.log(0.8) + np.log(1e-4)) / 3
    assert scores.log_loss(chance, label) == pytest.approx(wanted)


def test_alike_rows_count_once_in_the_standard_error() -> None:
    rng = np.random.default_rng(2)
    values = (rng.random((500, 1)) < 0.8).astype(float)
    block = np.arange(500)
    plain = scores.clustered_error(values, block)
    assert plain[0] == pytest.approx(0.4 / np.sqrt(500), rel=0.1)
    thrice = scores.clustered_error(np.repeat(values, 3, axis=0), np.repeat(block, 3))
    np.testing.assert_allclose(thrice, plain)


def test_averages_leave_out_what_is_not_known() -> None:
    found = scores.average(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert found[0] == 2.0
    assert np.isnan(found[1])
