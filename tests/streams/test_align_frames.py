"""What stands in a frame besides its channels: joined and left, context, episodes, operators."""

import numpy as np

from schemas.codes import Flag
from schemas.context import context_values
from schemas.frames import decode_frame, encode_frame
from schemas.messages import Control
from streams.align import Aligner
from tests.streams.align_line import MS, mark, read, spec_of


def test_entities_join_leave_and_come_back() -> None:
    aligner = Aligner(spec_of(forget="50 ms"))
    for ms in range(10, 130, 10):
        if ms in (20, 110):
            read(aligner, [(ms, ms / 10)], entity="bee")
        read(aligner, [(ms, 1.0)])
    mark(aligner, 120)
    frames = {frame.tick: frame for frame in aligner.close()}
    there = [tick for tick, frame in frames.items() if "bee" in frame.entities]
    assert there == [2, 3, 4, 5, 6, 7, 11, 12]
    assert [tick for tick, frame in frames.items() if frame.header.left] == [8]
    assert frames[8].header.left == ("bee",)
    joined = [
        (tick, name)
        for tick, frame in frames.items()
        for name, flags in zip(frame.entities, frame.flags, strict=True)
        if flags & Flag.JOINED
    ]
    assert joined == [(1, "ant"), (2, "bee"), (11, "bee")]
    assert frames[11].values[1, 0] == 11.0


def test_what_was_held_is_forgotten_with_the_entity() -> None:
    more = (
        "  two:\n    every: 10 ms\n    max_age: 10 s\n    channels: {y: {unit: m, range: [0, 9]}}"
    )
    aligner = Aligner(spec_of(more=more, forget="50 ms"))
    read(aligner, [(10, 1.0)], "two")
    read(aligner, [(100, 2.0)])
    mark(aligner, 100, "one", "two")
    last = aligner.close()[-1]
    assert last.tick == 10
    np.testing.assert_array_equal(last.values[0, :2], [2.0, np.nan])
    np.testing.assert_array_equal(last.ages[0], np.array([0.0, np.nan], dtype=np.float32))


def test_cohorts_without_entities_make_no_frames() -> None:
    aligner = Aligner(spec_of(forget="20 ms"))
    read(aligner, [(10, 1.0)])
    mark(aligner, 90)
    read(aligner, [(95, 1.0)])
    mark(aligner, 100)
    assert [frame.tick for frame in aligner.close()] == [1, 2, 3, 10]


def test_context_is_that_of_the_tick() -> None:
    aligner = Aligner(spec_of())
    read(aligner, [(10, 1.0)])
    mark(aligner, 10)
    frame = aligner.close()[0]
    np.testing.assert_array_equal(frame.values[0, 1:], context_values(["time_of_day"], 10 * MS))


def test_the_end_of_an_episode_flags_the_next_frame_once() -> None:
    aligner = Aligner(spec_of())
    aligner.reset(aligner.intern(["ant"]), 21 * MS)
    read(aligner, [(ms, 1.0) for ms in range(10, 60, 10)])
    mark(aligner, 50)
    flags = {frame.tick: int(frame.flags[0]) & Flag.RESET for frame in aligner.close()}
    assert [tick for tick, flag in flags.items() if flag] == [3]


def test_a_frame_says_what_operators_said_by_its_time() -> None:
    aligner = Aligner(spec_of())
    aligner.control(Control("hold", 15 * MS, "ant"))
    aligner.control(Control("resume", 35 * MS, "ant"))
    aligner.control(Control("release", 30 * MS, bundle="b1"))
    read(aligner, [(ms, 1.0) for ms in range(10, 60, 10)])
    mark(aligner, 50)
    views = {frame.tick: frame.header.control for frame in aligner.close()}
    assert [tick for tick, view in views.items() if view.holds == ("ant",)] == [2, 3]
    assert [tick for tick, view in views.items() if view.bundle == "b1"] == [3, 4, 5]


def test_times_that_float32_ages_cannot_hold_stand_in_the_header() -> None:
    spec = spec_of(forget="100 s")
    aligner = Aligner(spec)
    read(aligner, [(10, 1.0)])
    mark(aligner, 10)
    read(aligner, [(10.123, 1.0)])
    mark(aligner, 40_000)
    frames = aligner.close()
    assert frames[10].header.exact_us == ()
    last = decode_frame(spec, encode_frame(spec, frames[-1]))
    assert last.header.exact_us == ((0, 0, 10_123),)
