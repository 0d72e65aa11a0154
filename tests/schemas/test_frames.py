"""Frames and trajectory frames survive their way through bytes, and garbage is told apart."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas import arrow_io, trajectories
from schemas import frames as frames_module
from schemas.arrow_stamp import Stamp
from schemas.frames import (
    ControlView,
    Frame,
    FrameError,
    FrameHeader,
    decode_frame,
    encode_frame,
)
from schemas.system import load_spec
from schemas.trajectories import (
    Decisions,
    decode_trajectory,
    encode_trajectory,
    log_table,
    trajectory_schema,
)

SPEC = load_spec("nav2d")
WIDTH, A, CH = len(SPEC.columns), len(SPEC.action_columns), len(SPEC.channels)


def matrix(rows: int, columns: int, dtype: Any) -> st.SearchStrategy[Any]:
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(dtype, (rows, columns), elements=st.floats(width=width, allow_nan=True))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    rows = draw(st.integers(0, 5))
    header = FrameHeader(
        system="nav2d",
        cohort=draw(st.integers(0, 3)),
        tick=draw(st.integers(0, 2**40)),
        time_us=draw(st.integers(0, 2**52)),
        epoch=draw(st.integers(0, 9)),
        interface_hash=SPEC.interface_hash,
        offsets=draw(st.dictionaries(st.text(max_size=5), st.just({0: 3, 11: 2**40}))),
        control=ControlView(holds=("*",), overrides={"r0": {"acceleration[0]": 0.5}}),
        left=("r9",),
        closed_by=draw(st.sampled_from(["passed", "lateness"])),
        counters={"late": 3},
    )
    names = draw(st.lists(st.text(max_size=9), min_size=rows, max_size=rows))
    codes = hnp.arrays(np.uint8, (rows,))
    return Frame(
        header,
        tuple(names),
        draw(matrix(rows, WIDTH, np.float64)),
        draw(matrix(rows, CH, np.float32)),
        draw(matrix(rows, A, np.float64)),
        draw(codes),
        draw(codes),
    )


def assert_same(left: Any, right: Any) -> None:
    for item in dataclasses.fields(left):
        a, b = getattr(left, item.name), getattr(right, item.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, item.name


@given(frames())
@settings(deadline=None)
def test_a_frame_survives(frame: Frame) -> None:
    assert_same(decode_frame(SPEC, encode_frame(SPEC, frame)), frame)


@given(frames(), st.integers(0, 2**40))
@settings(deadline=None)
def test_a_frame_is_written_like_the_one_before_it(frame: Frame, tick: int) -> None:
    encode_frame(SPEC, frame)
    header = dataclasses.replace(frame.header, tick=tick, left=())
    order = slice(None, None, -1)
    numbers = (frame.values[order], frame.ages[order], frame.applied[order])
    after = Frame(header, frame.entities, *numbers, frame.status[order], frame.flags[order])
    assert_same(decode_frame(SPEC, encode_frame(SPEC, after)), after)


@pytest.mark.parametrize("rows", [*range(1, 10), 63, 64, 65])
def test_a_frame_is_read_like_the_one_before_it(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = sample_frame(rows), sample_frame(rows + 1)
    rng = np.random.default_rng(rows)
    for frame in (first, other):
        decode_frame(SPEC, encode_frame(SPEC, frame))
    with monkeypatch.context() as patch:
        patch.setattr(arrow_io, "read_batch", lambda *_: pytest.fail("Arrow was asked"))
        for tick in (7, 8, 9, 10, 11, 100, 10**9):
            for frame in (first, other):
                values = rng.normal(size=frame.values.shape)
                values[rng.random(values.shape) < 0.3] = np.nan
                header = dataclasses.replace(frame.header, tick=tick, exact_us=((0, 1, tick),))
                flags = rng.integers(0, 9, len(values)).astype(np.uint8)
                after = dataclasses.replace(frame, header=header, values=values, flags=flags)
                again = decode_frame(SPEC, encode_frame(SPEC, after))
                assert_same(again, after)
                assert again.values.flags.c_contiguous
                assert again.values.flags.writeable


def test_a_damaged_frame_is_read_as_arrow_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever byte is another one: the same frame, or the same refusal."""
    data = encode_frame(SPEC, sample_frame(2))
    decode_frame(SPEC, data)

    def outcome(given: bytes) -> Any:
        try:
            frame = decode_frame(SPEC, given)
        except FrameError as error:
            return str(error)
        numbers = (frame.values, frame.ages, frame.applied, frame.status, frame.flags)
        return frame.header, frame.entities, [array.tobytes() for array in numbers]

    damaged = [
        data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        for place in range(len(data))
    ]
    damaged += [data + b"\0", data[:-1], data + data, data[:-8]]
    quick = [outcome(given) for given in damaged]
    monkeypatch.setattr(Stamp, "read", lambda *_: None)
    assert quick == [outcome(given) for given in damaged]
    assert sum(not isinstance(found, str) for found in quick) > 200, "numbers may be any"


