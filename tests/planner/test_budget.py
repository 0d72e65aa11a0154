"""Budgets: from an injected clock, from the log, or free."""

from __future__ import annotations

import math

import pytest

from planner.budget import CALL, MARGIN, Cost, FreeBudget, RecordedBudget, Spent, WallBudget


class Clock:
    """Nanoseconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_the_first_iteration_begins_whatever_it_costs_but_not_after_the_deadline() -> None:
    clock = Clock()
    assert WallBudget(10, 0, clock=clock).more(0, 0, 1e12)
    clock.now = 10_000
    assert not WallBudget(10, 0, clock=clock).more(0, 0, 1.0)
    clock.now = 9_999
    assert WallBudget(10, 0, clock=clock).more(0, 0, 1.0)
    assert not WallBudget(10, 0, reserve_us=1, clock=clock).more(0, 0, 1.0)


def test_it_stops_before_an_iteration_that_would_end_too_late() -> None:
    clock, cost = Clock(), Cost()
    budget = WallBudget(1_000, 0, cost, clock=clock)  # 1 ms
    for iteration in range(4):  # at 0, 0.2, 0.4, 0.6 ms: another 0.26 ms fit
        assert budget.more(0, iteration, 100.0)
        clock.now += 200_000
    assert not budget.more(0, 4, 100.0)  # 0.8 + 0.26 ms
    assert cost.expect(100.0) == pytest.approx(MARGIN * 200_000)
    assert not budget.more(0, 4, 50.0)  # nearly all of that is taken for the call itself


def test_work_of_different_size_tells_the_fixed_cost_from_the_slope() -> None:
    cost = Cost()
    for work in (1000.0, 4000.0, 2000.0) * 3:
        cost.learn(2e6 + 500.0 * work, work)
    assert cost.line == pytest.approx((2e6, 500.0), rel=1e-6)
    assert cost.expect(3000.0) == pytest.approx(MARGIN * 3.5e6)
    assert cost.fits(MARGIN * 3.5e6) == pytest.approx(3000.0)


def test_of_like_work_the_fixed_part_is_assumed() -> None:
    cost = Cost()
    assert (cost.line, cost.expect(5.0), cost.fits(1.0)) == ((0.0, 0.0), 0.0, math.inf)
    for elapsed in (3.9e6, 4.1e6, 4.0e6):
        cost.learn(elapsed, 1000.0)
    fixed, slope = cost.line
    assert slope == pytest.approx(1000.0, rel=0.02)  # 4 ms for 1000 + CALL steps
    assert fixed == pytest.approx(slope * CALL, rel=1e-9)


def test_new_measurements_outweigh_old_ones() -> None:
    cost = Cost()
    for _ in range(50):
        cost.learn(100.0, 1.0)
    for _ in range(30):
        cost.learn(300.0, 1.0)
    assert 280 < cost.expect(1.0) / MARGIN < 300


def test_a_slope_is_never_negative() -> None:
    cost = Cost()
    for work, elapsed in ((1.0, 100.0), (10.0, 50.0)) * 5:
        cost.learn(elapsed, work)
    fixed, slope = cost.line
    assert slope > 0
    assert fixed > 0


def test_a_group_is_as_large_as_fits() -> None:
    clock, cost = Clock(), Cost()
    budget = WallBudget(1_000, 0, cost, clock=clock)
    assert budget.size(0, 100.0, 12) == 3  # nothing known: a quarter of the most
    assert budget.size(0, 100.0, 1) == 1
    for work in (100.0, 1000.0) * 5:
        cost.learn(100_000 + 500.0 * work, work)
    assert budget.size(0, 100.0, 100) == 13  # (1e6 / 1.3 - 1e5) / (500 × 100)
    assert budget.size(0, 100.0, 7) == 7
    clock.now = 900_000
    assert budget.size(1, 100.0, 7) == 1
    assert not budget.more(1, 0, 100.0)


def test_asking_for_a_size_ends_the_measurement_of_the_last_grant() -> None:
    clock, cost = Clock(), Cost()
    budget = WallBudget(1_000, 0, cost, clock=clock)
    assert budget.more(0, 0, 10.0)
    clock.now = 5_000
    budget.size(1, 10.0, 4)
    clock.now = 90_000
    assert budget.more(1, 0, 10.0)
    assert cost.expect(10.0) == pytest.approx(MARGIN * 5_000)


def test_a_cost_that_fits_no_frame_is_doubted_until_it_is_measured_again() -> None:
    clock, cost = Clock(), Cost()
    cost.learn(100_000.0, 20.0)
    granted = [WallBudget(100, 0, cost, clock=clock).more(0, 0, 20.0) for _ in range(4)]
    assert granted == [False, False, False, True]  # 130 µs × 0.9³ < 100 µs
    before = cost.line
    assert not WallBudget(100, 0, cost, clock=clock).more(1, 0, 1e9)  # others were planned
    assert not WallBudget(100, -200_000, cost, clock=clock).more(0, 0, 1e9)  # no time at all
    assert cost.line == before
    cost.learn(100_000.0, 20.0)
    assert cost.expect(20.0) == pytest.approx(MARGIN * 100_000)


def test_time_between_a_refusal_and_the_next_question_is_not_a_cost() -> None:
    clock, cost = Clock(), Cost()
    cost.learn(10.0, 1.0)
    budget = WallBudget(1, 0, cost, clock=clock)
    assert not budget.more(1, 0, 1e6)
    clock.now += 900
    assert not budget.more(1, 0, 1e6)
    assert cost.expect(1.0) == pytest.approx(MARGIN * 10)


def test_recorded_iterations_come_back_exactly() -> None:
    spent = Spent(tiers=(0, 0, 1), iterations=(1, 1, 3), sizes=(4, 2, 1))
    budget = RecordedBudget(spent)
    asked = [[budget.more(g, i, 1e9) for i in range(4)] for g in range(4)]
    assert [sum(row) for row in asked] == [1, 1, 3, 0]
    assert asked[2] == [True, True, True, False]
    assert [budget.size(g, 1.0, 9) for g in range(4)] == [4, 2, 1, 9]
    assert Spent.from_dict(spent.as_dict()) == spent
    assert Spent.from_dict({}) == Spent()


def test_free_budgets() -> None:
    assert all(FreeBudget().more(0, i, 1e12) for i in range(50))
    assert [FreeBudget(2).more(5, i, 1.0) for i in range(3)] == [True, True, False]
    assert not FreeBudget(0).more(0, 0, 1.0)
