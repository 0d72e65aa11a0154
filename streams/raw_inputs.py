"""Raw messages as rows for an encoder: images, clouds, entities, tensors; or why not.

All bytes are somebody else's: sizes are looked at before anything is unpacked.
"""

import io
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from schemas.formats import packed_type
from schemas.perceive import (
    EntitiesInput,
    JpegInput,
    PointsInput,
    RawInput,
    TensorInput,
    VoxelsInput,
    occupancy,
)
from schemas.spec_parts import SensorSpec, TimeSpec
from schemas.topics import MAX_RAW_BYTES
from streams.codecs.base import MAX_KEY, Refused, check_size

MAX_PIXELS: Final = 1 << 24
"""Of an image, in all: 4096 × 4096."""
_SCANS: Final = 64  # passes over a progressive JPEG; encoders write about ten
_SCAN: Final = b"\xff\xda"
_MOST_POINTS: Final = 1 << 20
_LONGEST: Final = 32  # characters of a time

Array = npt.NDArray[Any]


class Raw(NamedTuple):
    """A raw message, read: its key, its time in the sensor's unit, and a row for the encoder."""

    key: bytes
    time: float | int
    row: Array


class RawReader:
    """Reads the raw messages of one sensor."""

    def __init__(self, sensor: SensorSpec, raw: RawInput) -> None:
        self._time, self._head = sensor.time, raw.head_type
        self._read = _READERS[raw.kind](raw)

    def read(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, Any] | None
    ) -> Raw:
        """One message. Raises `Refused` with what is wrong with it."""
        entity = _entity(key)
        data = check_size(value, MAX_RAW_BYTES)
        begin = self._head.itemsize
        if len(data) < begin:
            raise Refused("truncated", f"{len(data)} bytes, where the head alone has {begin}")
        head = np.frombuffer(data, self._head, 1)[0] if begin else None
        time = _time(self._time, head, headers or {})
        return Raw(entity, time, self._read.row(data[begin:] if begin else data))


def _entity(key: bytes | None) -> bytes:
    if not key:
        raise Refused("no_key" if key is None else "empty_key")
    if len(key) > MAX_KEY:
        raise Refused("long_key")
    try:
        key.decode()
    except UnicodeDecodeError:
        raise Refused("bad_key") from None
    return key


def _time(spec: TimeSpec, head: Any, headers: Mapping[str, Any]) -> float | int:
    """The event time in the spec's unit, as it is written."""
    whole = spec.unit in ("us", "ns")
    if head is not None and spec.field in head.dtype.names:
        found = head[spec.field].item()
    else:
        text = headers.get(spec.field)
        if text is None:
            raise Refused("missing_field", f"there is no header {spec.field!r} with its time")
        found = _number(bytes(text), whole)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise Refused("wrong_type", f"its time {spec.field!r} is no number")
    if abs(found) >= 2**63:
        raise Refused("wrong_type", f"its time {spec.field!r} is too large")
    return round(found) if whole else float(found)


def _number(text: bytes, whole: bool) -> float | int:
    try:
        if len(text) > _LONGEST:
            raise ValueError
        return int(text) if whole else float(text)
    except ValueError:
        raise Refused("wrong_type", f"its time {text[:_LONGEST]!r} is no number") from None


