"""Back-pressure: a backlog that shrinks is read, one that does not is passed over."""

from hypothesis import given
from hypothesis import strategies as st

from streams.backlog import STILL_S, Backlog

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
    Whatever happens, what is read was there for 5 s at most once the first jump was made.
    """
    read, high, looks, shed = 0.0, backlog, Backlog(), []
    written: list[float] = []
    for step in range(round(seconds / STEP_S)):
        passed = STEP_S + stop_s * (step == round(seconds / STEP_S / 2))
        high += load * passed
        written.append(high)
        read = max(read, min(high - load * STEP_S, read + capacity * STEP_S))
        over = looks.look(passed, {PLACE: int(read)}, lambda end=int(high): {PLACE: end})  # type: ignore[misc]
        if over:
            assert over[PLACE] <= high - load * STEP_S, "the newest stays"
            shed.append(over[PLACE] - read)
            read = over[PLACE]
        if shed and len(written) > 100:
            assert read >= written[-100]
    return shed


@given(
    load=st.floats(100, 10_000),
    part=st.floats(1.25, 10),
    backlog=st.floats(0, 100_000),
    stop_s=st.just(0) | st.floats(STILL_S, 100),
)
def test_what_can_be_caught_up_with_is_never_shed(
    load: float, part: float, backlog: float, stop_s: float
) -> None:
    assert run(load, capacity=load * part, backlog=backlog, stop_s=stop_s) == []


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
    assert not any(looks.look(20.0, {PLACE: 0}, lambda: {PLACE: 1_000}) for _ in range(8))
    assert any(looks.look(0.25, {PLACE: 0}, lambda: {PLACE: 1_000}) for _ in range(8))
