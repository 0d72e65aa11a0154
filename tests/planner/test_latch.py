"""The latch: closed by what counts alone, opened by an operator or by quiet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner import latch
from planner.latch import NEVER, REARMED, SINCE, State
from schemas.codes import Reason
from schemas.frames import ControlView, Frame
from schemas.spec_parts import LatchSpec
from schemas.system import SpecError, SystemSpec, parse_spec
from tests.planner.worlds import make_frame
from tests.support import shipped_text

U, OK = int(Reason.UNCERTAIN), 0


def spec_with(**given: Any) -> SystemSpec:
    return parse_spec(shipped_text("nav2d", gate={"latch": given}))


TWICE = spec_with(count=2, of=3)
QUIET = spec_with(count=1, of=1, quiet="250 ms")  # of ticks of 100 ms: three


def at(tick: int, count: int = 1, **rearms: int) -> Frame:
    control = ControlView(rearms={name.replace("all", "*"): at for name, at in rearms.items()})
    return make_frame(TWICE, np.zeros((count, 6)), tick=tick, control=control)


def turn(spec: SystemSpec, state: State, frame: Frame, reasons: int) -> tuple[bool, State]:
    """Whether the entity is latched at the tick, and the state after it."""
    state = latch.rearmed(spec, frame, state)
    shut = bool(latch.closed(spec, state)[0])
    return shut, latch.after(spec, frame, state, np.full(len(state), reasons, np.uint32))


def closes(spec: SystemSpec, *reasons: int) -> bool:
    state = latch.fresh(1)
    for tick, bits in enumerate(reasons):
        state = turn(spec, state, at(tick), bits)[1]
    return bool(latch.closed(spec, state)[0])


@pytest.mark.parametrize(
    ("reasons", "shut"),
    [
        ((U,), False),
        ((U, U), True),
        ((U, OK, U), True),
        ((U, OK, OK, U), False),  # the first is out of the last three
        ((U, OK, OK, U, OK, U), True),
        ((OK, OK, OK), False),
        ((U, int(Reason.RATE), int(Reason.STALE | Reason.HOLD)), False),  # these do not count
        ((U, int(Reason.CONSTRAINT)), False),
        ((U, int(Reason.SAFETY | Reason.RATE)), True),
    ],
)
def test_it_closes_after_so_many_of_the_last_decisions(
    reasons: tuple[int, ...], shut: bool
) -> None:
    assert closes(TWICE, *reasons) is shut


def test_the_kinds_that_count_are_the_specs() -> None:
    spec = spec_with(on=["rate", "no_belief"])
    assert closes(spec, int(Reason.RATE))
    assert closes(spec, int(Reason.NO_BELIEF))
    assert not closes(spec, U)


def test_each_kind_is_a_reason_of_its_name() -> None:
    for kind in LatchSpec(on=("range",)).on:
        assert closes(spec_with(on=[kind]), int(Reason[kind.upper()]))
    for kind in LatchSpec().on:
        assert closes(spec_with(), int(Reason[kind.upper()]))


def test_it_stays_closed_without_a_cause_until_an_operator_opens_it() -> None:
    state = latch.fresh(1)
    for tick in range(2):
        state = turn(TWICE, state, at(tick), U)[1]
    for tick in range(2, 200):
        shut, state = turn(TWICE, state, at(tick), OK)
        assert shut
    assert state[0, SINCE] == 1
    shut, state = turn(TWICE, state, at(200, e000=5), OK)
    assert not shut
    assert state[0].tolist() == [0, 1, NEVER, 5]


def test_an_operators_word_opens_it_once() -> None:
    state = latch.fresh(1)
    for tick in range(2):
        state = turn(TWICE, state, at(tick), U)[1]
    assert not turn(TWICE, state, at(2, all=5), U)[0]
    state = turn(TWICE, state, at(2, all=5), U)[1]
    state = turn(TWICE, state, at(3, all=5), U)[1]
    shut, state = turn(TWICE, state, at(4, all=5), OK)
    assert shut, "the word was obeyed before it closed again"
    assert turn(TWICE, state, at(5, all=4), OK)[0], "an older word"
    assert turn(TWICE, state, at(5, e001=9), OK)[0], "of another entity"
    assert turn(TWICE, state, at(5), OK)[0], "a word that was taken back"
    assert not turn(TWICE, state, at(5, all=6), OK)[0]


def test_a_word_forgets_what_was_counted_before() -> None:
    state = turn(TWICE, latch.fresh(1), at(0), U)[1]
    state = turn(TWICE, state, at(1, all=1), U)[1]
    assert not latch.closed(TWICE, state)[0]


@pytest.mark.parametrize(("tick", "shut"), [(1, True), (2, True), (3, False), (9, False)])
def test_a_quiet_time_opens_it(tick: int, shut: bool) -> None:
    state = turn(QUIET, latch.fresh(1), at(0), U)[1]
    assert turn(QUIET, state, at(tick), OK)[0] is shut


def test_an_operator_opens_one_that_would_open_by_itself_as_well() -> None:
    state = turn(QUIET, latch.fresh(1), at(0), U)[1]
    assert not turn(QUIET, state, at(1, e000=5), OK)[0]


def test_quiet_counts_from_the_last_intervention() -> None:
    state = turn(QUIET, latch.fresh(1), at(0), U)[1]
    state = turn(QUIET, state, at(2), U)[1]
    assert turn(QUIET, state, at(4), OK)[0]
    assert not turn(QUIET, state, at(5), OK)[0]


def test_quiet_forgets_nothing_of_who_is_not_latched() -> None:
    spec = spec_with(count=2, of=2, quiet="100 ms")
    state = turn(spec, latch.fresh(1), at(0), U)[1]
    assert latch.closed(spec, turn(spec, state, at(9), U)[1])[0]


def test_entities_are_apart() -> None:
    state = latch.fresh(3)
    frame = at(0, 3)
    for _ in range(2):
        state = latch.after(TWICE, frame, state, np.array([U, 0, U], np.uint32))
    assert latch.closed(TWICE, state).tolist() == [True, False, True]
    opened = latch.rearmed(TWICE, at(1, 3, e002=1), state)
    assert latch.closed(TWICE, opened).tolist() == [True, False, False]
    assert opened[:, REARMED].tolist() == [0, 0, 1]


def test_without_a_latch_in_the_spec_nothing_is_counted_or_closed() -> None:
    free = parse_spec(shipped_text("nav2d"))
    state = latch.fresh(1)
    state[0, SINCE] = 0  # of another spec, that had one
    shut, after = turn(free, state, at(1, all=3), U)
    assert not shut
    np.testing.assert_array_equal(after, state)
    assert free.gate.latch is None
    assert "latch" not in free.model_dump()["gate"]  # its hash stays what it was


def test_states_are_never_changed_in_place() -> None:
    state = turn(TWICE, latch.fresh(1), at(0), U)[1]
    kept = state.copy()
    free = latch.rearmed(TWICE, at(1, all=3), state)
    after = latch.after(TWICE, at(1), state, np.full(1, U, np.uint32))
    np.testing.assert_array_equal(state, kept)
    assert (free != kept).any()
    assert (after != kept).any()


def test_a_log_gives_the_state_back() -> None:
    state = latch.fresh(3)
    state[1] = [5, 7, 6, 2]
    told = latch.logged(("a", "b", "c"), state)
    assert told == {"b": [5, 7, 6, 2]}
    np.testing.assert_array_equal(latch.from_log(("a", "b", "c"), told), state)
    np.testing.assert_array_equal(latch.from_log(("c",), told), latch.fresh(1))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"count": 3, "of": 2}, "count 3 of the last 2 cannot be"),
        ({"count": 0}, r"count: Input should be greater than or equal to 1"),
        ({"of": 63}, r"of: Input should be less than or equal to 62"),
        ({"on": []}, r"on: .* at least 1"),
        ({"on": ["rate", "rate"]}, "each kind in `on` once"),
        ({"on": ["late"]}, r"on\.0: Input should be 'not_finite'"),
        ({"quiet": 5}, r"quiet: write a duration"),
    ],
)
def test_a_latch_that_cannot_be_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        spec_with(**given)


def test_the_longest_window() -> None:
    spec = spec_with(count=62, of=62)
    assert closes(spec, *[U] * 62)
    assert not closes(spec, *[U] * 61)
