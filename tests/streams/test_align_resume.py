"""Restarts: where to read from, how far it had been read, and what is passed over on the way."""

import numpy as np
import pytest

from schemas.frames import Frame
from streams.align import Aligner
from streams.align_resume import last_frames, newest_times, seek_offsets
from tests.streams.align_line import MS, mark, read, spec_of

TOPIC = "line.sensors.one"


def run(align: str = "latest") -> tuple[Aligner, list[Frame]]:
    aligner = Aligner(spec_of(align))
    read(aligner, [(10, 1.0), (20, 2.0), (24, 3.0), (37, 4.0)])  # offsets 0 to 3
    mark(aligner, 20)  # offset 4
    return aligner, aligner.close()


def test_a_frame_says_where_what_waits_began_and_how_far_was_read() -> None:
    _, frames = run()
    assert [frame.tick for frame in frames] == [1, 2, 3]
    last = frames[-1].header
    # Tick 3 closed with the reading of 37 ms, which was the last one read, and waits.
    assert last.positions[TOPIC][0] >= 4
    assert last.offsets[TOPIC][0] <= 3
    assert last.seen_us == 37 * MS


def test_an_aligner_goes_on_with_the_next_tick_and_a_higher_epoch() -> None:
    undisturbed, frames = run()
    again = Aligner(spec_of())
    seek = again.restore(frames)
    assert again.epoch == 1
    begin = seek[TOPIC][0]
    log = [(10, 1.0), (20, 2.0), (24, 3.0), (37, 4.0)]
    read(again, log[begin:])
    again.consumed(TOPIC, 0, 5)
    for aligner in (again, undisturbed):
        read(aligner, [(44, 5.0)])
    expected, found = undisturbed.close(), again.close()
    assert [frame.tick for frame in found] == [frame.tick for frame in expected] == [4]
    np.testing.assert_array_equal(found[0].values, expected[0].values)
    np.testing.assert_array_equal(found[0].ages, expected[0].ages)
    assert found[0].flags.tolist() == [0]  # it had joined before
    assert again.dead_letters() == []


def test_the_neighbour_of_a_linear_channel_is_read_again() -> None:
    aligner = Aligner(spec_of("linear"))
    read(aligner, [(9, 0.0), (39, 30.0)])
    mark(aligner, 30)
    frames = aligner.close()
    found = {frame.tick: frame.values[0, 0] for frame in frames}
    assert found == pytest.approx({1: 1.0, 2: 11.0, 3: 21.0})
    first = [frame for frame in frames if frame.tick == 1]
    again = Aligner(spec_of("linear"))
    assert again.restore(first)[TOPIC][0] == 0
    read(again, [(9, 0.0), (39, 30.0)])
    again.watermark(TOPIC, 30 * MS)
    assert {f.tick: f.values[0, 0] for f in again.close()} == {2: found[2], 3: found[3]}


def test_nothing_closes_before_it_is_read_as_far_as_before() -> None:
    _, frames = run()
    again = Aligner(spec_of())
    again.restore(frames)
    position = frames[-1].header.positions[TOPIC][0]
    rows, values = again.intern(["ant"]), np.array([[9.0]])
    again.readings("one", rows, np.array([58 * MS]), values, 0, np.array([position - 1]))
    assert [frame.tick for frame in again.close()] == [4, 5]
    other = Aligner(spec_of())
    other.restore(frames)
    other.readings("one", rows, np.array([58 * MS]), values, 0, np.array([position - 2]))
    assert other.close() == []


def test_what_was_late_is_late_again_and_what_was_used_is_passed_over() -> None:
    aligner, frames = run()
    read(aligner, [(15, 7.0)])
    assert [letter.offset for letter in aligner.dead_letters()] == [5]
    again = Aligner(spec_of())
    again.restore(frames)
    rows = again.intern(["ant"] * 3)
    times = np.array([10, 20, 15]) * MS
    again.readings("one", rows, times, np.ones((3, 1)), 0, np.array([0, 1, 5]))
    assert [letter.offset for letter in again.dead_letters()] == [5]


def test_without_frames_there_is_nothing_to_go_on_from() -> None:
    aligner = Aligner(spec_of(), epoch=4)
    assert aligner.restore([]) == {}
    assert aligner.epoch == 4


def test_the_last_frame_of_a_cohort_counts_and_left_cohorts_do_not() -> None:
    spec = spec_of(cohorts=4, forget="50 ms")
    aligner = Aligner(spec)
    frames: list[Frame] = []
    for ms in range(10, 310, 10):
        if ms == 10:
            read(aligner, [(ms, 1.0)], entity="bee")
        read(aligner, [(ms, 1.0)], entity="ant")
        mark(aligner, ms)
        frames += aligner.close()
    last = last_frames(spec, frames)
    cohorts = {name: frame.cohort for frame in frames for name in frame.entities}
    assert cohorts["ant"] != cohorts["bee"]
    assert {c: f.tick for c, f in last.by_cohort.items()} == {
        cohorts["ant"]: 30,
        cohorts["bee"]: 6,
    }
    assert [frame.cohort for frame in last.current] == [cohorts["ant"]]
    assert seek_offsets(last.current) == last.current[0].header.offsets


def test_times_come_back_to_the_microsecond() -> None:
    spec = spec_of(forget="20 min")
    aligner = Aligner(spec)
    read(aligner, [(10, 1.0)])
    mark(aligner, 10)
    read(aligner, [(17.891, 1.0)])
    mark(aligner, 20)
    aligner.close()
    for ms in (9_000, 90_000, 900_000):
        mark(aligner, ms)
        assert newest_times(spec, aligner.close()[-1]).tolist() == [[17_891]]
