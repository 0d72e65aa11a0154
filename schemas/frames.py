"""Frames: one cohort at one tick, as an Arrow record batch derived from the spec."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import arrow_io
from schemas.arrow_io import FrameError
from schemas.arrow_stamp import Layout, Stamp
from schemas.messages import ALL
from schemas.system import SystemSpec

__all__ = ["ControlView", "Frame", "FrameError", "FrameHeader", "decode_frame", "encode_frame"]

Offsets = dict[str, dict[int, int]]
_MOST: Final = 1 << 62  # whatever is added to it once fits an int64


@dataclass(frozen=True)
class ControlView:
    """What `S.control` said as of a tick."""

    bundle: str | None = None  # digest of the released bundle
    holds: tuple[str, ...] = ()  # entities, or "*"
    overrides: dict[str, dict[str, float]] = field(default_factory=dict)
    budget: str | None = None  # the deepest tier allowed
    rearms: dict[str, int] = field(default_factory=dict)  # entity or "*" → when it was said, us

    def holds_entity(self, entity: str) -> bool:
        """Whether an operator holds `entity`."""
        return ALL in self.holds or entity in self.holds

    def override_of(self, entity: str) -> dict[str, float]:
        """What an operator set by hand, by action column: an entity's own goes before that of all.

        Empty where nothing is.
        """
        return {**self.overrides.get(ALL, {}), **self.overrides.get(entity, {})}

    def rearm_of(self, entity: str) -> int:
        """When an operator last re-armed `entity`, or all; 0: never."""
        return max(self.rearms.get(ALL, 0), self.rearms.get(entity, 0))


@dataclass(frozen=True)
class FrameHeader:
    """Where a frame stands, and from which offsets it and its followers can be built again.

    `offsets` is where a restarted aligner starts to read; `positions` is how far each source had
    been read when the frame closed, `seen_us` the newest event time by then. `exact_us` holds (row,
    channel, time) of readings whose time is not in the ages to the microsecond (they are float32).
    """

    system: str
    cohort: int
    tick: int
    time_us: int
    epoch: int = 0  # of the aligner: raised by each restart
    spec_hash: str = ""
    interface_hash: str = ""
    offsets: Offsets = field(default_factory=dict)
    positions: Offsets = field(default_factory=dict)
    seen_us: int = 0
    exact_us: tuple[tuple[int, int, int], ...] = ()
    control: ControlView = field(default_factory=ControlView)
    left: tuple[str, ...] = ()
    closed_by: Literal["passed", "lateness"] = "passed"
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """One cohort of E entities, sorted by name, at one tick.

    values   [E, O] float64: `spec.columns`; NaN where missing or older than its maximum age
    ages     [E, channels] float32 seconds since the newest reading used; NaN where never seen
    applied  [E, A] float64: the action in force during the interval that ends here; NaN where none
    status   [E] uint8: `codes.Status` of that action
    flags    [E] uint8: `codes.Flag` bits
    """

    header: FrameHeader
    entities: tuple[str, ...]
    values: npt.NDArray[np.float64]
    ages: npt.NDArray[np.float32]
    applied: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]

    @property
    def tick(self) -> int:
        """The frame's tick."""
        return self.header.tick

    @property
    def cohort(self) -> int:
        """The frame's cohort."""
        return self.header.cohort


def age_columns(spec: SystemSpec) -> tuple[str, ...]:
    """Names of the age columns, one per channel."""
    return tuple(f"age:{channel.name}" for channel in spec.channels)


def applied_columns(spec: SystemSpec) -> tuple[str, ...]:
    """Names of the columns of the applied action."""
    return tuple(f"applied:{name}" for name in spec.action_columns)


_schemas: dict[str, pa.Schema] = {}
_stamps: dict[str, tuple[Stamp, Layout]] = {}
_F64, _F32, _U8 = np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.uint8)


@lru_cache(maxsize=256)
def _names(entities: tuple[str, ...]) -> pa.Array:
    return pa.array(entities, type=pa.string())


def _schema(layout: tuple[tuple[str, ...], ...]) -> pa.Schema:
    values, ages, applied = layout
    fields = [("entity", pa.string())]
    fields += [(name, pa.float64()) for name in values]
    fields += [(name, pa.float32()) for name in ages]
    fields += [(name, pa.float64()) for name in applied]
    return pa.schema([*fields, ("status", pa.uint8()), ("flags", pa.uint8())])


def frame_schema(spec: SystemSpec) -> pa.Schema:
    """The Arrow schema of a system's frames."""
    # Asked for with every frame; the hash covers all that the names are made of.
    found = _schemas.get(spec.interface_hash)
    if found is None:
        layout = (spec.columns, age_columns(spec), applied_columns(spec))
        found = _schemas[spec.interface_hash] = _schema(layout)
    return found


