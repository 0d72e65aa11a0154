"""Arrow IPC streams before Arrow allocates for them: a few compressed bytes can be of any size.

Places are those of the FlatBuffers tables of Arrow's Message.fbs.
"""

import struct
from typing import Final

import pyarrow as pa

# A message's kind and header, a dictionary's batch, a batch's compression.
_KIND, _HEADER, _DATA, _COMPRESSION = 1, 2, 1, 3
_DICTIONARY, _BATCH = 2, 3
MOST_MESSAGES: Final = 4_096


class CompressedError(ValueError):
    """A stream whose buffers are compressed."""


def refuse_compressed(data: pa.Buffer) -> None:
    """Raises `CompressedError`, `ValueError` for odd metadata, or what Arrow raises."""
    messages = pa.ipc.MessageReader.open_stream(data)
    for _ in range(MOST_MESSAGES):
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        if _is_compressed(message.metadata.to_pybytes()):
            raise CompressedError("its buffers are compressed: send them as they are")
    raise ValueError(f"more than {MOST_MESSAGES} parts")


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message's table names a compression of its buffers. Raises `ValueError`."""
    try:
        table = _u32(metadata, 0)
        place = _member(metadata, table, _KIND)
        kind = metadata[place] if place else 0
        header = _member(metadata, table, _HEADER)
        if kind not in (_DICTIONARY, _BATCH) or not header:
            return False
        table = header + _u32(metadata, header)
        if kind == _DICTIONARY:
            data = _member(metadata, table, _DATA)
            if not data:
                return False
            table = data + _u32(metadata, data)
        return bool(_member(metadata, table, _COMPRESSION))
    except (struct.error, IndexError) as error:
        raise ValueError("its metadata points outside itself") from error


def _u32(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _member(data: bytes, table: int, number: int) -> int:
    """Where a table's member stands; 0: nowhere."""
    entries = table - int(struct.unpack_from("<i", data, table)[0])
    (size,) = struct.unpack_from("<H", data, entries)
    place = 4 + 2 * number
    if entries < 0 or place + 2 > size:
        return 0
    offset = int(struct.unpack_from("<H", data, entries + place)[0])
    return table + offset if offset else 0
