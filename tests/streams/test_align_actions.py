"""Which action a frame shows: that of the tick before, as reported, else as issued or known."""

import numpy as np

from schemas.codes import Status
from schemas.frames import Frame
from streams.align import Aligner
from tests.streams.align_line import mark, read, spec_of


def until(aligner: Aligner, tick: int) -> list[Frame]:
    """Closes up to `tick`, one after the other."""
    frames: list[Frame] = []
    for ms in range(10, 10 * tick + 1, 10):
        if not frames or frames[-1].tick < ms // 10:
            read(aligner, [(ms, 1.0)])
            mark(aligner, ms)
            frames += aligner.close()
    return frames


def report(aligner: Aligner, tick: int, value: float, status: Status = Status.APPLIED) -> None:
    row = aligner.intern(["ant"])
    aligner.applied(row, np.array([tick]), np.array([[value]]), np.array([status]))


def issue(aligner: Aligner, tick: int, value: float) -> None:
    aligner.issued(aligner.intern(["ant"]), np.array([tick]), np.array([[value]]))


def shown(frames: list[Frame]) -> dict[int, tuple[float, Status]]:
    return {f.tick: (float(f.applied[0, 0]), Status(int(f.status[0]))) for f in frames}


def test_without_any_action_there_is_none() -> None:
    aligner = Aligner(spec_of())
    (frame,) = until(aligner, 1)
    assert np.isnan(frame.applied).all()
    assert frame.status.tolist() == [Status.NONE]


def test_a_report_counts_for_the_interval_after_its_tick() -> None:
    aligner = Aligner(spec_of())
    report(aligner, 1, 0.5)
    report(aligner, 2, 0.6, Status.LOCAL_FALLBACK)
    found = shown(until(aligner, 3))
    assert found[2] == (0.5, Status.APPLIED)
    assert found[3] == (0.6, Status.LOCAL_FALLBACK)


def test_without_a_report_the_first_action_issued_is_assumed() -> None:
    aligner = Aligner(spec_of())
    issue(aligner, 1, 0.1)
    issue(aligner, 1, 0.9)
    assert shown(until(aligner, 2))[2] == (0.1, Status.UNKNOWN)


def test_a_late_report_corrects_the_next_frame() -> None:
    aligner = Aligner(spec_of())
    report(aligner, 0, 0.3)
    issue(aligner, 1, 0.1)
    assert shown(until(aligner, 2))[2] == (0.1, Status.UNKNOWN)
    report(aligner, 1, 0.2, Status.REFUSED)
    assert shown(until(aligner, 3))[3] == (0.2, Status.REFUSED)
    assert aligner.counters["applied_late"] == 1


def test_what_was_reported_last_stays_in_force() -> None:
    aligner = Aligner(spec_of())
    report(aligner, 1, 0.5)
    found = shown(until(aligner, 5))
    assert [found[tick] for tick in (2, 3, 4, 5)] == [(0.5, Status.APPLIED)] * 4


def test_a_report_from_ahead_is_not_shown_too_early() -> None:
    aligner = Aligner(spec_of())
    report(aligner, 1, 0.5)
    report(aligner, 4, 0.8)
    found = shown(until(aligner, 5))
    assert [found[tick][0] for tick in (2, 3, 4, 5)] == [0.5, 0.5, 0.5, 0.8]


def test_reports_are_forgotten_as_entities_are() -> None:
    aligner = Aligner(spec_of(forget="30 ms"))
    report(aligner, 1, 0.5)
    found = shown(until(aligner, 8))
    applied = [tick for tick, (_, status) in found.items() if status == Status.APPLIED]
    assert applied == [2, 3, 4, 5]
    assert found[6][1] == Status.NONE
