"""Record batches with a JSON header: Arrow IPC streams in, Arrow IPC streams out."""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.ma  # np.unique and np.percentile would load it at the first message
import numpy.typing as npt
import pyarrow as pa

from schemas.arrow_messages import refuse_compressed

HEADER_KEY = b"rehearse"
MOST_BYTES: Final = 16 << 20  # of a frame; one in Kafka has 1 MB
END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow IPC stream: no further message


class FrameError(ValueError):
    """Bytes that are not the frame they should be; the message says what is wrong."""


def write_batch(
    schema: pa.Schema, arrays: Sequence[pa.Array], metadata: dict[bytes, bytes]
) -> bytes:
    """One record batch as an Arrow IPC stream, `metadata` in its schema."""
    schema = schema.with_metadata(metadata)
    batch = pa.RecordBatch.from_arrays(list(arrays), schema=schema)
    # What a stream writer writes, to the byte, in half its time.
    return b"".join((memoryview(schema.serialize()), memoryview(batch.serialize()), END))


def check_size(data: bytes) -> None:
    """Raises `FrameError` where somebody sent more than a frame may have."""
    if len(data) > MOST_BYTES:
        raise FrameError(f"{len(data)} bytes; {MOST_BYTES} are the most")


def read_batch(data: bytes) -> tuple[pa.RecordBatch, dict[bytes, bytes]]:
    """The record batch of an Arrow IPC stream and its schema's metadata. Raises `FrameError`."""
    check_size(data)
    buffer = pa.py_buffer(data)
    try:
        refuse_compressed(buffer)
        with pa.ipc.open_stream(buffer) as reader:
            batch = reader.read_next_batch()
            batch.validate(full=True)
            return batch, dict(reader.schema.metadata or {})
    except (pa.ArrowException, StopIteration, OSError, EOFError, ValueError) as error:
        raise FrameError(f"not an Arrow IPC stream with one record batch: {error}") from error


def header_of(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """The JSON header in a schema's metadata. Raises `FrameError`."""
    try:
        header = json.loads(metadata[HEADER_KEY])
    except (KeyError, ValueError, RecursionError) as error:
        raise FrameError(f"no readable {HEADER_KEY.decode()!r} header: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("the header is not a JSON object")
    return header


def matrix(batch: pa.RecordBatch, names: Sequence[str], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """[rows, names] the columns `names` of a batch, nulls as NaN. Raises `FrameError`."""
    result = np.empty((batch.num_rows, len(names)), dtype=dtype)
    for i, name in enumerate(names):
        result[:, i] = vector(batch, name)
    return result


def vector(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """[rows] one column of numbers, nulls of which only floats may have. Raises `FrameError`."""
    column = column_of(batch, name)
    kind = column.type
    if not (pa.types.is_floating(kind) or (pa.types.is_integer(kind) and not column.null_count)):
        raise FrameError(f"column {name!r} is {kind} with {column.null_count} nulls, not numbers")
    array: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array


def texts(batch: pa.RecordBatch, name: str) -> tuple[str, ...]:
    """[rows] one column of texts. Raises `FrameError` where it holds anything else."""
    column = column_of(batch, name)
    if column.type != pa.string() or column.null_count:
        raise FrameError(f"column {name!r} is {column.type}, not texts alone")
    return tuple(column.to_numpy(zero_copy_only=False).tolist())


def lists(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.float32]:
    """[rows, n] one column of lists of numbers, all of one length. Raises `FrameError`."""
    column = column_of(batch, name)
    if not (pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type)):
        raise FrameError(f"column {name!r} is {column.type}, not lists of numbers")
    lengths = np.diff(column.offsets.to_numpy())
    if column.null_count or (lengths != lengths[:1]).any():
        raise FrameError(f"column {name!r} has lists of several lengths")
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return flat.reshape(batch.num_rows, int(lengths[0]) if len(lengths) else 0)


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """One column of a batch. Raises `FrameError` where it is absent, or there twice."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise FrameError(f"column {name!r} is absent")
    return batch.column(index)


def columns(values: npt.NDArray[Any], kind: pa.DataType) -> list[pa.Array]:
    """One Arrow array per column of `values` [rows, columns]."""
    rows, count = values.shape
    everything = pa.array(np.ascontiguousarray(values.T).ravel(), type=kind)
    return [everything.slice(i * rows, rows) for i in range(count)]
