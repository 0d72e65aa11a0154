"""Back-pressure: a backlog that shrinks fast is read, any other is passed over."""

from hypothesis import given
from hypothesis import strategies as st

from streams.backlog import BEHIND_S, CATCH_UP_S, STILL_S, TREND_S, Backlog

PLACE = ("zoo.sensors.a", 0)
STEP_S = 0.05


def run(
    load: float,
    capacity: float,
    backlog: float = 0.0,
    seconds: float = 60.0,
    stop_s: float = 0.0,
) -> list[float]:
    """[jumps] how many records each time; loads and capacities are records a second.

    Half-way the reader stands still for `stop_s`; there are always some records that are not read.
    Whatever happens, what is read was there for 5 s at most once the first jump was made, and soon
    after the start, or after a stop.
    """
    read, high, looks, shed = 0.0, backlog, Backlog(), []
    written: list[float] = []
    waited = TREND_S + CATCH_UP_S + 1.5  # what is a second behind is no backlog
    since = 0
    for step in range(round(seconds / STEP_S)):
        passed = STEP_S + stop_s * (step == round(seconds / STEP_S / 2))
        high += load * passed
        written.append(high)
        since = step if passed > STEP_S else since
        read = max(read, min(high - load * STEP_S, read + capacity * STEP_S))
        over = looks.look(passed, {PLACE: int(read)}, lambda end=int(high): {PLACE: end})  # type: ignore[misc]
        if over:
            assert over[PLACE] <= high - load * STEP_S, "the newest stays"
            shed.append(over[PLACE] - read)
            read = over[PLACE]
        if len(written) > 100 and (shed or (step - since) * STEP_S > waited):
            assert read >= written[-100]
    return shed


@given(
    load=st.floats(100, 10_000),
    part=st.floats(1.25, 10),
    share=st.floats(0, 0.9),
    stopped=st.booleans(),
)
def test_what_can_be_caught_up_with_soon_is_never_shed(
    load: float, part: float, share: float, stopped: bool
) -> None:
    behind_s = share * (TREND_S + CATCH_UP_S) * (part - 1)
    stop_s = behind_s if stopped and behind_s > STILL_S else 0.0
    assert run(load, load * part, backlog=load * behind_s, stop_s=stop_s) == []


@given(
    load=st.floats(100, 10_000),
    part=st.floats(1.05, 4),
    longer=st.floats(1.3, 10),
    stopped=st.booleans(),
)
def test_what_would_take_long_is_shed_once_and_no_more_than_was_there(
    load: float, part: float, longer: float, stopped: bool
) -> None:
    behind_s = BEHIND_S + longer * (TREND_S + CATCH_UP_S) * (part - 1)
    shed = run(load, load * part, load * behind_s, stop_s=behind_s if stopped else 0.0)
    assert len(shed) == 1 + stopped
    assert max(shed) <= load * behind_s


@given(load=st.floats(100, 10_000), part=st.floats(0.1, 0.8), backlog=st.floats(0, 10_000))
def test_of_what_is_too_much_no_more_is_shed_than_must_be(
    load: float, part: float, backlog: float
) -> None:
    seconds = 60.0
    shed = sum(run(load, load * part, backlog, seconds))
    must = (1 - part) * load * seconds + backlog
    assert must - 6 * load - backlog <= shed <= must + STEP_S * load * seconds


def test_a_machine_that_stands_still_is_not_overloaded() -> None:
    looks = Backlog()
    ends = iter(range(1_000, 2_000))
    assert not any(looks.look(20.0, {PLACE: 0}, lambda: {PLACE: next(ends)}) for _ in range(8))
    assert any(looks.look(0.25, {PLACE: 0}, lambda: {PLACE: next(ends)}) for _ in range(8))


def test_what_came_last_is_read_also_when_nothing_comes_after_it() -> None:
    """A stream may end, or be slower than the looks (found by chaos seed 811)."""
    looks, passed_over = Backlog(), list[int]()
    came = [1_000] * 4 + [1_010] * 20 + [1_020] * 20  # seldom, and many at once
    for end in came:
        over = looks.look(0.25, {PLACE: 0}, lambda end=end: {PLACE: end})  # type: ignore[misc]
        passed_over += over.values()
        assert over.get(PLACE, 0) in (0, end - 10)
    assert passed_over


def test_a_partition_that_has_ended_is_read_while_others_grow() -> None:
    looks, ended = Backlog(), ("zoo.sensors.b", 1)
    read = {PLACE: 0, ended: 0}
    overs = [looks.look(0.25, read, lambda n=n: {PLACE: n, ended: 50}) for n in range(1, 40)]  # type: ignore[misc]
    assert any(PLACE in over for over in overs)
    assert not any(ended in over for over in overs)
