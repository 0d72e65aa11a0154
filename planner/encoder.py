"""An encoder: one ONNX graph, raw rows to embeddings, the same bits whatever their batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from planner.manifest import BundleError
from planner.runtime import Provider, choose, open_session
from planner.session import F32
from schemas.perceive import RawInput, file_digest

Rows = npt.NDArray[Any]
_BYTES: Final = ("jpeg", "voxels")  # kinds that are encoded from uint8; others from float32
_ONNX: Final = {"tensor(uint8)": np.dtype(np.uint8), "tensor(float)": np.dtype(np.float32)}


class Encoder:
    """The encoder of one sensor, checked against the spec and run once.

    digest: SHA-256 of its file.  padded: whether every call takes exactly `batch` rows. So it is
    where ONNX Runtime, on this machine, gives a row other bits in calls of another size (by version
    and processor it does, or does not; it is tried here): a message that is encoded again after a
    restart then looks the same all the same, and the aligner knows it for a repetition.

    Raises:
        BundleError: what is wrong with the file, and the remedy.
    """

    def __init__(
        self,
        raw: RawInput,
        columns: int,
        provider: Provider = "auto",
        threads: int = 1,
        padded: bool | None = None,
    ) -> None:
        self.path, self.shape, self.columns = raw.file, raw.shape, columns
        self.batch = raw.batch
        self.type = np.dtype(np.uint8 if raw.kind in _BYTES else np.float32)
        self.digest = raw.sha256
        graph = _read(raw.file, raw.sha256)
        self._session = open_session(graph, choose(provider), threads, str(raw.file))
        self._check()
        try:
            self.padded = self._depends() if padded is None else padded
        except Exception as error:  # ONNX Runtime raises its own kinds, without a common base
            raise BundleError(
                f"{self.path}: does not encode {self._wanted()}: {error}; export it for the spec"
            ) from error

    def encode(self, rows: Rows) -> F32:
        """[n, columns] of [n, *shape], of the type that the encoder takes; n may be anything."""
        parts = [self._call(part) for part in self._parts(rows)]
        return np.concatenate(parts) if parts else np.zeros((0, self.columns), np.float32)

    def _parts(self, rows: Rows) -> Iterator[Rows]:
        for first in range(0, len(rows), self.batch):
            yield rows[first : first + self.batch]

    def _call(self, rows: Rows) -> F32:
        count = len(rows)
        if self.padded and count < self.batch:
            rows = np.concatenate([rows, np.repeat(rows[:1], self.batch - count, axis=0)])
        found: F32 = self._session.run(None, {self._input: rows})[0]
        if found.shape != (len(rows), self.columns) or found.dtype != np.float32:
            raise BundleError(
                f"{self.path}: gives {found.dtype} {list(found.shape)}, where the sensor's "
                f"channels are float32 {[len(rows), self.columns]}; export it for the spec"
            )
        return found[:count]

    def _check(self) -> None:
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        if len(taken) != 1 or len(given) != 1:
            raise BundleError(
                f"{self.path}: has {len(taken)} inputs and {len(given)} outputs; an encoder has "
                "one of each"
            )
        self._input = taken[0].name
        sizes, kind = list(taken[0].shape), _ONNX.get(taken[0].type)
        fixed = isinstance(sizes[0], int) if sizes else True
        fits = len(sizes) == len(self.shape) + 1 and all(
            not isinstance(size, int) or size == wanted
            for size, wanted in zip(sizes[1:], self.shape, strict=True)
        )
        if kind != self.type or fixed or not fits:
            raise BundleError(
                f"{self.path}: takes {taken[0].type} {sizes}, where the spec has {self._wanted()}; "
                "export it for the spec, with any number of rows"
            )

    def _wanted(self) -> str:
        return f"{self.type} [rows, {', '.join(map(str, self.shape))}]"

    def _depends(self) -> bool:
        """Whether rows get other bits in calls of other sizes; the first runs of the graph."""
        self.padded = False
        rng = np.random.default_rng(0)
        shape = (self.batch, *self.shape)
        if self.type == np.uint8:
            rows: Rows = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            rows = rng.standard_normal(shape, dtype=np.float32)
        whole = self._call(rows)
        counts = {1, 2, 3, 5, *(1 << i for i in range(self.batch.bit_length())), self.batch - 1}
        return any(
            self._call(rows[:count]).tobytes() != whole[:count].tobytes()
            for count in sorted(counts)
            if 0 < count < self.batch
        )


def _read(path: Path, digest: str) -> bytes:
    """The graph, if it is the one that the spec was read with."""
    try:
        found = file_digest(path)
    except ValueError as error:
        raise BundleError(str(error)) from error
    if found != digest:
        raise BundleError(f"{path}: its SHA-256 is not the spec's, {digest}; bring the right file")
    return path.read_bytes()