class _Jpeg:
    def __init__(self, raw: JpegInput) -> None:
        self._height, self._width = raw.size

    def row(self, data: bytes) -> Array:
        """[H, W, 3] uint8."""
        if data.count(_SCAN) > _SCANS:
            raise Refused("oversized", f"more than {_SCANS} scans")
        try:
            image = Image.open(io.BytesIO(data), formats=("JPEG",))  # reads the header alone
        except Image.DecompressionBombError as error:
            raise Refused("oversized", str(error)) from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            raise Refused("malformed", "it is no JPEG image") from None
        with image:
            wide, high = image.size
            if wide * high > MAX_PIXELS:
                detail = f"{wide} × {high} pixels, where {MAX_PIXELS} in all are allowed"
                raise Refused("oversized", detail)
            return self._pixels(image)

    def _pixels(self, image: Image.Image) -> Array:
        size = (self._width, self._height)
        try:
            if image.size != size:
                image.draft("RGB", size)  # decodes at the next larger eighth
            seen = image.convert("RGB")
            if seen.size != size:
                seen = seen.resize(size, Image.Resampling.BILINEAR)
        except Exception as error:  # of whatever kind Pillow and its plug-ins raise
            raise Refused("malformed", f"its pixels cannot be read: {error}") from error
        return np.asarray(seen)


def _packed(data: bytes, dtype: np.dtype[np.void], what: str) -> npt.NDArray[np.void]:
    """The packed structures of which `data` consists."""
    size = dtype.itemsize
    if len(data) % size:
        raise Refused("malformed", f"{len(data)} bytes are no whole number of {size}")
    if len(data) > size * _MOST_POINTS:
        raise Refused("oversized", f"more than {_MOST_POINTS} {what}")
    return np.frombuffer(data, dtype)


def _finite(packed: npt.NDArray[np.void], names: Iterable[str]) -> npt.NDArray[np.float32]:
    """[n, names] of those that are finite."""
    with np.errstate(over="ignore"):  # what is too large for float32 is none
        found = np.stack([packed[name].astype(np.float32) for name in names], axis=1)
    kept: npt.NDArray[np.float32] = found[np.isfinite(found).all(axis=1)]
    return kept


def _points(data: bytes, dtype: np.dtype[np.void]) -> npt.NDArray[np.float32]:
    """[n, 3], one or more."""
    points = _finite(_packed(data, dtype, "points"), "xyz")
    if not len(points):
        raise Refused("malformed", "there is no finite point in it")
    return points


class _Points:
    def __init__(self, raw: PointsInput) -> None:
        self._dtype, self._count = packed_type(raw.fields), raw.size[0]

    def row(self, data: bytes) -> Array:
        """[points, 3] float32."""
        points = _points(data, self._dtype)
        if len(points) == self._count:
            return points
        every = np.arange(self._count)
        places = (
            every * len(points) // self._count if len(points) > self._count else every % len(points)
        )
        return points[places]


class _Voxels:
    def __init__(self, raw: VoxelsInput) -> None:
        self._dtype, self._grid = packed_type(raw.fields), (raw.low, raw.high, raw.size)

    def row(self, data: bytes) -> Array:
        """[X, Y, Z] uint8."""
        return occupancy(_points(data, self._dtype), *self._grid)


class _Entities:
    def __init__(self, raw: EntitiesInput) -> None:
        self._dtype, self._read, self._shape = packed_type(raw.fields), raw.read, raw.shape

    def row(self, data: bytes) -> Array:
        """[entities, fields + 1] float32."""
        found = _finite(_packed(data, self._dtype, "entities"), self._read)[: self._shape[0]]
        row = np.zeros(self._shape, np.float32)
        row[: len(found), :-1] = found
        row[: len(found), -1] = 1.0
        return row


class _Tensor:
    def __init__(self, raw: TensorInput) -> None:
        self._dtype, self._shape = np.dtype(raw.type), raw.size
        self._bytes = self._dtype.itemsize * math.prod(raw.size)

    def row(self, data: bytes) -> Array:
        """[*size] float32."""
        if len(data) != self._bytes:
            raise Refused("wrong_length", f"{len(data)} bytes, where {self._bytes} are meant")
        with np.errstate(over="ignore"):
            return np.frombuffer(data, self._dtype).reshape(self._shape).astype(np.float32)


_READERS: Final[Mapping[str, Any]] = {
    "jpeg": _Jpeg,
    "points": _Points,
    "voxels": _Voxels,
    "entities": _Entities,
    "tensor": _Tensor,
}
