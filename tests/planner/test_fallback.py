"""The controllers that stand by, on missing values too."""

from __future__ import annotations

import numpy as np
import pytest

from planner.fallback import FallbackError, check, fallback, fresh
from planner.hpa import Hpa, HpaRule
from schemas.system import load_spec, shipped_systems
from tests.planner.worlds import edited, make_frame

AUTOSCALE = load_spec("autoscale")
NAV = load_spec("nav2d")
HPA = (
    "fallback: {kind: hpa, target: 0.7, capacity: 3, "
    "load: requests, ready: ready, starting: starting}"
)
BRAKE = "fallback: {kind: brake, velocity: velocity, gain: 2.0}"


def service(requests: float, ready: float, starting: float = 0.0) -> list[float]:
    return [requests, ready, starting, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("name", shipped_systems())
def test_the_shipped_fallbacks_fit_their_specs(name: str) -> None:
    spec = load_spec(name)
    check(spec)
    frame = make_frame(spec, np.zeros((2, len(spec.columns))))
    action, _ = fallback(spec, frame, fresh(spec, 2))
    assert action.shape == (2, len(spec.action_columns))
    assert ((spec.action_low <= action) & (action <= spec.action_high)).all()


def test_hpa_is_the_rule_on_the_columns_of_the_frame() -> None:
    rows = [(60.0, 20.0, 0.0), (30.0, 20.0, 0.0), (100.0, 20.0, 30.0), (np.nan, 20.0, 0.0)]
    frame = make_frame(
        AUTOSCALE, [service(*row) for row in rows], applied=[[20.0], [20.0], [50.0], [33.0]]
    )
    alone = Hpa(HpaRule(target=0.7, capacity=3.0, low=1, high=200), 4)
    columns = np.array(rows).T
    action, state = fallback(AUTOSCALE, frame, fresh(AUTOSCALE, 4))
    wanted = alone(columns[0], columns[1], frame.applied[:, 0], columns[2])
    assert action[:, 0].tolist() == wanted.tolist() == [29.0, 20.0, 50.0, 33.0]
    np.testing.assert_array_equal(state, alone.state)


def test_hpa_not_knowing_what_is_applied_counts_from_the_ready_ones() -> None:
    frame = make_frame(AUTOSCALE, [service(30.0, 20.0), service(np.nan, np.nan)])
    action, _ = fallback(AUTOSCALE, frame, fresh(AUTOSCALE, 2))
    assert action[:, 0].tolist() == [20.0, 1.0]  # nothing known at all: the safe value


def test_hpa_on_short_ticks_is_evaluated_once_per_period() -> None:
    spec = edited("autoscale", ("tick: 15 s", "tick: 5 s"))
    state = fresh(spec, 1)
    assert state.shape == (1, 20)
    asked = []
    for tick in range(3):
        frame = make_frame(spec, [service(600.0, 20.0)], applied=[[20.0]], tick=tick)
        action, state = fallback(spec, frame, state)
        asked.append(action[0, 0])
    assert asked == [40.0, 20.0, 20.0]


def test_hpa_answers_within_the_range() -> None:
    frame = make_frame(AUTOSCALE, [service(1e6, 150.0)], applied=[[150.0]])
    action, _ = fallback(AUTOSCALE, frame, fresh(AUTOSCALE, 1))
    assert action[0, 0] == 200.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fallback: {kind: hpa}", "capacity"),
        ("fallback: {kind: hpa, capacity: 3, load: rps}", "fallback.load.*'rps'.*requests"),
        ("fallback: {kind: hpa, capacity: 3, action: pods}", "fallback.action.*'pods'.*replicas"),
        ("fallback: {kind: brake}", "fallback.velocity"),
    ],
)
def test_parameters_that_do_not_fit_are_named(line: str, words: str) -> None:
    with pytest.raises(FallbackError, match=words):
        check(edited("autoscale", (HPA, line)))


