"""Candidates are compared fairly, finalists with the risk that a spec fears."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from planner.imagine import Verdict
from planner.judge import doubtful, fair, risky
from schemas.spec_parts import Risk

F64 = npt.NDArray[np.float64]


def test_fair_scores_forgive_member_and_noise() -> None:
    """Luck that all share who live under a member or a noise sequence makes no elites."""
    generator = np.random.default_rng(0)
    merit = generator.standard_normal((2, 240))
    luck = 5.0 * generator.standard_normal((2, 5))[:, np.arange(240) % 5]
    luck += 5.0 * generator.standard_normal((2, 6))[:, np.arange(240) // 5 % 6]
    judged = fair(merit + luck, members=5, sequences=6)
    for row in range(2):
        assert np.corrcoef(judged[row], merit[row])[0, 1] > 0.9
    assert np.corrcoef((merit + luck)[0], merit[0])[0, 1] < 0.3


def test_fair_scores_keep_what_is_not_a_number_last() -> None:
    score = np.where(np.arange(60) % 5 == 2, -np.inf, 1.0)[None]  # one member fails throughout
    judged = fair(score, members=5, sequences=2)
    assert (judged[0, 2::5] == -np.inf).all()
    assert np.isfinite(np.delete(judged[0], np.arange(2, 60, 5))).all()


def test_what_the_members_do_not_agree_on_is_doubtful() -> None:
    led = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])  # [M, draws]
    sure, lucky, worse = led + 0.1, led + np.array([[3.0], [-0.5], [-0.5]]), led - 0.1
    samples = np.stack([sure, lucky, worse, led, led]).reshape(1, 5, 6)
    broken = np.zeros((1, 5))
    assert doubtful(samples, broken, 3, 3, 1.0).tolist() == [[False, True, True, False, True]]
    assert doubtful(samples, broken, 3, 3, 0.0).tolist() == [[False, False, True, False, True]]


def test_what_breaks_fewer_hard_constraints_is_never_doubtful() -> None:
    led = np.ones((3, 2))
    samples = np.stack([led - 5.0, led - 5.0, led]).reshape(1, 3, 6)
    broken = np.array([[0.5, 2.0, 2.0]])  # the second of the dear ones gains nothing by its price
    assert doubtful(samples, broken, 2, 3, 1.0).tolist() == [[False, True, False]]


def verdict(samples: F64, hard: F64, apart: F64) -> Verdict:
    """Of finalists `[1,F]` with two members, which differ by `apart` in the one channel."""
    futures = np.zeros((3, 2, 1, samples.shape[1], 1, 1), np.float32)
    futures[:, 1, 0, :, 0, 0] = 2 * apart
    return Verdict(samples, samples.mean(axis=2) - hard, futures)


def test_of_equal_means_the_less_risky_is_chosen() -> None:
    samples = np.array([[[0.0, 10.0, 10.0, 10.0], [7.0, 7.5, 7.5, 8.0], [7.0, 7.0, 7.0, 7.0]]])
    found = verdict(samples, np.zeros((1, 3)), np.array([0.0, 0.0, 0.0]))
    scale = np.ones(1, np.float32)
    assert risky(found, Risk(), scale) is found.score
    assert risky(found, Risk(), scale)[0].tolist() == [7.5, 7.5, 7.0]
    assert risky(found, Risk(tail=0.25), scale)[0].tolist() == [0.0, 7.0, 7.0]
    assert risky(found, Risk(tail=0.5), scale)[0].tolist() == [5.0, 7.25, 7.0]
    spread = risky(found, Risk(spread=2.0), scale)[0]
    np.testing.assert_allclose(spread, samples[0].mean(1) - 2 * samples[0].std(1))


def test_what_the_members_disagree_about_costs_by_the_unit() -> None:
    found = verdict(np.full((1, 2, 2), 3.0), np.zeros((1, 2)), np.array([0.0, 1.5]))
    scale = np.array([3.0], np.float32)  # 1.5 to either side of the mean is half a unit
    assert risky(found, Risk(disagreement=4.0), scale)[0].tolist() == pytest.approx([3.0, 1.0])


def test_no_fear_outweighs_a_hard_constraint() -> None:
    samples = np.array([[[0.0, 10.0], [5.0, 5.0]]])
    found = verdict(samples, np.array([[0.0, 1e6]]), np.zeros(2))
    assert risky(found, Risk(tail=0.5), np.ones(1, np.float32))[0].tolist() == [0.0, 5.0 - 1e6]


def test_what_is_not_a_number_is_last_whatever_is_feared() -> None:
    samples = np.array([[[np.nan, 1.0], [0.0, 1.0]]])
    found = Verdict(samples, np.array([[-np.inf, 0.5]]), np.zeros((1, 2, 1, 2, 1, 1), np.float32))
    for risk in (Risk(), Risk(tail=0.5), Risk(spread=1.0), Risk(disagreement=1.0)):
        assert risky(found, risk, np.ones(1, np.float32))[0, 0] == -np.inf
