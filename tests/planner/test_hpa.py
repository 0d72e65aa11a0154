"""Kubernetes' rule, case by case as its source and documentation have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.hpa import Hpa, HpaRule

RULE = HpaRule(target=0.5, capacity=10.0, low=1, high=100)


def ask(
    load: float,
    ready: float,
    unready: float = 0,
    missing: float = 0,
    current: float | None = None,
    rule: HpaRule = RULE,
) -> float:
    given_ = (load, ready, unready, missing, ready if current is None else current)
    return float(rule.recommend(*(np.array([float(x)]) for x in given_))[0])


@pytest.mark.parametrize(
    ("load", "ready", "expected"),
    [
        (50.0, 10.0, 10),  # 100 % of the target
        (55.0, 10.0, 10),  # 110 %: within the tolerance
        (55.1, 10.0, 12),  # ceil(11.02)
        (45.0, 10.0, 10),  # 90 %: within
        (44.9, 10.0, 9),  # ceil(8.98)
        (100.0, 10.0, 20),
        (0.0, 10.0, 0),  # limits come later
        (70.0, 20.0, 14),  # exact: no extra pod from rounding
    ],
)
def test_desired_is_current_times_ratio_rounded_up(
    load: float, ready: float, expected: float
) -> None:
    assert ask(load, ready) == expected


def test_no_extra_pod_from_binary_fractions() -> None:
    rule = HpaRule(target=0.7, capacity=3.0)
    for pods in range(2, 60):
        assert ask(pods * 0.7 * 3.0, pods / 2, rule=rule, current=pods / 2) == pods


def test_unready_pods_count_as_idle_on_the_way_up_only() -> None:
    assert ask(100, 10) == 20
    assert ask(100, 10, unready=5) == 20  # (20 + 0 × 5) / 15 × 15
    assert ask(100, 10, unready=10, current=20) == 20  # ratio 2 becomes 1: quiet
    assert ask(100, 10, unready=30, current=40) == 40  # it would turn round: stay
    assert ask(25, 10, unready=10, current=20) == 5  # down: ignored


def test_missing_pods_are_full_on_the_way_down_and_idle_on_the_way_up() -> None:
    # 25 / 5 = 5 pods' worth; 2 missing at 100 % = 2 × 2 targets: 9 / 12 = 0.75 of the target
    assert ask(25, 10, missing=2, current=12) == 9
    assert ask(45, 10, missing=1, current=11) == 11  # (9 + 2) / 11 = 1: quiet
    assert ask(40, 10, missing=5, current=15) == 15  # (8 + 10) / 15 > 1: it would turn round
    assert ask(100, 10, missing=2, current=12) == 20
    assert ask(56, 10, missing=2, current=12) == 12  # 11.2 / 12: quiet


def test_without_a_metric_nothing_is_recommended() -> None:
    assert np.isnan(ask(np.nan, 10))
    assert np.isnan(ask(100, np.nan))
    assert np.isnan(ask(100, 0, unready=4))


def policy(**rule: float) -> Hpa:
    return Hpa(HpaRule(target=0.5, capacity=10.0, low=1, high=1000, **rule), services=1)  # type: ignore[arg-type]


def test_up_at_most_doubles_or_adds_four() -> None:
    hpa = policy()
    assert hpa([1000.0], [1.0], [1.0]) == [5.0]  # 4 pods
    assert hpa([1000.0], [5.0], [5.0]) == [10.0]  # 100 %
    assert hpa([1000.0], [10.0], [10.0]) == [20.0]
    assert policy(up_percent=0.0, up_pods=3.0)([1000.0], [10.0], [10.0]) == [13.0]


def test_down_goes_to_the_highest_recommendation_of_the_window() -> None:
    hpa = policy()
    assert hpa([500.0], [100.0], [100.0]) == [100.0]
    loads = [200.0] * 19 + [100.0] * 21
    asked = [float(hpa([load], [100.0], [100.0])[0]) for load in loads]
    assert asked[:19] == [100.0] * 19  # the recommendation of 100 is still within 300 s
    assert asked[19:38] == [40.0] * 19
    assert asked[38:] == [20.0, 20.0]


def test_a_new_autoscaler_does_not_scale_down_at_once() -> None:
    """It begins its window with the current count, as the controller does."""
    hpa = policy()
    asked = [float(hpa([100.0], [100.0], [100.0])[0]) for _ in range(21)]
    assert asked[:19] == [100.0] * 19
    assert asked[-1] == 20.0


def test_without_a_metric_the_count_stays() -> None:
    hpa = policy()
    assert hpa([np.nan], [10.0], [12.0]) == [12.0]
    assert hpa([np.nan], [10.0], [np.nan]) == [10.0]
    assert hpa([100.0], [10.0], [np.nan]) == [20.0]


def test_services_are_independent() -> None:
    loads = np.array([10.0, 300.0, 80.0, 0.0])
    pods = np.array([10.0, 20.0, 30.0, 5.0])
    together = Hpa(RULE, 4)
    alone = [Hpa(RULE, 1) for _ in range(4)]
    for _ in range(30):
        joint = together(loads, pods, pods)
        single = [
            float(hpa([load], [p], [p])[0]) for hpa, load, p in zip(alone, loads, pods, strict=True)
        ]
        assert joint.tolist() == single
        pods = joint


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=40),
    st.floats(1, 100),
)
def test_it_stays_in_range_and_never_overshoots_the_limits(
    loads: list[float], start: float
) -> None:
    hpa, count = Hpa(RULE, 1), np.array([np.rint(start)])
    for load in loads:
        desired = hpa([load], count, count)
        assert 1 <= desired[0] <= 100
        assert desired[0] <= max(2 * count[0], count[0] + 4)
        count = desired


@pytest.mark.parametrize("bad", [{"target": 0.0}, {"capacity": -1.0}, {"window": 0}])
def test_parameters_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="hpa needs"):
        HpaRule(**({"target": 0.5, "capacity": 1.0} | bad))  # type: ignore[arg-type]