def test_brake_opposes_the_velocity() -> None:
    values = np.zeros((3, 6))
    values[:, 2:4] = [[0.25, -0.125], [3.0, -4.0], [np.nan, 0.25]]
    action, state = fallback(NAV, make_frame(NAV, values), fresh(NAV, 3))
    assert action.tolist() == [[-0.5, 0.25], [-1.0, 1.0], [0.0, -0.5]]
    assert state.shape == (3, 0)


PD = "fallback: {kind: pd, kp: 0.5, kd: 0.25}"


def test_pd_goes_for_the_target_against_the_velocity() -> None:
    spec = edited("nav2d", (BRAKE, PD))
    values = np.zeros((5, 6))  # position, velocity, goal
    values[0] = [1.0, 0.0, 0.5, 0.0, 2.0, -0.5]
    values[1] = [0.0, 0.0, 0.0, 0.0, 9.0, -9.0]
    values[2] = [np.nan, 0.0, 0.0, 1.0, 0.0, 0.0]
    values[3] = [0.0, 0.0, np.nan, 0.0, 1.0, 1.0]
    values[4] = [0.0, 0.0, 0.0, 0.0, np.nan, 0.5]
    action, state = fallback(spec, make_frame(spec, values), fresh(spec, 5))
    assert action.tolist() == [[0.375, -0.25], [1.0, -1.0], [0.0, -0.25], [0.0, 0.5], [0.0, 0.25]]
    assert state.shape == (5, 0)


def test_pd_with_its_own_gains_brings_a_robot_to_a_fixed_place() -> None:
    spec = edited("nav2d", (BRAKE, "fallback: {kind: pd, target: 2.5}"))
    check(spec)
    at, speed, seen = np.array([[-3.0, 1.0]]), np.array([[1.0, 0.0]]), []
    for _ in range(150):
        frame = make_frame(spec, np.hstack([at, speed, [[np.nan, np.nan]]]))
        action, _ = fallback(spec, frame, fresh(spec, 1))
        at, speed = at + 0.1 * speed, speed + 0.1 * action
        seen.append(at[0])
    assert np.abs(at - 2.5).max() < 0.02
    assert np.abs(speed).max() < 0.02
    assert np.max(seen) < 2.6, "critically damped: it hardly overshoots"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{kind: pd, position: place}", "fallback.position: 'place' is not a channel of size 2"),
        ("{kind: pd, velocity: 3}", "fallback.velocity: 3 is not"),
        ("{kind: pd, target: home}", "fallback.target: 'home' is not.*position, velocity, goal"),
        ("{kind: pd, target: .nan}", "fallback.target: nan is not"),
        ("{kind: pd, kp: -1}", "fallback.kp: -1 is no gain"),
        ("{kind: pd, kd: .inf}", "fallback.kd: inf is no gain"),
        ("{kind: pd, kp: fast}", "fallback.kp: 'fast' is no gain"),
        ("{kind: pd, kd: true}", "fallback.kd: True is no gain"),
    ],
)
def test_parameters_of_pd_that_do_not_fit_are_named(line: str, words: str) -> None:
    with pytest.raises(FallbackError, match=words):
        check(edited("nav2d", (BRAKE, f"fallback: {line}")))


def test_hold_keeps_what_is_applied_and_value_the_safe_value() -> None:
    frame = make_frame(NAV, np.zeros((2, 6)), applied=[[0.5, np.nan], [9.0, -0.5]])
    hold = edited("nav2d", (BRAKE, "fallback: {kind: hold}"))
    action, _ = fallback(hold, frame, fresh(hold, 2))
    assert action.tolist() == [[0.5, 0.0], [1.0, -0.5]]
    value = edited("nav2d", (BRAKE, "fallback: {kind: value}"), ("fallback: 0}", "fallback: 0.25}"))
    action, _ = fallback(value, frame, fresh(value, 2))
    assert action.tolist() == [[0.25, 0.25], [0.25, 0.25]]
