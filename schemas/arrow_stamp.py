"""Record batches whose rows have the same names again and again, without asking Arrow each time.

Arrow takes 80 µs to write a frame of 50 entities, and more to read one, nearly all of it for what
does not change: the schema, the names, and which buffer stands where. So it is asked once; numbers
and header are put into what it wrote, and are taken out of what is, but for these, the same.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import arrow_io

_KNOWN: Final = 1_024  # rows of names that are kept, and lengths of headers
_READ: Final = 64  # rows of names that are looked for in what is read,
_STRANGE: Final = 64  # as long as no more batches than this were not laid out as ours are
_LONGEST: Final = 1 << 16  # header that is looked for
_ALIGNMENT: Final = 8  # of buffers in an Arrow IPC stream
Block = npt.NDArray[Any]
Layout = Sequence[tuple[np.dtype[Any], int | None]]
"""Type and number of columns of each block; None: of one that is a column."""


class Stamp:
    """Writes batches of one schema: texts first, then numbers, then lists of numbers.

    Lists are of one length in all rows of a batch.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        # Length of a header → what stands before it, and behind it.
        self._heads: dict[int, tuple[bytes, bytes]] = {}
        # Names of the rows, lengths of lists → what stands before the numbers, and how many bytes
        # these take.
        self._fronts: dict[tuple[tuple[str, ...], tuple[int, ...]], tuple[bytes, int]] = {}
        # Of what was read: where headers began, and names with what stands before the numbers.
        self._begins: tuple[int, ...] = ()
        self._read: tuple[tuple[tuple[str, ...], bytes, int], ...] = ()
        self._strange = 0

    def write(
        self,
        names: tuple[str, ...],
        blocks: Sequence[Block],
        header: bytes,
        lists: Sequence[Block] = (),
    ) -> bytes | None:
        """A stream with one record batch, as `arrow_io.write_batch` makes it.

        `blocks` [rows, columns] or [rows]: numbers in the order and of the types of the schema;
        `lists` [rows, length]: of its last columns. None where they are not, or where Arrow lays
        numbers out in a way that is not known here.
        """
        numbers = _numbers([*blocks, *_flat(lists)])
        lengths = tuple(block.shape[1] for block in lists)
        known = self._fronts.get((names, lengths))
        front, size = known or self._front(names, blocks, lists, numbers)
        if len(numbers) != size:
            return None
        before, behind = self._heads.get(len(header)) or self._head(len(header))
        return b"".join((before, header, behind, front, numbers, arrow_io.END))

    def read(
        self, data: bytes, layout: Layout
    ) -> tuple[tuple[str, ...], bytes, list[Block]] | None:
        """Names, header and blocks, as they were given to `write`; None where Arrow must be asked.

        Of `data` all but header and numbers is compared with what was read before (`learn`), so
        what is read here Arrow would have read, and alike.
        """
        for begin in self._begins:
            size = int.from_bytes(data[begin - 4 : begin], "little")
            if size > min(_LONGEST, len(data)):
                continue
            before, behind = self._heads.get(size) or self._head(size)
            end = begin + size
            if len(before) != begin or not data.startswith(before):
                continue
            if not (data.startswith(behind, end) and data.endswith(arrow_io.END)):
                continue
            at, numbers = end + len(behind), len(data) - len(arrow_io.END)
            for names, front, length in self._read:
                if at + len(front) + length == numbers and data.startswith(front, at):
                    blocks = _blocks(data, at + len(front), len(names), layout)
                    return names, data[begin:end], blocks
        return None

    def learn(
        self, data: bytes, names: tuple[str, ...], blocks: Sequence[Block], header: bytes
    ) -> None:
        """Takes in how `data`, which Arrow read, is laid out, if it is as `write` does it."""
        if self._strange >= _STRANGE or len(header) > _LONGEST:
            return
        if self.write(names, blocks, header) != data:
            self._strange += 1
            return
        begin = len(self._heads[len(header)][0])
        if begin not in self._begins:
            self._begins = (*self._begins, begin)
        if all(names != known for known, *_ in self._read):
            self._read = (*self._read[1 - _READ :], (names, *self._fronts[names, ()]))

    def _head(self, size: int) -> tuple[bytes, bytes]:
        # It begins where two of them begin to differ.
        one, other = (self._schema_bytes(byte * size) for byte in (b"0", b"1"))
        differs = np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)
        begin = int(differs.argmax())
        before, behind = one[:begin], one[begin + size :]
        if len(self._heads) >= _KNOWN:
            self._heads.clear()
        self._heads[size] = before, behind
        return before, behind

    def _schema_bytes(self, header: bytes) -> bytes:
        schema = self._schema.with_metadata({arrow_io.HEADER_KEY: header})
        data: bytes = schema.serialize().to_pybytes()
        return data

    def _front(
        self,
        names: tuple[str, ...],
        blocks: Sequence[Block],
        lists: Sequence[Block],
        numbers: bytes,
    ) -> tuple[bytes, int]:
        columns = chain.from_iterable(block.T if block.ndim > 1 else [block] for block in blocks)
        arrays = [pa.array(names, pa.string()), *map(pa.array, map(np.ascontiguousarray, columns))]
        flat = [pa.array(block) for block in _flat(lists)]
        arrays += map(pa.ListArray.from_arrays, flat[::2], flat[1::2])
        try:
            batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        except (ValueError, TypeError):
            return b"", -1
        data = batch.serialize().to_pybytes()
        size = len(numbers) if data.endswith(numbers) else -1
        front = data[: len(data) - len(numbers)], size
        if len(self._fronts) >= _KNOWN:
            self._fronts.clear()
        self._fronts[names, tuple(block.shape[1] for block in lists)] = front
        return front


def _flat(lists: Sequence[Block]) -> list[Block]:
    """Of each block where its lists begin and end, and what they hold."""
    parts: list[Block] = []
    for block in lists:
        rows, length = block.shape
        parts += [np.arange(rows + 1, dtype=np.int32) * np.int32(length), block.ravel()]
    return parts


def _numbers(blocks: Sequence[Block]) -> bytes:
    """The columns of `blocks` one after the other, as they stand in the body of a batch."""
    parts = []
    for block in blocks:
        short = -len(block) * block.itemsize % _ALIGNMENT
        if short and block.ndim > 1:
            wider = np.zeros((len(block) + short // block.itemsize, block.shape[1]), block.dtype)
            wider[: len(block)] = block
            block, short = wider, 0
        parts.append(block.tobytes("F"))
        if short:
            parts.append(bytes(short))
    return b"".join(parts)


def _blocks(data: bytes, at: int, rows: int, layout: Layout) -> list[Block]:
    """The inverse of `_numbers`; each block can be written to, and lies row by row."""
    blocks: list[Block] = []
    for dtype, columns in layout:
        padded = rows + -rows * dtype.itemsize % _ALIGNMENT // dtype.itemsize
        count = padded * (1 if columns is None else columns)
        flat = np.frombuffer(data, dtype, count, at)
        at += count * dtype.itemsize
        shaped = flat if columns is None else flat.reshape(columns, padded).T
        blocks.append(shaped[:rows].copy("C"))
    return blocks
