"""What a sensor's readings are made of where an encoder makes them.

Images, clouds of points, as they are or as voxels, sets of entities, tensors.
"""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, PrivateAttr, ValidationInfo, field_validator

from schemas.formats import packed_type
from schemas.part import Duration, Part

_LARGEST: Final = 1 << 30  # bytes of an encoder
_MOST: Final = 1 << 26  # numbers that are encoded of one message
MAX_BATCH: Final = 1_024
Side = Annotated[int, Field(ge=1, le=_MOST)]
Size = TypeVar("Size", bound=tuple[int, ...])


def bounded(size: Size) -> Size:
    """`size`, if it is of no more numbers than may be encoded of one message."""
    if math.prod(size) > _MOST:
        raise ValueError(f"{list(size)} are more than {_MOST} numbers")
    return size


class Perceived(Part):
    """Raw messages of a topic, and the ONNX encoder whose outputs are the sensor's channels.

    Each message's key names the entity; its event time, as the sensor's `time` names it, stands in
    a header of the record, or in `head`: packed numbers in front of what is encoded.

    `encoder`: an ONNX file beside the spec, with one input and one output [rows, columns]; the
    columns are the channels' in their order. `sha256` is its digest: where it is given, the file
    must be that one, and only who encodes needs it. `batch`: how many messages a call of
    the encoder takes at most, `wait`: for how long the first of them waits for others.
    """

    kind: str
    encoder: str = Field(min_length=1)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", validate_default=True)
    topic: str = ""
    head: dict[str, str] = Field(default={})
    batch: int = Field(default=16, ge=1, le=MAX_BATCH)
    wait_us: Duration = Field(default=5_000, alias="wait", validate_default=False)
    _folder: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: Any) -> None:
        """Remembers where the spec lies."""
        self._folder = _folder(context)

    @property
    def file(self) -> Path:
        """Where the encoder lies."""
        return self._folder / self.encoder

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of what is encoded of one message."""

    @property
    def head_type(self) -> np.dtype[np.void]:
        """The packed structure in front of what is encoded; of no bytes where there is none."""
        return packed_type(self.head)

    @property
    def essence(self) -> list[Any]:
        """What an embedding depends on, beside the raw message."""
        return [self.kind, self.shape, self.sha256]

    @field_validator("head")
    @classmethod
    def _packed(cls, head: Mapping[str, str]) -> Mapping[str, str]:
        packed_type(head)
        return head

    @field_validator("sha256", mode="after")
    @classmethod
    def _digest(cls, given: str, info: ValidationInfo) -> str:
        if "encoder" not in info.data:
            return given  # which is told already
        path = _folder(info.context) / info.data["encoder"]
        if given and not path.exists():
            return given
        found = file_digest(path)
        if given and found != given:
            raise ValueError(
                f"{path} is another file: its SHA-256 is {found}; mend this, or leave it out"
            )
        return found


class JpegInput(Perceived):
    """JPEG images, scaled to `size` [height, width]; the encoder takes uint8 [rows, H, W, 3]."""

    kind: Literal["jpeg"]
    size: tuple[Side, Side]

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, 3] RGB."""
        return (*self.size, 3)


class _Cloud(Perceived):
    """Packed points; those that are not finite are none.

    `fields`: the NumPy types of one point, `x`, `y` and `z` among them; what nobody reads is e.g.
    V4.
    """

    fields: dict[str, str] = Field(default={"x": "<f4", "y": "<f4", "z": "<f4"})

    @field_validator("fields")
    @classmethod
    def _a_point(cls, fields: Mapping[str, str]) -> Mapping[str, str]:
        found = packed_type(fields)
        for name in "xyz":
            if name not in fields or found[name].shape or found[name].kind == "V":
                raise ValueError(f"a point needs {name!r}, one number, e.g. {{{name}: <f4}}")
        return fields

    @property
    def essence(self) -> list[Any]:
        """What an embedding depends on, beside the raw message."""
        return [*super().essence, list(self.fields.items())]


class PointsInput(_Cloud):
    """Packed points, `size` of which are encoded; the encoder takes float32 [rows, size, 3].

    Of more points than `size`, as many are taken evenly; fewer are repeated in turn, which an
    encoder that takes the largest over points does not see.
    """

    kind: Literal["points"]
    size: tuple[Side]

    @property
    def shape(self) -> tuple[int, ...]:
        """[points, 3]."""
        return (*self.size, 3)


