"""When ticks close: passed, silent, late, promised, held back; under both clocks."""

import numpy as np
import pytest

from streams.align import Aligner
from streams.desk import Clock
from tests.streams.align_line import MS, TWO, mark, read, spec_of


def ticks(aligner: Aligner, now_ms: float | None = None) -> list[int]:
    now = None if now_ms is None else round(now_ms * MS)
    return [frame.tick for frame in aligner.close(now)]


def started(spec_text: str = "", every: str = "10 ms") -> Aligner:
    """An aligner whose first tick is closed, with entity `ant`."""
    aligner = Aligner(spec_of(more=spec_text, every=every))
    read(aligner, [(10, 1.0)])
    if spec_text:
        read(aligner, [(10, 1.0)], "two")
    mark(aligner, 10, "one", *(["two"] if spec_text else []))
    assert ticks(aligner) == [1]
    return aligner


def test_a_tick_closes_when_every_sensor_has_passed_it() -> None:
    aligner = started(TWO)
    read(aligner, [(19, 2.0), (20, 3.0)])
    assert ticks(aligner) == []
    read(aligner, [(21, 5.0)], "two")
    (frame,) = aligner.close()
    assert (frame.tick, frame.header.closed_by) == (2, "passed")
    np.testing.assert_array_equal(frame.values[0, :2], [3.0, 1.0])


def test_a_blind_reading_passes_its_tick() -> None:
    aligner = started()
    read(aligner, [(20, np.nan)])
    assert ticks(aligner) == [2]


def test_lateness_closes_what_nobody_passed_and_refuses_what_comes_then() -> None:
    aligner = started(TWO)
    read(aligner, [(20, 3.0), (30, 4.0), (39.999, 5.0)])
    assert ticks(aligner) == []
    read(aligner, [(40, 6.0)])
    (frame,) = aligner.close()
    assert (frame.tick, frame.header.closed_by) == (2, "lateness")
    read(aligner, [(20, 9.0), (25, 8.0)], "two")
    letters = aligner.dead_letters()
    assert [(x.reason, x.offset, x.entity, x.time_us) for x in letters] == [
        ("late", 2, "ant", 20 * MS)  # the other is of tick 3, which is open; the watermark was 1
    ]


def test_a_silent_sensor_holds_up_nothing() -> None:
    aligner = started(TWO)  # both silent after three ticks
    for ms in range(20, 80, 10):
        read(aligner, [(ms, 1.0)])
    closed = aligner.close()
    reasons = [(frame.tick, frame.header.closed_by) for frame in closed]
    # `two` was last heard at tick 1: it blocks 2, 3 and 4, which go by lateness, and no more.
    assert reasons == [(2, "lateness"), (3, "lateness"), (4, "lateness")] + [
        (tick, "passed") for tick in (5, 6, 7)
    ]


def test_a_sensor_faster_than_the_ticks_is_silent_after_three_ticks() -> None:
    aligner = started(TWO, every="1 ms")
    read(aligner, [(20, 1.0)], "two")
    assert ticks(aligner) == []  # 10 of its periods, but one tick
    read(aligner, [(20, 1.0)])
    assert ticks(aligner) == [2]


def test_the_first_tick_of_a_cohort_waits_for_who_else_may_come() -> None:
    aligner = Aligner(spec_of())
    read(aligner, [(10, 1.0), (29, 1.0)])
    assert ticks(aligner) == []
    read(aligner, [(10, 2.0)], entity="bee")
    read(aligner, [(30, 1.0)])
    (frame,) = aligner.close()
    assert (frame.tick, frame.entities) == (1, ("ant", "bee"))


def test_a_watermark_counts_when_every_partition_has_one() -> None:
    spec = spec_of()
    aligner = Aligner(spec, partitions={"line.sensors.one": 2})
    read(aligner, [(10, 1.0)])
    aligner.watermark("line.sensors.one", 10 * MS, partition=0)
    assert ticks(aligner) == []
    aligner.watermark("line.sensors.one", 10 * MS, partition=1)
    assert ticks(aligner) == [1]


