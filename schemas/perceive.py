"""What a sensor's readings are made of where an encoder makes them: images, clouds, tensors."""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from schemas.formats import packed_type
from schemas.part import Duration, Part

_LARGEST: Final = 1 << 30  # bytes of an encoder
_MOST: Final = 1 << 26  # numbers that are encoded of one message
MAX_BATCH: Final = 1_024
Side = Annotated[int, Field(ge=1, le=_MOST)]


class Perceived(Part):
    """Raw messages of a topic, and the ONNX encoder whose outputs are the sensor's channels.

    Each message's key names the entity; its event time, as the sensor's `time` names it, stands in
    a header of the record, or in `head`: packed numbers in front of what is encoded.

    `encoder`: an ONNX file beside the spec, with one input and one output [rows, columns]; the
    columns are the channels' in their order. `sha256` is its digest: where it is given, the file
    must be that one, and only `rehearse perceive` needs it. `batch`: how many messages a call of
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


class PointsInput(Perceived):
    """Packed points, `size` of which are encoded; the encoder takes float32 [rows, size, 3].

    `fields`: the NumPy types of one point, `x`, `y` and `z` among them; what nobody reads is e.g.
    V4. Of more points than `size`, as many are taken evenly; fewer are repeated in turn, which an
    encoder that takes the largest over points does not see. Points that are not finite are none.
    """

    kind: Literal["points"]
    size: tuple[Side]
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
    def shape(self) -> tuple[int, ...]:
        """[points, 3]."""
        return (*self.size, 3)

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
        if math.prod(size) > _MOST:
            raise ValueError(f"{list(size)} are more than {_MOST} numbers")
        return size

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


RawInput = Annotated[JpegInput | PointsInput | TensorInput, Field(discriminator="kind")]


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
            "its sha256: then only `rehearse perceive` needs it"
        ) from error
