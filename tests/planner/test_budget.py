"""Budgets: from an injected clock, from the log, or free."""

from __future__ import annotations

from planner.budget import MARGIN, Cost, FreeBudget, RecordedBudget, Spent, WallBudget


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
    assert budget.more(0, 0, 100.0)
    clock.now += 200_000
    assert budget.more(0, 1, 100.0)  # 0.2 + 0.26 ms
    assert cost.ns_per_work == 2_000
    clock.now += 200_000
    assert budget.more(0, 2, 100.0)
    clock.now += 200_000
    assert budget.more(0, 3, 100.0)  # 0.6 + 0.26 ms
    clock.now += 200_000
    assert not budget.more(0, 4, 100.0)  # 0.8 + 0.26 ms would be 1.06
    assert budget.more(0, 4, 50.0)  # half the work still fits
    assert MARGIN == 1.3


def test_cost_rises_fast_and_falls_slowly() -> None:
    cost = Cost()
    cost.learn(100, 1.0)
    cost.learn(300, 1.0)
    assert cost.ns_per_work == 200
    cost.learn(100, 1.0)
    assert cost.ns_per_work == 190
    cost.learn(5, 0.0)
    assert cost.ns_per_work == 190
    assert cost.expect(10) == MARGIN * 1900


def test_a_cost_that_fits_no_frame_is_doubted_until_it_is_measured_again() -> None:
    clock, cost = Clock(), Cost(5_000.0)
    granted = [WallBudget(100, 0, cost, clock=clock).more(0, 0, 20.0) for _ in range(4)]
    assert granted == [False, False, False, True]  # 5000 × 0.9³ × 1.3 × 20 < 100,000
    before = cost.ns_per_work
    assert not WallBudget(100, 0, cost, clock=clock).more(1, 0, 1e9)  # others were planned
    assert not WallBudget(100, -200_000, cost, clock=clock).more(0, 0, 1e9)  # no time at all
    assert cost.ns_per_work == before


def test_time_between_a_refusal_and_the_next_question_is_not_a_cost() -> None:
    clock, cost = Clock(), Cost(10.0)
    budget = WallBudget(1, 0, cost, clock=clock)
    assert not budget.more(1, 0, 1e6)
    clock.now += 900
    assert not budget.more(1, 0, 1e6)
    assert cost.ns_per_work == 10.0


def test_recorded_iterations_come_back_exactly() -> None:
    spent = Spent(tiers=(0, 0, 1), iterations=(1, 1, 3))
    budget = RecordedBudget(spent)
    asked = [[budget.more(g, i, 1e9) for i in range(4)] for g in range(4)]
    assert [sum(row) for row in asked] == [1, 1, 3, 0]
    assert asked[2] == [True, True, True, False]
    assert Spent.from_dict(spent.as_dict()) == spent
    assert Spent.from_dict({}) == Spent()


def test_free_budgets() -> None:
    assert all(FreeBudget().more(0, i, 1e12) for i in range(50))
    assert [FreeBudget(2).more(5, i, 1.0) for i in range(3)] == [True, True, False]
    assert not FreeBudget(0).more(0, 0, 1.0)