def test_reports_are_waited_for_once_their_topic_has_watermarks() -> None:
    aligner = Aligner(spec_of())
    read(aligner, [(10, 1.0)])
    aligner.watermark("line.applied", 10 * MS)
    mark(aligner, 10)
    assert ticks(aligner) == [1]
    read(aligner, [(20, 1.0)])
    assert ticks(aligner) == []
    aligner.watermark("line.applied", 20 * MS)
    assert ticks(aligner) == [2]


def test_a_lagging_source_holds_back_what_it_has_not_reached() -> None:
    aligner = started()
    aligner.lagging({("line.sensors.one", 1): True})
    read(aligner, [(20, 1.0), (90, 1.0)])
    assert ticks(aligner) == []
    rows = aligner.intern(["bee"])
    aligner.readings("one", rows, np.array([25 * MS]), np.array([[1.0]]), 1, np.array([0]))
    assert ticks(aligner) == [2]
    aligner.lagging({("line.sensors.one", 1): False})
    assert ticks(aligner) == [3, 4, 5, 6, 7, 8, 9]
    assert "late" not in aligner.counters


def test_lateness_waits_until_every_partition_of_a_sensor_was_asked() -> None:
    names = {"line.sensors.one": 2}
    aligner = Aligner(spec_of(), partitions=names, patient=True, start_tick=1)

    def say(name: str, times: list[int], partition: int, offset: int) -> None:
        rows = aligner.intern([name] * len(times))
        places = np.arange(offset, offset + len(times))
        values = np.ones((len(times), 1))
        aligner.readings("one", rows, np.array(times) * MS, values, partition, places)

    say("ant", list(range(10, 100, 10)), 0, 0)
    aligner.settle(0)
    assert ticks(aligner) == []  # nine ticks ahead, and the other partition was not read
    say("bee", [9, 19, 28], 1, 0)
    aligner.settle(0)
    assert ticks(aligner) == []
    say("bee", [40], 1, 3)
    aligner.settle(0)
    assert ticks(aligner) == [1, 2, 3, 4]  # both were read up to 40 ms
    assert "late" not in aligner.counters
    aligner.settle(90 * MS)  # and now it is said that nothing else was there
    assert ticks(aligner) == [5, 6, 7, 8, 9]
    say("bee", [50], 1, 4)
    assert aligner.counters["late"] == 1


def test_under_the_wall_clock_lateness_is_real_time() -> None:
    aligner = Aligner(spec_of(), clock="wall")
    read(aligner, [(10, 1.0), (91, 1.0)])
    assert ticks(aligner, 29.9) == []
    assert ticks(aligner, 30) == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # then it is passed up to 91 ms
    assert ticks(aligner, 119.9) == []
    assert ticks(aligner, 120) == [10]


SLOW = """
  two:
    every: 100 ms
    max_age: 300 ms
    channels: {{y: {{unit: m, range: [-100, 100], align: {align}}}}}
"""


def wall(align: str = "latest", at_ms: float = 10) -> Aligner:
    """Under the wall clock; `one` comes with the ticks, `two` every tenth, first at `at_ms`."""
    aligner = Aligner(spec_of(more=SLOW.format(align=align)), clock="wall")
    read(aligner, [(at_ms, 1.0)], "two")
    read(aligner, [(10, 1.0)])
    assert ticks(aligner, 30) == [1]  # it waits for who else may come
    return aligner