class VoxelsInput(_Cloud):
    """Packed points as a grid of `size` cells; the encoder takes uint8 [rows, X, Y, Z].

    A cell is 1 where any point is in it, else 0: so the order of the points and how many there are
    make no difference. The grid reaches from `low` to below `high`, [x, y, z] in the points' unit;
    points outside are none. A device that has such a grid itself sends it as a tensor.
    """

    kind: Literal["voxels"]
    size: tuple[Side, Side, Side]
    low: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    high: tuple[FiniteFloat, FiniteFloat, FiniteFloat]

    @field_validator("size")
    @classmethod
    def _bounded(cls, size: tuple[int, int, int]) -> tuple[int, int, int]:
        return bounded(size)

    @field_validator("high")
    @classmethod
    def _above(cls, high: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        low = info.data.get("low", high)
        if "low" in info.data and not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"{list(high)} is not above low, {list(low)}, along each axis")
        return high

    @property
    def shape(self) -> tuple[int, ...]:
        """[X, Y, Z]."""
        return self.size

    @property
    def essence(self) -> list[Any]:
        """What an embedding depends on, beside the raw message."""
        return [*super().essence, self.low, self.high]


class EntitiesInput(Perceived):
    """Packed entities that an entity sees; the encoder takes float32 [rows, size, fields + 1].

    The last column is 1 where there is one, and all are 0 where there is none. Any number may be
    seen, also none; of more than `size` the first are taken, so send the nearest first. One that
    is not finite is none.

    `fields`: the NumPy types of what is told of each, one number each, in the order in which they
    are encoded; what nobody reads is e.g. V4.
    """

    kind: Literal["entities"]
    size: tuple[Side]
    fields: dict[str, str] = Field(default={"x": "<f4", "y": "<f4", "vx": "<f4", "vy": "<f4"})

    @field_validator("fields")
    @classmethod
    def _numbers(cls, fields: Mapping[str, str]) -> Mapping[str, str]:
        found = packed_type(fields)
        read = [name for name in fields if found[name].kind != "V"]
        if not read or any(found[name].shape for name in read):
            raise ValueError("an entity needs fields of one number each, e.g. {x: <f4, y: <f4}")
        return fields

    @property
    def read(self) -> tuple[str, ...]:
        """The fields that are encoded, in their order."""
        found = packed_type(self.fields)
        return tuple(name for name in self.fields if found[name].kind != "V")

    @property
    def shape(self) -> tuple[int, ...]:
        """[entities, fields + 1]."""
        return (*self.size, len(self.read) + 1)

    @property
    def essence(self) -> list[Any]:
        """What an embedding depends on, beside the raw message."""
        return [*super().essence, list(self.fields.items())]


class TensorInput(Perceived):
    """Packed numbers of one `type`, of shape `size`; the encoder takes float32 [rows, *size]."""

    kind: Literal["tensor"]
    size: tuple[Side, ...] = Field(min_length=1, max_length=8)
    type: str = "<f4"

    @field_validator("size")
    @classmethod
    def _bounded(cls, size: tuple[int, ...]) -> tuple[int, ...]:
        return bounded(size)

    @field_validator("type")
    @classmethod
    def _number(cls, text: str) -> str:
        if packed_type({"it": text})["it"].kind == "V":
            raise ValueError(f"{text!r} is no number; write e.g. <i2")
        return text

    @property
    def shape(self) -> tuple[int, ...]:
        """As `size`."""
        return self.size


RawInput = Annotated[
    JpegInput | PointsInput | VoxelsInput | EntitiesInput | TensorInput,
    Field(discriminator="kind"),
]


def occupancy(
    points: npt.NDArray[np.float32],
    low: Sequence[float],
    high: Sequence[float],
    size: tuple[int, int, int],
) -> npt.NDArray[np.uint8]:
    """[X, Y, Z] 1 in cells with points [n, 3], else 0; see `VoxelsInput`."""
    grid = np.zeros(size, np.uint8)
    least = np.array(low, np.float64)
    cells = np.floor((points - least) * (np.array(size) / (np.array(high) - least)))
    inside = ((cells >= 0) & (cells < size)).all(axis=1)
    grid[tuple(cells[inside].astype(np.int64).T)] = 1
    return grid


def _folder(context: Any) -> Path:
    return Path((context or {}).get("folder", "."))


def file_digest(path: Path) -> str:
    """SHA-256 of an encoder, in hexadecimal. Raises `ValueError` that says what helps."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size > _LARGEST:
                raise ValueError(f"{path} has more than {_LARGEST} bytes: that is no encoder")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}; name an ONNX file beside the spec, or give "
            "its sha256: then only who encodes needs it"
        ) from error
