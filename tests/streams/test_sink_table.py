"""Rows of the sink: what the log says, which attempt counted, and the record to be made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import arrow_io
from schemas.arrow_io import HEADER_KEY, FrameError
from schemas.codes import Status
from schemas.frames import encode_frame
from schemas.messages import Applied, action_id
from schemas.trajectories import decode_trajectory, log_table
from streams.sink_table import PATIENCE_S, SETTLE_S, SILENT_S, Reports, read_frame, table_of
from tests.streams.frames import cohort_names, decisions, frame, trajectory
from tests.streams.specs import shipped_spec, small_spec

SPEC = small_spec()


def applied(entity: str, tick: int, status: Status = Status.APPLIED, valve: float = 0.5) -> Applied:
    identity = action_id(SPEC.system, entity, tick)
    return Applied(identity, entity, tick, {"valve": valve, "pumps": 2.0}, int(status), 0)


@pytest.mark.parametrize("size", [0, 3])
def test_the_columns_are_those_of_the_log_and_the_records_coordinates(size: int) -> None:
    data = [
        trajectory(SPEC, 0, tick, b"row" if tick == 64 else None, size=size) for tick in (63, 64)
    ]
    read = [read_frame(0, 10 + i, 1_000, value) for i, value in enumerate(data)]
    made = table_of(SPEC, read, Reports())
    of = frame(SPEC, 0, 63)
    expected = log_table(SPEC, of, decisions(SPEC, of, size=size))
    extra = ["action_id", "outcome", "counted", "partition", "offset", "header", "row"]
    assert made.column_names == [*expected.column_names, *extra]
    n = len(cohort_names(SPEC, 0))
    first = made.drop_columns(extra).slice(0, n)
    assert first.schema.equals(expected.schema)
    assert repr(first.to_pydict()) == repr(expected.to_pydict())  # a NaN equals itself here
    assert made.column("offset").to_pylist() == [10] * n + [11] * n
    assert made.column("row").to_pylist() == [None] * n + [b"row"] + [None] * (n - 1)
    ids = made.column("action_id").to_pylist()
    assert ids[-1] == action_id(SPEC.system, cohort_names(SPEC, 0)[-1], 64)
    decode_trajectory(SPEC, data[0])  # the header is the record's own, in the first row
    assert '"tick":63' in made.column("header").to_pylist()[0]
    assert made.column("header").null_count == 2 * n - 2


def test_the_first_attempt_with_the_applied_values_counts() -> None:
    names = cohort_names(SPEC, 0)
    reports = Reports()
    first, second, third = (
        read_frame(0, i, 0, trajectory(SPEC, 0, 7, valve=valve, attempt=i))
        for i, valve in enumerate((0.4, 0.5, 0.5))
    )
    assert not reports.settled(first, 0.0)
    for name in names:
        reports.add(applied(name, 7), 0)
        reports.add(applied(name, 7, Status.LOCAL_FALLBACK, 0.25), 0)  # after its time ran out
    assert reports.settled(first, 0.0)
    table = table_of(SPEC, [first, second, third], reports)
    n = len(names)
    assert table.column("counted").to_pylist() == [False] * n + [True] * n + [False] * n
    assert set(table.column("outcome").to_pylist()) == {Status.APPLIED}
    # A sink that restarts is told what counted, and does not count the third one either.
    later = Reports()
    later.remember(0, 7, names)
    for name in names:
        later.add(applied(name, 7), 0)
    assert table_of(SPEC, [third], later).column("counted").to_pylist() == [False] * n


def test_reports_that_lag_behind_are_waited_for() -> None:
    """Rows were stored a second after they came, unreported (found by chaos seed 716)."""
    names, reports, at_ms = cohort_names(SPEC, 0), Reports(), 5_000
    soon_ms, later_ms = at_ms + round(1e3 * SETTLE_S), at_ms + round(1e3 * SETTLE_S) + 1
    read = read_frame(0, 0, at_ms, trajectory(SPEC, 0, 7))
    assert not reports.settled(read, SILENT_S)
    assert reports.settled(read, SILENT_S + 0.1)  # nobody ever reported
    for name in names:
        reports.add(applied(name, 6), at_ms)
    assert not reports.settled(read, PATIENCE_S)
    for name in names:  # falling back, before it applies what is late (seed 748)
        reports.add(applied(name, 9, Status.LOCAL_FALLBACK), soon_ms)
    assert not reports.settled(read, PATIENCE_S)
    for name in names:
        assert not reports.settled(read, PATIENCE_S)
        reports.add(applied(name, 8), later_ms)
    assert not reports.settled(read, SETTLE_S)  # clocks may differ
    assert reports.settled(read, SETTLE_S + 0.1)
    for name in names:
        assert not reports.settled(read, SETTLE_S)
        reports.add(applied(name, 7), later_ms)
    assert reports.settled(read, 0.0)


def test_actuators_that_fall_silent_are_waited_for_once() -> None:
    names, reports = cohort_names(SPEC, 0), Reports()
    for name in names:
        reports.add(applied(name, 6), 0)
    frames = [read_frame(0, tick, 0, trajectory(SPEC, 0, tick)) for tick in (7, 8)]
    assert not reports.settled(frames[0], PATIENCE_S)
    assert reports.settled(frames[0], PATIENCE_S + 0.1)
    assert not reports.settled(frames[1], SILENT_S)
    assert reports.settled(frames[1], SILENT_S + 0.1)


def test_what_was_held_back_does_not_count_and_its_belief_is_compared() -> None:
    """A twin asked for what was applied, and its row came first; the other worker sent it."""
    names, reports = cohort_names(SPEC, 0), Reports()
    sent = read_frame(0, 1, 0, trajectory(SPEC, 0, 7))
    kept = replace(sent, held=True, worker="twin-0", offset=0)
    for name in names:
        reports.add(applied(name, 7), 0)
    n = len(names)
    table = table_of(SPEC, [kept, sent], reports)
    assert table.column("counted").to_pylist() == [False] * n + [True] * n
    assert [reports.unlike(one) for one in (sent, kept, replace(kept, belief="other"))] == [
        False,
        False,
        True,
    ]
    assert not reports.unlike(replace(kept, belief="another bundle's", bundle="another"))


def test_what_was_not_applied_does_not_count() -> None:
    names = cohort_names(SPEC, 0)
    reports = Reports()
    reports.add(applied(names[0], 7, Status.EXPIRED, 0.1), 0)
    read = read_frame(0, 0, 0, trajectory(SPEC, 0, 7))
    table = table_of(SPEC, [read], reports)
    assert not any(table.column("counted").to_pylist())
    expected = [Status.EXPIRED] + [Status.UNKNOWN] * (len(names) - 1)
    assert table.column("outcome").to_pylist() == expected
    reports.forget(8)
    assert set(table_of(SPEC, [read], reports).column("outcome").to_pylist()) == {Status.UNKNOWN}


def test_frames_of_one_layout_fit_into_one_table() -> None:
    """Without a model, with one, and with a larger one; not with other columns."""
    read = [read_frame(0, 0, 0, trajectory(SPEC, 0, 7, size=size)) for size in (0, 3, 4)]
    assert len({one.layout for one in read}) == 1
    table = table_of(SPEC, read, Reports())
    n = len(cohort_names(SPEC, 0))
    assert [len(row) for row in table.column("hidden").to_pylist()] == [0] * n + [3] * n + [4] * n
    other = shipped_spec("nav2d", "tanks")
    assert read_frame(0, 0, 0, trajectory(other, 0, 7)).layout != read[0].layout


def nested() -> bytes:
    """A record batch whose header is nested deeper than any decoder goes."""
    batch, metadata = arrow_io.read_batch(trajectory(SPEC, 0, 7))
    deep = b"[" * 10_000 + b"]" * 10_000
    return arrow_io.write_batch(batch.schema, batch.columns, {**metadata, HEADER_KEY: deep})


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", encode_frame(SPEC, frame(SPEC, 0, 1)), nested()]
)
def test_other_records_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(FrameError, match=r"not a"):
        read_frame(0, 0, 0, data)