@pytest.mark.parametrize("at_ms", [10, 3, 7.4])
def test_a_sensor_slower_than_the_ticks_holds_up_those_that_it_may_be_of(at_ms: float) -> None:
    aligner = wall(at_ms=at_ms)
    for ms in range(20, 110, 10):
        read(aligner, [(ms, 1.0)])
        assert ticks(aligner, max(ms + 1, 31)) == [ms // 10]
    read(aligner, [(110, 1.0)])
    assert ticks(aligner, 111) == []  # due now
    read(aligner, [(at_ms + 100, 2.0)], "two")
    (frame,) = aligner.close(112 * MS)
    assert (frame.tick, frame.values[0, 1], frame.header.closed_by) == (11, 2.0, "passed")


def test_a_slow_sensor_that_is_late_holds_up_until_lateness_or_silence() -> None:
    aligner = wall()
    for ms in range(20, 340, 10):
        read(aligner, [(ms, 1.0)])
        late = 110 <= ms <= 310
        assert ticks(aligner, max(ms + 1, 31)) == ([] if late else [ms // 10])
        if late:
            (frame,) = aligner.close((ms + 20) * MS)
            assert (frame.tick, frame.header.closed_by) == (ms // 10, "lateness")


@pytest.mark.parametrize(("at_ms", "waits"), [(2.5, True), (2.501, False)])
def test_a_slow_sensor_may_come_early_by_a_quarter_of_a_tick(at_ms: float, waits: bool) -> None:
    aligner = wall(at_ms=at_ms)
    for ms in range(20, 110, 10):
        read(aligner, [(ms, 1.0)])
    assert ticks(aligner, 101) == list(range(2, 10 if waits else 11))
    read(aligner, [(99, 3.0)], "two")
    assert aligner.counters.get("late", 0) == (0 if waits else 1)


@pytest.mark.parametrize("clock", ["event", "wall"])
def test_a_tick_waits_for_the_later_neighbour_that_linear_needs(clock: Clock) -> None:
    aligner = wall("linear")
    read(aligner, [(20, 1.0)])
    assert ticks(aligner, 31) == []
    assert ticks(aligner, 40) == [2]


def test_no_tick_closes_before_its_time_for_a_clock_that_is_ahead() -> None:
    aligner = wall()
    read(aligner, [(20, 1.0)], entity="bee")
    assert ticks(aligner, 31) == []  # ant is expected
    read(aligner, [(20, 1.0), (30, 1.0), (40, 1.0)])
    read(aligner, [(30, 1.0), (40, 1.0)], entity="bee")
    assert ticks(aligner, 31) == [2, 3]
    assert ticks(aligner, 40) == [4]  # `two` of ant could still come


def test_the_event_clock_can_be_told_the_end() -> None:
    aligner = started()
    read(aligner, [(15, 1.0)])
    assert ticks(aligner) == []
    assert ticks(aligner, 40) == [2]


def test_ticks_before_the_start_are_late() -> None:
    aligner = Aligner(spec_of(), start_tick=3)
    read(aligner, [(15, 1.0), (25, 2.0)])
    mark(aligner, 30)
    assert [(frame.tick, frame.values[0, 0]) for frame in aligner.close()] == [(3, 2.0)]
    assert [letter.reason for letter in aligner.dead_letters()] == ["late"]


@pytest.mark.parametrize("ahead", [None, 1_000 * MS])
def test_times_out_of_this_world_are_refused(ahead: int | None) -> None:
    aligner = Aligner(spec_of(), ahead_us=ahead)
    read(aligner, [(10, 1.0)])
    read(aligner, [(1e13, 1.0), (2_000, 1.0)])
    reasons = [letter.reason for letter in aligner.dead_letters()]
    assert reasons == (["future"] if ahead is None else ["future", "future"])


def test_frames_come_by_tick_and_cohort() -> None:
    aligner = Aligner(spec_of(cohorts=4))
    names = [f"animal-{i}" for i in range(12)]
    for ms in range(10, 60, 10):
        for name in reversed(names):
            read(aligner, [(ms, 1.0)], entity=name)
    mark(aligner, 50)
    frames = aligner.close()
    places = [(frame.tick, frame.cohort) for frame in frames]
    assert places == sorted(places)
    assert len(places) == 5 * len({frame.cohort for frame in frames})
    assert sorted(name for frame in frames if frame.tick == 3 for name in frame.entities) == sorted(
        names
    )


@pytest.mark.parametrize("clock", ["wall", "event"])
def test_a_fleet_that_begins_is_taken_at_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = Aligner(spec_of(more=TWO), clock)
    if clock == "wall":
        aligner.close(5 * MS)
    advances: list[None] = []
    monkeypatch.setattr(aligner, "_advance", lambda: advances.append(None))
    rows = aligner.intern([f"robot-{i}" for i in range(100)])
    for sensor in ("one", "two"):
        aligner.readings(sensor, rows, np.full(100, 10 * MS), np.ones((100, 1)))
    assert len(advances) == 2, "once for each batch, not for each entity"
