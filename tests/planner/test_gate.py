"""The gate: nothing outside the envelope leaves it, and each reason at its boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner.gate import CHECKS, gate
from schemas.codes import Mode, Reason
from schemas.frames import ControlView
from tests.planner.gates import (
    AUTOSCALE,
    HARD,
    NAV,
    SMOOTH,
    STEPPED,
    WALLED,
    WATCHED,
    WHOLE,
    one,
    robots,
    services,
    walled,
)
from tests.planner.worlds import edited, make_frame


def test_what_is_allowed_passes_unchanged() -> None:
    action, reasons, mode = one(AUTOSCALE, services(applied=[[20.0]]), 23.0)
    assert (action[0], reasons, mode) == (23.0, Reason(0), Mode.PLAN)


@pytest.mark.parametrize(
    ("proposal", "expected", "reason"),
    [
        (40.0, 40.0, Reason(0)),
        (41.0, 40.0, Reason.RATE),
        (15.0, 15.0, Reason(0)),
        (14.0, 15.0, Reason.RATE),
        (201.0, 40.0, Reason.RANGE | Reason.RATE),
        (0.0, 15.0, Reason.RANGE | Reason.RATE),
        (22.5, 22.0, Reason.ROUNDED),
        (40.4, 40.0, Reason.ROUNDED),
        (40.6, 40.0, Reason.ROUNDED | Reason.RATE),
        (np.nan, 20.0, Reason.NOT_FINITE),
        (np.inf, 20.0, Reason.NOT_FINITE),
        (-np.inf, 20.0, Reason.NOT_FINITE),
        (5e-324, 15.0, Reason.RANGE | Reason.RATE),
    ],
)
def test_range_rate_and_rounding(proposal: float, expected: float, reason: Reason) -> None:
    frame = services(applied=[[20.0]])
    action, reasons, mode = one(AUTOSCALE, frame, proposal, fallback=[[20.0]])
    assert action[0] == expected
    assert reasons == reason
    assert mode == (Mode.FALLBACK if reason == Reason.NOT_FINITE else Mode.PLAN)


def test_the_ends_of_the_range_are_inside() -> None:
    for value, reason in ((1.0, Reason(0)), (200.0, Reason(0)), (0.999, Reason.RANGE)):
        action, reasons, _ = one(AUTOSCALE, services(), value)
        assert reasons == reason
        assert action[0] == max(value, 1.0)


def test_the_rate_counts_from_the_applied_value_moved_into_range() -> None:
    action, reasons, _ = one(AUTOSCALE, services(applied=[[500.0]]), 190.0)
    assert action[0] == 195.0  # 200 - 5
    assert reasons == Reason.RATE


@pytest.mark.parametrize(
    ("before", "applied", "proposal", "expected", "reason"),
    [
        (0.0, 0.25, 0.75, 0.75, Reason(0)),  # as fast as it was, and 0.25 more
        (0.0, 0.25, 0.7501, 0.75, Reason.ACCELERATION),
        (0.0, 0.25, 0.0, 0.0, Reason(0)),  # 0.25 + 0.25 - 0.5
        (0.0, 0.25, -0.0001, 0.0, Reason.ACCELERATION),
        (0.5, 0.25, 0.3, 0.25, Reason.ACCELERATION),  # it falls: it may just stop
        (0.5, 0.25, -0.5, -0.5, Reason(0)),
        (0.5, 1.0, 0.5, 1.0, Reason.ACCELERATION),  # too fast to turn round before the end
        (-1.0, 1.0, 0.0, 1.0, Reason.ACCELERATION),
        (0.0, 0.9, 9.0, 1.0, Reason.RANGE),
        (np.nan, 0.25, 1.0, 1.0, Reason(0)),
        (0.0, np.nan, 1.0, 1.0, Reason(0)),
        (-7.0, -1.0, -0.75, -0.75, Reason(0)),  # what was applied counts as moved into range
    ],
)
def test_acceleration_is_limited_where_both_applied_values_are_known(
    before: float, applied: float, proposal: float, expected: float, reason: Reason
) -> None:
    frame = make_frame(SMOOTH, np.zeros((1, 6)), applied=[[applied, 0.0]])
    spare = np.array([[before, 0.0]])
    action, reasons, _ = one(SMOOTH, frame, [proposal, 0.0], before=spare)
    assert (action[0], action[1], reasons) == (expected, 0.0, reason)
    action, reasons, _ = one(SMOOTH, frame, [proposal, 0.0])  # nobody knows what was before
    assert reasons in (Reason(0), Reason.RANGE)


@pytest.mark.parametrize(
    ("before", "applied", "proposal", "expected", "reason"),
    [
        (20.0, 22.0, 28.0, 28.0, Reason(0)),
        (20.0, 22.0, 29.0, 28.0, Reason.ACCELERATION),
        (20.0, 22.0, 21.0, 22.0, Reason.ACCELERATION),  # 24 - 2.5, whole: 22
        (20.0, 60.0, 60.0, 80.0, Reason.ACCELERATION),  # faster than its rate: this yields to it
        (20.0, 60.0, 99.0, 80.0, Reason.RATE),
    ],
)
def test_acceleration_of_whole_numbers_and_beside_a_rate(
    before: float, applied: float, proposal: float, expected: float, reason: Reason
) -> None:
    frame = services(applied=[[applied]])
    action, reasons, _ = one(STEPPED, frame, proposal, before=np.array([[before]]))
    assert (action[0], reasons) == (expected, reason)


def test_the_fallback_and_a_hold_come_to_rest_as_fast_as_acceleration_allows() -> None:
    frame = make_frame(SMOOTH, np.zeros((1, 6)), applied=[[0.0, 0.0]])
    before = np.array([[-1.0, 0.0]])
    action, reasons, mode = one(SMOOTH, frame, [np.nan, 0.0], fallback=[[-1.0, 0.0]], before=before)
    assert (action[0], reasons, mode) == (0.5, Reason.NOT_FINITE, Mode.FALLBACK)
    held = make_frame(
        SMOOTH, np.zeros((1, 6)), applied=[[0.0, 0.0]], control=ControlView(holds=("*",))
    )
    action, reasons, mode = one(SMOOTH, held, [0.0, 0.0], before=before)
    assert (action[0], reasons, mode) == (0.5, Reason.HOLD | Reason.ACCELERATION, Mode.HOLD)


def test_an_unknown_applied_value_sets_no_rate_limit() -> None:
    action, reasons, _ = one(AUTOSCALE, services(), 150.0)
    assert (action[0], reasons) == (150.0, Reason(0))


@pytest.mark.parametrize(
    ("uncertainty", "refused"),
    [(0.3, False), (np.nextafter(0.3, 1), True), (np.nan, True), (0.0, False), (np.inf, True)],
)
def test_uncertainty_is_limited_for_learned_modes_only(uncertainty: float, refused: bool) -> None:
    frame = services(applied=[[20.0]])
    for mode in Mode.PLAN, Mode.FOLLOW, Mode.ACTOR:
        action, reasons, out = one(
            AUTOSCALE,
            frame,
            25.0,
            fallback=[[18.0]],
            uncertainty=np.array([uncertainty]),
            mode=np.array([mode], np.uint8),
        )
        assert (Reason.UNCERTAIN in reasons) is refused
        assert out == (Mode.FALLBACK if refused else mode)
        assert action[0] == (18.0 if refused else 25.0)
    spare = np.array([Mode.FALLBACK], np.uint8)
    _, reasons, _ = one(AUTOSCALE, frame, 25.0, uncertainty=np.array([uncertainty]), mode=spare)
    assert Reason.UNCERTAIN not in reasons


@pytest.mark.parametrize(("own", "refused"), [(0.2, True), (0.25, False), (9.0, False)])
def test_a_bundle_brings_a_limit_of_its_own(own: float, refused: bool) -> None:
    frame = services(applied=[[20.0]])
    uncertainty = np.array([0.25])
    free = edited("autoscale", ("gate: {max_uncertainty: 0.3, stale_after: 45 s}", "gate: {}"))
    for spec in (AUTOSCALE, free):  # of the spec's limit, 0.3, and the bundle's the lower counts
        more = {"uncertainty": uncertainty, "max_uncertainty": own}
        _, reasons, mode = one(spec, frame, 25.0, **more)
        assert (Reason.UNCERTAIN in reasons) is refused
        assert mode == (Mode.FALLBACK if refused else Mode.PLAN)
    beyond = {"uncertainty": np.array([0.31]), "max_uncertainty": own}
    assert Reason.UNCERTAIN in one(AUTOSCALE, frame, 25.0, **beyond)[1]


def test_without_a_limit_uncertainty_is_ignored() -> None:
    free = edited("autoscale", ("gate: {max_uncertainty: 0.3, stale_after: 45 s}", "gate: {}"))
    frame = services(applied=[[20.0]], age=1e6)
    action, reasons, _ = one(free, frame, 25.0, uncertainty=np.array([np.inf]))
    assert (action[0], reasons) == (25.0, Reason(0))  # neither is there a limit on age


@pytest.mark.parametrize(
    ("age", "stale"), [(45.0, False), (45.001, True), (np.nan, True), (0.0, False)]
)
def test_stale_observations_bring_the_fallback(age: float, stale: bool) -> None:
    frame = services(applied=[[20.0]])
    frame.ages[0, 2] = age
    action, reasons, mode = one(AUTOSCALE, frame, 25.0, fallback=[[18.0]])
    assert (Reason.STALE in reasons) is stale
    assert action[0] == (18.0 if stale else 25.0)
    assert mode == (Mode.FALLBACK if stale else Mode.PLAN)


@pytest.mark.parametrize(
    ("risk", "refused"),
    [(0.25, False), (np.nextafter(0.25, 1), True), (np.nan, True), (np.inf, True), (0.0, False)],
)
def test_the_critic_refuses_what_it_finds_too_risky_and_allows_nothing(
    risk: float, refused: bool
) -> None:
    frame = services(applied=[[20.0]])
    for mode in Mode.PLAN, Mode.FOLLOW, Mode.ACTOR:
        made = {"mode": np.array([mode], np.uint8), "risk": np.array([risk])}
        action, reasons, out = one(WATCHED, frame, 25.0, fallback=[[18.0]], **made)
        assert reasons == (Reason.SAFETY if refused else Reason(0))
        assert (action[0], out) == ((18.0, Mode.FALLBACK) if refused else (25.0, mode))
        assert one(WATCHED, frame, 99.0, **made)[1] & Reason.RATE or refused
        unsure = one(WATCHED, frame, 25.0, uncertainty=np.array([9.0]), **made)
        assert Reason.UNCERTAIN in unsure[1]
        assert one(AUTOSCALE, frame, 25.0, **made)[1] == Reason(0)  # its spec asks for none
    spare = {"mode": np.array([Mode.FALLBACK], np.uint8), "risk": np.array([risk])}
    assert one(WATCHED, frame, 25.0, **spare)[1] == Reason(0)
    assert one(WATCHED, frame, 25.0)[1] == Reason(0)  # there is no critic


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.FOLLOW, Mode.ACTOR, Mode.FALLBACK])
def test_who_is_latched_gets_the_fallback(mode: Mode) -> None:
    frame, made = services(applied=[[20.0]]), np.array([mode], np.uint8)
    closed = np.array([True])
    action, reasons, out = one(AUTOSCALE, frame, 25.0, fallback=[[18.0]], mode=made, latched=closed)
    assert action[0] == (25.0 if mode == Mode.FALLBACK else 18.0)  # explored, perhaps
    assert (reasons, out) == (Reason.LATCHED, Mode.FALLBACK)
    action, reasons, out = one(AUTOSCALE, frame, 25.0, mode=made, latched=~closed)
    assert (action[0], reasons, out) == (25.0, Reason(0), mode)


def test_operators_act_for_the_latched() -> None:
    control = ControlView(overrides={"e000": {"replicas": 22.0}})
    frame, closed = services(applied=[[20.0]], control=control), np.array([True])
    action, reasons, mode = one(AUTOSCALE, frame, 25.0, fallback=[[18.0]], latched=closed)
    assert (action[0], mode) == (22.0, Mode.OVERRIDE)
    assert reasons == Reason.LATCHED | Reason.OVERRIDE


def test_the_latch_still_lets_the_checks_before_it_say_what_they_found() -> None:
    frame, closed = services(applied=[[20.0]]), np.array([True])
    doubt = np.array([9.0])
    _, reasons, _ = one(AUTOSCALE, frame, 25.0, uncertainty=doubt, latched=closed)
    assert reasons & (Reason.UNCERTAIN | Reason.LATCHED) == Reason.UNCERTAIN | Reason.LATCHED


def test_no_belief_no_model_and_late() -> None:
    frame = services(applied=[[20.0]])
    spare = [[18.0]]
    action, reasons, mode = one(AUTOSCALE, frame, 25.0, fallback=spare, believed=np.array([False]))
    assert (action[0], reasons, mode) == (18.0, Reason.NO_BELIEF, Mode.FALLBACK)
    action, reasons, mode = one(AUTOSCALE, frame, 25.0, fallback=spare, model=False)
    assert (action[0], reasons, mode) == (18.0, Reason.NO_MODEL, Mode.FALLBACK)
    action, reasons, mode = one(AUTOSCALE, frame, 25.0, fallback=spare, late=True)
    assert (action[0], reasons, mode) == (25.0, Reason.LATE, Mode.PLAN)


def test_a_proposal_of_another_shape_is_replaced_as_a_whole() -> None:
    frame = services(3, applied=[[20.0]] * 3)
    spare = np.full((3, 1), 18.0)
    for shape in ((2, 1), (3, 2), (3,), (), (3, 1, 1)):
        out = gate(AUTOSCALE, np.full(shape, 25.0), spare, frame, frame.applied, np.zeros(3))
        assert (out.action == 18.0).all()
        assert (out.reasons == Reason.SHAPE).all()
        assert (out.mode == Mode.FALLBACK).all()


def test_hold_keeps_the_applied_value() -> None:
    for holds in (("*",), ("e000",)):
        frame = services(applied=[[20.0]], control=ControlView(holds=holds))
        action, reasons, mode = one(AUTOSCALE, frame, 25.0)
        assert (action[0], reasons, mode) == (20.0, Reason.HOLD, Mode.HOLD)
    frame = services(applied=[[20.0]], control=ControlView(holds=("another",)))
    assert one(AUTOSCALE, frame, 25.0)[2] == Mode.PLAN


def test_a_hold_of_an_unknown_value_is_refused() -> None:
    frame = services(control=ControlView(holds=("*",)))
    out = gate(AUTOSCALE, np.full((1, 1), 25.0), np.ones((1, 1)), frame, frame.applied, np.zeros(1))
    assert out.mode[0] == Mode.REFUSED
    assert np.isnan(out.action[0, 0])
    assert not out.published[0]
    assert out.reasons[0] == Reason.HOLD


def test_an_override_is_emitted_within_range_and_rate() -> None:
    cases = {
        30.0: (30.0, Reason(0)),
        90.0: (40.0, Reason.RATE),
        300.0: (40.0, Reason.RATE | Reason.RANGE),
    }
    for wanted, (expected, more) in cases.items():
        control = ControlView(overrides={"e000": {"replicas": wanted}})
        frame = services(applied=[[20.0]], control=control)
        action, reasons, mode = one(AUTOSCALE, frame, 25.0)
        assert (action[0], reasons, mode) == (expected, Reason.OVERRIDE | more, Mode.OVERRIDE)


def test_an_override_of_all_counts_for_each_that_has_none_of_its_own() -> None:
    control = ControlView(overrides={"*": {"replicas": 24.0}, "e001": {"replicas": 22.0}})
    frame, plan = services(3, applied=[[20.0]] * 3, control=control), np.full((3, 1), 25.0)
    out = gate(AUTOSCALE, plan, plan, frame, frame.applied, np.zeros(3))
    assert out.action.ravel().tolist() == [24.0, 22.0, 24.0]
    assert (out.mode == Mode.OVERRIDE).all()


def test_overrides_that_mean_nothing_are_ignored() -> None:
    control = ControlView(
        overrides={"e000": {"nothing": 3.0, "replicas": np.nan}, "unknown": {"replicas": 3.0}}
    )
    _, reasons, mode = one(AUTOSCALE, services(applied=[[20.0]], control=control), 25.0)
    assert (reasons, mode) == (Reason(0), Mode.PLAN)


def test_an_override_of_one_actuator_leaves_the_other_to_the_planner() -> None:
    control = ControlView(overrides={"e000": {"acceleration[1]": -0.5}})
    action, _, mode = one(NAV, robots(control=control), [0.25, 0.75])
    assert action.tolist() == [0.25, -0.5]
    assert mode == Mode.OVERRIDE


def test_hold_goes_before_override() -> None:
    control = ControlView(holds=("*",), overrides={"e000": {"replicas": 30.0}})
    action, reasons, mode = one(AUTOSCALE, services(applied=[[20.0]], control=control), 25.0)
    assert action[0] == 20.0
    assert reasons == Reason.HOLD | Reason.OVERRIDE
    assert mode == Mode.HOLD


@pytest.mark.parametrize(("x", "wanted", "expected"), [(14.5, 0.5, 0.5), (14.75, 0.5, 0.25)])
def test_hard_constraints_are_projected(x: float, wanted: float, expected: float) -> None:
    action, reasons, mode = one(HARD, robots(x=x), [wanted, 0.125])
    assert action == pytest.approx([expected, 0.125], abs=1e-7)
    assert x + action[0] <= 15.0
    assert (Reason.CONSTRAINT in reasons) is (wanted != expected)
    assert mode == Mode.PLAN


def test_a_barrier_brakes_before_the_wall_and_needs_no_fallback() -> None:
    x = v = 0.0
    seen, closest = Reason(0), 0.0
    for _ in range(600):
        frame = make_frame(WALLED, [[x, 0.0, v, 0.0, 0.0, 0.0]])
        action, reasons, mode = one(WALLED, frame, [1.0, 0.25])  # towards it, always
        assert mode == Mode.PLAN
        assert action[1] == 0.25
        x, v = x + 0.1 * v + 0.005 * action[0], v + 0.1 * action[0]
        assert x + 4 * v <= 15.0
        seen, closest = seen | reasons, max(closest, x)
    assert seen == Reason.CONSTRAINT
    assert 14.9 < closest <= 15.0


@pytest.mark.parametrize("gamma", [0.1, 0.3, 0.5, 1.0])
def test_gamma_says_how_fast_the_margin_may_shrink(gamma: float) -> None:
    spec = walled(gamma)
    frame = make_frame(spec, [[14.0, 0.0, 0.0, 0.0, 0.0, 0.0]])  # a metre left: 0.405 a <= gamma
    action, _, _ = one(spec, frame, [1.0, 0.0])
    assert action[0] == pytest.approx(min(1.0, gamma / 0.405), abs=1e-7)


def test_who_is_beyond_a_barrier_comes_back_and_who_cannot_falls_back() -> None:
    frame = make_frame(WALLED, [[15.1, 0.0, 0.0, 0.0, 0.0, 0.0]])
    action, reasons, mode = one(WALLED, frame, [1.0, 0.0])
    assert action[0] == pytest.approx(-0.01 / 0.405, abs=1e-7)
    assert (reasons, mode) == (Reason.CONSTRAINT, Mode.PLAN)
    fast = make_frame(WALLED, [[15.0, 0.0, 9.0, 0.0, 0.0, 0.0]])
    action, reasons, mode = one(WALLED, fast, [1.0, 0.0], fallback=[[-1.0, 0.0]])
    assert (action[0], reasons, mode) == (-1.0, Reason.CONSTRAINT, Mode.FALLBACK)


def test_what_cannot_be_projected_becomes_the_fallback() -> None:
    action, reasons, mode = one(HARD, robots(x=17.0), [0.5, 0.5], fallback=[[-0.25, 0.0]])
    assert action.tolist() == [-0.25, 0.0]
    assert (reasons, mode) == (Reason.CONSTRAINT, Mode.FALLBACK)
    action, reasons, mode = one(HARD, robots(x=np.nan), [0.5, 0.5], fallback=[[-0.25, 0.0]])
    assert (reasons, mode) == (Reason.CONSTRAINT, Mode.FALLBACK)


def test_constraints_mark_operators_and_the_fallback_but_leave_them() -> None:
    control = ControlView(overrides={"e000": {"acceleration[0]": 1.0}})
    action, reasons, mode = one(HARD, robots(x=14.5, control=control), [0.0, 0.0])
    assert action[0] == 1.0
    assert (reasons, mode) == (Reason.OVERRIDE | Reason.CONSTRAINT, Mode.OVERRIDE)
    action, reasons, mode = one(
        HARD, robots(x=14.5), [1.0, 0.0], mode=np.array([Mode.FALLBACK], np.uint8)
    )
    assert action[0] == 1.0
    assert (reasons, mode) == (Reason.CONSTRAINT, Mode.FALLBACK)


def test_beside_an_operators_value_no_learned_one_breaks_a_constraint() -> None:
    control = ControlView(overrides={"e000": {"acceleration[1]": 0.25}})
    here = robots(x=14.5, control=control)
    action, reasons, mode = one(HARD, here, [1.0, 1.0], fallback=[[-0.5, -1.0]])
    assert action.tolist() == [-0.5, 0.25]
    assert (reasons, mode) == (Reason.OVERRIDE | Reason.CONSTRAINT, Mode.OVERRIDE)
    action, _, _ = one(HARD, here, [0.5, 1.0], fallback=[[-0.5, -1.0]])
    assert action.tolist() == [0.5, 0.25]  # nothing is broken: the planner's stands


@pytest.mark.parametrize("mode", list(Mode))
def test_a_learned_proposal_alone_is_blamed_and_for_its_own_faults(mode: Mode) -> None:
    by = np.array([mode], np.uint8)
    learned = mode in (Mode.PLAN, Mode.FOLLOW, Mode.ACTOR)
    here, spare = robots(x=14.5), np.array([[1.0, 0.0]])  # the fallback breaks it as well
    out = gate(HARD, np.array([[1.0, 0.0]]), spare, here, here.applied, np.zeros(1), mode=by)
    assert out.reasons[0] == Reason.CONSTRAINT
    assert out.blamed[0] == (Reason.CONSTRAINT if learned else 0)
    control = ControlView(overrides={"e000": {"acceleration[0]": 1.0}})
    here = robots(x=14.5, control=control)
    out = gate(HARD, np.zeros((1, 2)), spare, here, here.applied, np.zeros(1), mode=by)
    assert out.reasons[0] == Reason.CONSTRAINT | Reason.OVERRIDE
    assert out.blamed[0] == 0, "the operator broke it"
    shut = np.array([True])
    out = gate(
        HARD,
        np.zeros((1, 2)),
        spare,
        robots(x=14.5),
        here.applied,
        np.zeros(1),
        mode=by,
        latched=shut,
    )
    assert (Reason.CONSTRAINT in Reason(int(out.reasons[0]))) is learned, "of the fallback"
    assert out.blamed[0] == (Reason.LATCHED if learned else 0)


def test_projected_whole_numbers_stay_on_the_safe_side() -> None:
    frame = services(requests=70.0, applied=[[20.0]])  # at least 23.3 replicas
    action, reasons, _ = one(WHOLE, frame, 21.0)
    assert action[0] == 24.0
    assert reasons == Reason.CONSTRAINT
    low = edited(
        "autoscale",
        ("requests <= 0.95 * 3 * ready", "3 * replicas <= requests"),
        ("kind: soft", "kind: hard"),
    )
    action, _, _ = one(low, frame, 30.0)
    assert action[0] == 23.0


def test_a_fallback_that_is_not_finite_becomes_the_safe_value() -> None:
    action, reasons, _ = one(NAV, robots(), [np.nan, 0.0], fallback=[[np.inf, np.nan]])
    assert action.tolist() == [0.0, 0.0]
    assert reasons == Reason.NOT_FINITE


@pytest.mark.parametrize(("spare", "expected"), [(99.0, 40.0), (2.0, 15.0), (21.6, 22.0)])
def test_a_fallback_outside_the_envelope_is_moved_into_it_without_a_word(
    spare: float, expected: float
) -> None:
    frame = services(applied=[[20.0]])  # 15 to 40
    action, reasons, mode = one(AUTOSCALE, frame, np.nan, fallback=[[spare]])
    assert (action[0], reasons, mode) == (expected, Reason.NOT_FINITE, Mode.FALLBACK)


def test_a_fallback_is_not_rounded_into_a_proposal_of_whole_numbers() -> None:
    whole: Any = np.ones((1, 2), dtype=np.int64)
    frame, spare = robots(), np.array([[0.5, -0.25]])
    out = gate(NAV, whole, spare, frame, frame.applied, np.zeros(1), believed=np.array([False]))
    assert out.action.dtype == np.float64
    assert out.action.tolist() == [[0.5, -0.25]]


def test_the_list_of_checks_is_complete() -> None:
    """Each reason that the gate can give has a check; nothing is checked twice."""
    assert len(set(CHECKS)) == len(CHECKS)
    text = " ".join(check.__name__ for check in CHECKS)
    for word in (
        "finite",
        "range",
        "rate",
        "acceleration",
        "rounding",
        "constraints",
        "uncertainty",
        "safety",
        "latch",
        "stale",
        "hold",
        "override",
        "belief",
        "model",
        "shape",
    ):
        assert f"check_{word}" in text
