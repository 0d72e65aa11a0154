"""Record batches with a JSON header: Arrow IPC streams in, Arrow IPC streams out."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.ma  # np.unique and np.percentile would load it at the first message
import numpy.typing as npt
import pyarrow as pa

HEADER_KEY = b"rehearse"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow IPC stream: no further message


class FrameError(ValueError):
    """Bytes that are not the frame they should be; the message says what is wrong."""


def write_batch(
    schema: pa.Schema, arrays: Sequence[pa.Array], metadata: dict[bytes, bytes]
) -> bytes:
    """One record batch as an Arrow IPC stream, `metadata` in its schema."""
    schema = schema.with_metadata(metadata)
    batch = pa.RecordBatch.from_arrays(list(arrays), schema=schema)
    # What a stream writer writes, to the byte, in half its time.
    return b"".join((memoryview(schema.serialize()), memoryview(batch.serialize()), _END))


def read_batch(data: bytes) -> tuple[pa.RecordBatch, dict[bytes, bytes]]:
    """The record batch of an Arrow IPC stream and its schema's metadata. Raises `FrameError`."""
    try:
        with pa.ipc.open_stream(data) as reader:
            batch = reader.read_next_batch()
            batch.validate()
            return batch, dict(reader.schema.metadata or {})
    except (pa.ArrowException, StopIteration, OSError, EOFError) as error:
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
    """[rows] one column of a batch. Raises `FrameError` where it is absent."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise FrameError(f"column {name!r} is absent")
    array: npt.NDArray[Any] = batch.column(index).to_numpy(zero_copy_only=False)
    return array


def columns(values: npt.NDArray[Any], kind: pa.DataType) -> list[pa.Array]:
    """One Arrow array per column of `values` [rows, columns]."""
    rows, count = values.shape
    everything = pa.array(np.ascontiguousarray(values.T).ravel(), type=kind)
    return [everything.slice(i * rows, rows) for i in range(count)]