def test_frames_of_another_maker_are_left_to_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a thousand times is it looked whether they are laid out as ours are."""
    monkeypatch.setattr(frames_module, "_stamps", {})
    frame = sample_frame(3)
    batch, metadata = arrow_io.read_batch(encode_frame(SPEC, frame))
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    schema = batch.schema.with_metadata(metadata)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_batch(batch.replace_schema_metadata(metadata))
    data = sink.getvalue().to_pybytes()
    for _ in range(70):
        assert_same(decode_frame(SPEC, data), frame)
    stamp, _ = frames_module._stamps[SPEC.interface_hash]
    monkeypatch.setattr(stamp, "write", lambda *_: pytest.fail("it was looked again"))
    assert_same(decode_frame(SPEC, data), frame)


def test_numbers_of_other_types_are_written_as_they_should_be() -> None:
    frame = sample_frame()
    values: Any = frame.values.astype(np.float32)
    status: Any = frame.status.astype(np.int64)
    odd = dataclasses.replace(frame, values=values, status=status)
    right = dataclasses.replace(frame, values=values.astype(np.float64))
    assert_same(decode_frame(SPEC, encode_frame(SPEC, odd)), right)
    narrow = dataclasses.replace(frame, values=frame.values[:, 1:])
    with pytest.raises(ValueError, match="number of arrays"):
        encode_frame(SPEC, narrow)


def sample_frame(rows: int = 3) -> Frame:
    rng = np.random.default_rng(1)
    return Frame(
        FrameHeader("nav2d", 2, 7, 700_000),
        tuple(f"r{i}" for i in range(rows)),
        rng.normal(size=(rows, WIDTH)),
        rng.random((rows, CH)).astype(np.float32),
        rng.normal(size=(rows, A)),
        np.zeros(rows, np.uint8),
        np.ones(rows, np.uint8),
    )


def sample_decisions(rows: int = 3, hidden: int = 4, latent: int = 2) -> Decisions:
    rng = np.random.default_rng(2)

    def f32(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        # values that fp16 holds exactly, since beliefs are stored in it
        return rng.integers(-8, 8, shape).astype(np.float32)

    return Decisions(
        proposal=rng.normal(size=(rows, A)),
        action=rng.normal(size=(rows, A)),
        mode=np.arange(rows, dtype=np.uint8),
        reasons=np.full(rows, 2**13, np.uint32),
        hidden=f32(rows, hidden),
        latent=f32(rows, latent),
        predicted=f32(rows, WIDTH),
        predicted_std=f32(rows, WIDTH),
        returned=f32(rows, 4),
        uncertainty=f32(rows),
        innovation=f32(rows),
        reward=np.full(rows, np.nan, np.float32),
        tier=np.resize(np.array([-1, 0, 1], np.int8), rows),
        iterations=np.full(rows, 3, np.uint16),
        group=np.zeros(rows, np.int16),
        bundle="abc",
        spent={"worker": "w1", "attempt": 2},
    )


@pytest.mark.parametrize("sizes", [(4, 2), (0, 0)])
@pytest.mark.parametrize("row", [None, b"\x00belief\xff"])
def test_a_trajectory_frame_survives(sizes: tuple[int, int], row: bytes | None) -> None:
    frame, decisions = sample_frame(), sample_decisions(3, *sizes)
    again = decode_trajectory(SPEC, encode_trajectory(SPEC, frame, decisions, row))
    assert_same(again.frame, frame)
    assert_same(again.decisions, decisions)
    assert again.row == row


@pytest.mark.parametrize("rows", [*range(1, 10), 63, 64, 65])
def test_a_trajectory_frame_that_is_stamped_says_the_same(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = sample_frame(rows)
    made = [sample_decisions(rows, *sizes) for sizes in ((0, 0), (27, 8), (8, 27), (27, 8), (1, 0))]
    stamped = [encode_trajectory(SPEC, frame, decisions) for decisions in made]
    with monkeypatch.context() as patch:
        patch.setattr(arrow_io, "write_batch", lambda *_: pytest.fail("Arrow was asked"))
        assert [encode_trajectory(SPEC, frame, decisions) for decisions in made] == stamped
    monkeypatch.setattr(trajectories, "_stamped", lambda *_: None)
    for decisions, data in zip(made, stamped, strict=True):
        batch, metadata = arrow_io.read_batch(encode_trajectory(SPEC, frame, decisions))
        again, said = arrow_io.read_batch(data)
        assert (again.schema, said) == (batch.schema, metadata)
        assert_same(decode_trajectory(SPEC, data).frame, frame)
        assert_same(decode_trajectory(SPEC, data).decisions, decisions)


def test_decisions_of_other_types_are_written_as_they_should_be() -> None:
    decisions = sample_decisions()
    odd = dataclasses.replace(decisions, mode=decisions.mode.astype(np.int64))
    assert_same(
        decode_trajectory(SPEC, encode_trajectory(SPEC, sample_frame(), odd)).decisions, decisions
    )


def test_the_log_says_where_a_row_stands() -> None:
    table = log_table(SPEC, sample_frame(), sample_decisions())
    assert table.column("tick").to_pylist() == [7, 7, 7]
    assert table.column("worker").to_pylist() == ["w1"] * 3
    assert table.column("objective_hash").to_pylist() == [SPEC.objective_hash] * 3
    assert set(trajectory_schema(SPEC).names) < set(table.column_names)


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(SPEC, data)


def test_a_truncated_frame_is_a_frame_error() -> None:
    data = encode_frame(SPEC, sample_frame())
    with pytest.raises(FrameError):
        decode_frame(SPEC, data[: len(data) // 2])


def test_a_frame_of_another_system_or_interface_is_refused() -> None:
    data = encode_frame(SPEC, sample_frame())
    with pytest.raises(FrameError, match="of system 'nav2d', not of 'autoscale'"):
        decode_frame(load_spec("autoscale"), data)
    header = dataclasses.replace(sample_frame().header, interface_hash="0123456789abcdef")
    other = dataclasses.replace(sample_frame(), header=header)
    with pytest.raises(FrameError, match="made under another spec"):
        decode_frame(SPEC, encode_frame(SPEC, other))


def test_a_header_that_is_nested_too_deep_is_no_frame() -> None:
    deep = b'{"system":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(arrow_io.FrameError, match="no readable"):
        arrow_io.header_of({arrow_io.HEADER_KEY: deep})