def _stamp(spec: SystemSpec) -> tuple[Stamp, Layout]:
    """What writes and reads the frames of a system, and how the blocks of one are laid out."""
    found = _stamps.get(spec.interface_hash)
    if found is None:
        matrices = (_F64, spec.columns), (_F32, age_columns(spec)), (_F64, applied_columns(spec))
        layout = [*((dtype, len(names)) for dtype, names in matrices), (_U8, None), (_U8, None)]
        found = _stamps[spec.interface_hash] = Stamp(frame_schema(spec)), layout
    return found


def frame_arrays(frame: Frame) -> list[pa.Array]:
    """The columns of a frame in the order of `frame_schema`."""
    return [
        _names(frame.entities),
        *arrow_io.columns(frame.values, pa.float64()),
        *arrow_io.columns(frame.ages, pa.float32()),
        *arrow_io.columns(frame.applied, pa.float64()),
        pa.array(frame.status, type=pa.uint8()),
        pa.array(frame.flags, type=pa.uint8()),
    ]


def frame_numbers(frame: Frame) -> tuple[npt.NDArray[Any], ...] | None:
    """The numbers of a frame in the order of `frame_schema`; None where some are of other types."""
    if (
        frame.values.dtype is frame.applied.dtype is _F64
        and frame.ages.dtype is _F32
        and frame.status.dtype is frame.flags.dtype is _U8
    ):
        return frame.values, frame.ages, frame.applied, frame.status, frame.flags
    return None


def encode_frame(spec: SystemSpec, frame: Frame) -> bytes:
    """The bytes of a frame on `S.frames`."""
    header = msgspec.json.encode(frame.header)
    stamp, numbers = _stamp(spec)[0], frame_numbers(frame)
    data = None if numbers is None else stamp.write(frame.entities, numbers, header)
    if data is not None:
        return data
    metadata = {arrow_io.HEADER_KEY: header}
    return arrow_io.write_batch(frame_schema(spec), frame_arrays(frame), metadata)


def decode_frame(spec: SystemSpec, data: bytes) -> Frame:
    """The frame in `data`. Raises `FrameError` that says what is wrong with it."""
    stamp, layout = _stamp(spec)
    arrow_io.check_size(data)  # a header may be of any length
    found = stamp.read(data, layout)
    batch: pa.RecordBatch | None = None
    if found is not None:
        names, written, blocks = found
        header = header_from_json(arrow_io.header_of({arrow_io.HEADER_KEY: written}))
    else:
        batch, metadata = arrow_io.read_batch(data)
        header = header_from_json(arrow_io.header_of(metadata))
    if header.system != spec.system:
        raise FrameError(f"a frame of system {header.system!r}, not of {spec.system!r}")
    if header.interface_hash and header.interface_hash != spec.interface_hash:
        raise FrameError(
            f"interface {header.interface_hash} is not the spec's {spec.interface_hash}: "
            "the frame was made under another spec"
        )
    if batch is None:
        return Frame(header, names, *blocks)
    frame = frame_of(spec, batch, header)
    numbers = frame_numbers(frame)
    if numbers is not None and len(frame.entities):
        stamp.learn(data, frame.entities, numbers, metadata[arrow_io.HEADER_KEY])
    return frame


def frame_of(spec: SystemSpec, batch: pa.RecordBatch, header: FrameHeader) -> Frame:
    """The frame whose columns stand in `batch`. Raises `FrameError`."""
    return Frame(
        header=header,
        entities=arrow_io.texts(batch, "entity"),
        values=arrow_io.matrix(batch, spec.columns, np.float64),
        ages=arrow_io.matrix(batch, age_columns(spec), np.float32),
        applied=arrow_io.matrix(batch, applied_columns(spec), np.float64),
        status=arrow_io.vector(batch, "status").astype(np.uint8),
        flags=arrow_io.vector(batch, "flags").astype(np.uint8),
    )


def header_to_json(header: FrameHeader) -> dict[str, Any]:
    """A header as plain JSON values; partitions become strings, as JSON keys must be."""
    content = {**vars(header), "control": vars(header.control)}
    for kind in ("offsets", "positions"):
        content[kind] = {
            name: {str(partition): offset for partition, offset in places.items()}
            for name, places in content[kind].items()
        }
    return content


def header_from_json(content: dict[str, Any]) -> FrameHeader:
    """The header in plain JSON values. Raises `FrameError` where a field is absent or odd."""
    if unknown := content.keys() - FrameHeader.__dataclass_fields__.keys():
        raise FrameError(f"the header is not a frame's: there is no field {min(unknown)!r}")
    try:
        # By its types: what is no number here would have to be one somewhere in the loop.
        header = msgspec.convert(content, FrameHeader, str_keys=True)
    except msgspec.ValidationError as error:
        raise FrameError(f"the header is not a frame's: {error}") from error
    if max(map(abs, (header.tick, header.time_us, header.cohort, header.epoch))) > _MOST:
        raise FrameError("the header is not a frame's: a number that is none of a tick or time")
    return header
