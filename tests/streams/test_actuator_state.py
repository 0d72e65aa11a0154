"""The actuator's rules: one answer per tick, nothing out of range, silence and holds answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import Mode, Status
from schemas.messages import Action, Applied, Control, action_id
from streams.actuator_state import ActuatorState, Report
from tests.streams.specs import action, small_spec

SPEC = small_spec()
S = SPEC.period_us
NAMES = ("a", "b", "c")
SAFE = (0.25, 0.0)


def state(**options: Any) -> ActuatorState:
    return ActuatorState(SPEC, NAMES, **options)


def values(report: Report | None) -> tuple[float, ...]:
    assert report is not None
    return tuple(report.applied.values.values())


def status(report: Report | None) -> Status:
    assert report is not None
    return Status(report.applied.status)


def test_the_first_action_of_a_tick_counts_and_only_that() -> None:
    s = state()
    first = s.offer(action(SPEC, "a", 5, 0.5, 2), 5 * S)
    assert (status(first), values(first)) == (Status.APPLIED, (0.5, 2.0))
    assert s.offer(action(SPEC, "a", 5, 0.9, 3), 5 * S) is None  # a second attempt
    assert s.offer(action(SPEC, "a", 4, 0.9, 3), 5 * S) is None  # an older tick
    assert tuple(s.values[0]) == (0.5, 2.0)
    assert (s.counts["applied"], s.counts["repeated"], s.counts["older"]) == (1, 1, 1)
    assert s.waiting(5) == 2
    assert s.waiting(6) == 3


@pytest.mark.parametrize(
    "wrong",
    [(1.5, 2), (-0.1, 2), (0.5, 1.5), (0.5, 5), (float("nan"), 2), (float("inf"), 2)],
)
def test_what_is_out_of_range_is_refused_and_changes_nothing(wrong: tuple[float, float]) -> None:
    s = state()
    report = s.offer(action(SPEC, "a", 1, *wrong), S)
    assert (status(report), values(report)) == (Status.REFUSED, SAFE)
    assert s.offer(action(SPEC, "a", 1, 0.5, 2), S) is None, "an id has one answer"


def test_missing_and_surplus_columns_are_refused() -> None:
    s = state()
    good = action(SPEC, "a", 1, 0.5, 2)
    short = msgspec.structs.replace(good, values={"valve": 0.5})
    other = msgspec.structs.replace(good, tick=2, values={"valve": 0.5, "pump": 1.0})
    assert status(s.offer(short, S)) is Status.REFUSED
    assert status(s.offer(other, S)) is Status.REFUSED
    gate = msgspec.structs.replace(good, tick=3, mode=int(Mode.REFUSED))
    assert status(s.offer(gate, S)) is Status.REFUSED


def test_an_action_is_valid_until_its_last_microsecond() -> None:
    s = state()
    late = action(SPEC, "a", 1, 0.5, 2)
    assert status(s.offer(late, late.valid_until)) is Status.APPLIED
    later = action(SPEC, "a", 2, 0.6, 2)
    report = s.offer(later, later.valid_until + 1)
    assert (status(report), values(report)) == (Status.EXPIRED, (0.5, 2.0))


def test_silence_brings_the_local_fallback_once_a_tick() -> None:
    s = ActuatorState(SPEC, ("a",))
    until = action(SPEC, "a", 3, 0.5, 2).valid_until
    s.offer(action(SPEC, "a", 3, 0.5, 2), 3 * S)
    assert s.due(until) == []
    (report,) = s.due(until + 1)
    # The valve has a fallback of its own; the pumps have none and keep what is in force.
    assert (status(report), values(report)) == (Status.LOCAL_FALLBACK, (0.25, 2.0))
    assert (report.applied.tick, report.changed) == (4, True)
    assert report.applied.id == action_id(SPEC.system, "a", 4)
    assert s.due(until + 2) == []
    assert [(r.applied.tick, r.changed) for r in s.due(5 * S)] == [(5, False)]
    assert status(s.offer(action(SPEC, "a", 5, 0.7, 1), 5 * S + 1)) is Status.APPLIED
    assert s.due(6 * S) == []


def test_who_never_hears_anything_falls_back_after_the_grace() -> None:
    s = state(start_us=10 * S, grace_us=S)
    assert s.due(11 * S - 1) == []
    assert [r.applied.entity for r in s.due(11 * S)] == list(NAMES)


def test_giving_up_closes_the_tick() -> None:
    s = state()
    s.offer(action(SPEC, "b", 7, 0.5, 2), 7 * S)
    reports = s.give_up(7, 7 * S)
    assert [(r.applied.entity, r.applied.tick) for r in reports] == [("a", 7), ("c", 7)]
    assert s.waiting(7) == 0
    assert s.offer(action(SPEC, "a", 7, 0.5, 2), 7 * S) is None


def test_a_hold_needs_no_worker_and_lets_nothing_new_through() -> None:
    s = state()
    s.offer(action(SPEC, "a", 1, 0.5, 2), S)
    s.offer(action(SPEC, "b", 1, 0.5, 2), S)
    (report,) = s.control(Control("hold", S, "a"), S + 1)
    assert (report.applied.entity, values(report)) == ("a", (0.25, 2.0))
    refused = s.offer(action(SPEC, "a", 2, 0.9, 3), 2 * S)
    assert (status(refused), values(refused)) == (Status.REFUSED, (0.25, 2.0))
    same = s.offer(action(SPEC, "a", 3, 0.25, 2), 3 * S)
    assert status(same) is Status.APPLIED, "what changes nothing may pass"
    assert status(s.offer(action(SPEC, "b", 2, 0.9, 3), 2 * S)) is Status.APPLIED
    s.control(Control("resume", 3 * S, "a"), 3 * S)
    assert status(s.offer(action(SPEC, "a", 4, 0.9, 3), 4 * S)) is Status.APPLIED


def test_a_hold_of_all_and_one_from_a_later_time() -> None:
    s = state()
    s.control(Control("hold", 9 * S), S)
    assert not s.held("a")
    s.control(Control("hold", S, "c"), S)
    assert (s.held("a"), s.held("c")) == (False, True), "a later one does not hold up others"
    assert {r.applied.entity for r in s.due(9 * S)} == set(NAMES)
    assert s.held("a")
    s.control(Control("resume", 9 * S), 9 * S)
    assert (s.held("a"), s.held("c")) == (False, True), "the resume of all lifts the hold of all"


def test_other_controls_and_foreign_actions_are_not_for_us() -> None:
    s = state()
    assert s.control(Control("release", 0, bundle="x"), S) == []
    assert s.offer(action(SPEC, "stranger", 1, 0.5, 2), S) is None
    other = action(small_spec("other"), "a", 1, 0.5, 2)
    assert s.offer(other, S) is None
    assert (s.counts["foreign"], s.waiting(0)) == (2, 3)


def test_an_open_actuator_serves_whoever_is_named() -> None:
    s = ActuatorState(SPEC)
    for i in range(40):
        assert s.offer(action(SPEC, f"e{i}", 1, 0.5, i % 5), S) is not None
    assert s.values.shape == (40, 2)
    assert s.values[:, 1].tolist() == [i % 5 for i in range(40)]
    assert len(s.due(10 * S)) == 40


def test_a_restart_takes_over_what_was_reported() -> None:
    s = state()
    s.restore(Applied("x", "a", 9, {"valve": 0.7, "pumps": 1.0}, 2, 9 * S))
    s.restore(Applied("x", "a", 8, {"valve": 0.1, "pumps": 3.0}, 2, 8 * S))
    assert s.offer(action(SPEC, "a", 9, 0.9, 3), 9 * S) is None
    assert tuple(s.values[0]) == (0.7, 1.0)


ACTIONS = st.builds(
    lambda entity, tick, valve, pumps, valid: action(
        SPEC, entity, tick, valve, pumps, valid_us=valid
    ),
    st.sampled_from((*NAMES, "stranger")),
    st.integers(0, 6),
    st.floats(-0.5, 1.5) | st.just(float("nan")),
    st.integers(-1, 6) | st.floats(0, 4),
    st.integers(0, 3 * S),
)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, S // 2),
        ACTIONS | st.builds(Control, st.sampled_from(["hold", "resume"]), st.just(0),
                            st.sampled_from(("*", *NAMES))),
    ),
    max_size=60,
)  # fmt: skip


def play(events: Sequence[tuple[int, Action | Control]], repeat: bool = False) -> tuple[Any, ...]:
    s, now, reports = state(), 0, []
    for wait, event in events:
        now += wait
        reports += s.due(now)
        for _ in range(2 if repeat else 1):
            if isinstance(event, Control):
                reports += s.control(event, now)
            else:
                held = s.held(event.entity)
                before = s.values.copy()
                report = s.offer(event, now)
                reports += [] if report is None else [report]
                assert not (held and not np.array_equal(before, s.values)), "a hold was broken"
    return s, reports


@given(EVENTS)
def test_whatever_comes_each_tick_is_answered_once_and_in_range(
    events: list[tuple[int, Action | Control]],
) -> None:
    s, reports = play(events)
    answered = [(r.slot, r.applied.tick) for r in reports if r.mode >= 0]
    assert len(answered) == len(set(answered))
    for slot in range(len(NAMES)):
        ticks = [r.applied.tick for r in reports if r.mode >= 0 and r.slot == slot]
        assert ticks == sorted(ticks)
        mine = [r for r in reports if r.slot == slot]
        assert tuple(s.values[slot]) == (values(mine[-1]) if mine else SAFE)
    matrix = np.array([values(r) for r in reports]).reshape(-1, 2)
    assert ((matrix >= SPEC.action_low) & (matrix <= SPEC.action_high)).all()
    assert (matrix[:, 1] == np.rint(matrix[:, 1])).all()
    times = [r.applied.time for r in reports]
    assert times == sorted(times)


@given(EVENTS)
def test_repeated_messages_change_nothing(events: list[tuple[int, Action | Control]]) -> None:
    actions = [(wait, event) for wait, event in events if isinstance(event, Action)]
    once, twice = play(actions), play(actions, repeat=True)
    assert once[1] == twice[1]
    assert np.array_equal(once[0].values, twice[0].values)
