"""Trajectory frames: one cohort's decisions at one tick, with the observations they came from."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import arrow_io
from schemas.arrow_io import FrameError
from schemas.arrow_stamp import Stamp
from schemas.frames import (
    Frame,
    FrameHeader,
    age_columns,
    applied_columns,
    frame_arrays,
    frame_numbers,
    frame_of,
    frame_schema,
    header_from_json,
    header_to_json,
)
from schemas.system import SystemSpec

KEY_FRAME_EVERY = 64  # ticks between trajectory frames that carry the full belief row
ROW_KEY = b"rehearse-row"
QUANTILES = (0.1, 0.5, 0.9)
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decisions:
    """What was decided for the E entities of one frame, and what for.

    proposal      [E, A] float64: the planner's action before the gate
    action        [E, A] float64: what left the gate; NaN where refused
    mode          [E] uint8 `codes.Mode`;  reasons [E] uint32 `codes.Reason` bits
    hidden        [E, H] and latent [E, Z] float32: the belief (mean), H = Z = 0 without a model
    predicted     [E, O] float32 next observation expected under the action, NaN where none; and
    predicted_std [E, O] float32 its spread
    returned      [E, 1 + quantiles] float32: predicted return over the horizon: mean, 10, 50, 90 %
    uncertainty   [E] float32: disagreement of the ensemble about channels, in their usual spreads
    innovation    [E] float32: how far the observation was from the belief's prediction
    reward        [E] float32: realised reward of the transition that ends at this tick; NaN: none
    tier          [E] int8: index of the budget tier planned on at this tick, -1 where not planned
    iterations    [E] uint16: planner iterations spent
    group         [E] int16: which session call group of the frame, -1 where not planned
    bundle        digest of the bundle, "" without one
    spent         what else a replay needs and a reader may ask: worker, attempt, seed, provider, …
    """

    proposal: F64
    action: F64
    mode: npt.NDArray[np.uint8]
    reasons: npt.NDArray[np.uint32]
    hidden: F32
    latent: F32
    predicted: F32
    predicted_std: F32
    returned: F32
    uncertainty: F32
    innovation: F32
    reward: F32
    tier: npt.NDArray[np.int8]
    iterations: npt.NDArray[np.uint16]
    group: npt.NDArray[np.int16]
    bundle: str = ""
    spent: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectory:
    """A frame, what was decided on it, and for key frames the encoded belief row after it."""

    frame: Frame
    decisions: Decisions
    row: bytes | None = None


def _prefixed(prefix: str, names: tuple[str, ...]) -> list[str]:
    return [f"{prefix}:{name}" for name in names]


@dataclass(frozen=True)
class _Layout:
    """Which trajectory columns belong to which matrix of `Decisions`, and their Arrow types."""

    matrices: tuple[tuple[str, tuple[str, ...], pa.DataType], ...]

    @classmethod
    def of(cls, spec: SystemSpec) -> "_Layout":
        a, o = spec.action_columns, spec.columns
        quantiles = tuple(f"return:q{round(100 * q)}" for q in QUANTILES)
        names = {
            "proposal": tuple(_prefixed("proposal", a)),
            "action": tuple(_prefixed("action", a)),
            "predicted": tuple(_prefixed("predicted", o)),
            "predicted_std": tuple(_prefixed("spread", o)),
            "returned": ("return:mean", *quantiles),
        }
        return cls(tuple((name, names[name], kind) for name, kind in _MATRICES))


_MATRICES: tuple[tuple[str, pa.DataType], ...] = (
    ("proposal", pa.float64()),
    ("action", pa.float64()),
    ("predicted", pa.float32()),
    ("predicted_std", pa.float32()),
    ("returned", pa.float32()),
)
_VECTORS: tuple[tuple[str, pa.DataType], ...] = (
    ("mode", pa.uint8()),
    ("reasons", pa.uint32()),
    ("uncertainty", pa.float32()),
    ("innovation", pa.float32()),
    ("reward", pa.float32()),
    ("tier", pa.int8()),
    ("iterations", pa.uint16()),
    ("group", pa.int16()),
)
_BELIEFS = ("hidden", "latent")
_NUMBERS = [(name, np.dtype(kind.to_pandas_dtype())) for name, kind in (*_MATRICES, *_VECTORS)]

_schemas: dict[str, pa.Schema] = {}
_stamps: dict[str, Stamp] = {}


def _schema(frame: pa.Schema, layout: _Layout) -> pa.Schema:
    fields = list(frame)
    for _, names, kind in layout.matrices:
        fields += [pa.field(name, kind) for name in names]
    fields += [pa.field(name, kind) for name, kind in _VECTORS]
    return pa.schema([*fields, *(pa.field(name, pa.list_(pa.float16())) for name in _BELIEFS)])


def trajectory_schema(spec: SystemSpec) -> pa.Schema:
    """The Arrow schema of a system's trajectory frames, whatever the sizes of its bundle."""
    # Asked for with every frame; the hash covers all that the names are made of.
    found = _schemas.get(spec.interface_hash)
    if found is None:
        found = _schemas[spec.interface_hash] = _schema(frame_schema(spec), _Layout.of(spec))
    return found


def _half_lists(values: F32) -> pa.Array:
    """Lists of any length: readers of Parquet choke on fixed-size lists of length 0."""
    rows, width = values.shape
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float16).ravel(), type=pa.float16())
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, flat)


def trajectory_arrays(spec: SystemSpec, frame: Frame, decisions: Decisions) -> list[pa.Array]:
    """The columns of a trajectory frame in the order of `trajectory_schema`."""
    arrays = frame_arrays(frame)
    for name, _, kind in _Layout.of(spec).matrices:
        arrays += arrow_io.columns(getattr(decisions, name), kind)
    arrays += [pa.array(getattr(decisions, name), type=kind) for name, kind in _VECTORS]
    return [*arrays, *(_half_lists(getattr(decisions, name)) for name in _BELIEFS)]


def encode_trajectory(
    spec: SystemSpec, frame: Frame, decisions: Decisions, row: bytes | None = None
) -> bytes:
    """The bytes of a trajectory frame on `S.trajectories`; `row` makes it a key frame."""
    schema = trajectory_schema(spec)
    header = header_to_json(frame.header)
    header["decisions"] = {"bundle": decisions.bundle, "spent": decisions.spent}
    metadata = {arrow_io.HEADER_KEY: json.dumps(header, separators=(",", ":")).encode()}
    if row is not None:
        metadata[ROW_KEY] = row
    elif (data := _stamped(spec, frame, decisions, metadata[arrow_io.HEADER_KEY])) is not None:
        return data
    return arrow_io.write_batch(schema, trajectory_arrays(spec, frame, decisions), metadata)


def _stamped(spec: SystemSpec, frame: Frame, decisions: Decisions, header: bytes) -> bytes | None:
    """The same without asking Arrow; None where it has to be asked."""
    stamp = _stamps.get(spec.interface_hash)
    if stamp is None:
        stamp = _stamps[spec.interface_hash] = Stamp(trajectory_schema(spec))
    seen = frame_numbers(frame)
    decided = [getattr(decisions, name) for name, _ in _NUMBERS]
    if seen is None or any(a.dtype != t for a, (_, t) in zip(decided, _NUMBERS, strict=True)):
        return None
    lists = [getattr(decisions, name).astype(np.float16) for name in _BELIEFS]
    return stamp.write(frame.entities, [*seen, *decided], header, lists)


def decode_trajectory(spec: SystemSpec, data: bytes) -> Trajectory:
    """The trajectory frame in `data`. Raises `FrameError`."""
    batch, metadata = arrow_io.read_batch(data)
    content = arrow_io.header_of(metadata)
    extra = content.pop("decisions", {})
    header = header_from_json(content)
    try:
        bundle, spent = str(extra.get("bundle", "")), dict(extra.get("spent", {}))
    except (AttributeError, TypeError, ValueError) as error:
        raise FrameError(f"the header says oddly what was decided: {error}") from error
    decisions = decisions_of(spec, batch, bundle, spent)
    return Trajectory(frame_of(spec, batch, header), decisions, metadata.get(ROW_KEY))


def decisions_of(
    spec: SystemSpec, batch: pa.RecordBatch, bundle: str, spent: dict[str, Any]
) -> Decisions:
    """The decisions whose columns stand in `batch`. Raises `FrameError`."""
    parts: dict[str, npt.NDArray[Any]] = {
        name: arrow_io.matrix(batch, names, kind.to_pandas_dtype())
        for name, names, kind in _Layout.of(spec).matrices
    }
    for name, kind in _VECTORS:
        parts[name] = arrow_io.vector(batch, name).astype(kind.to_pandas_dtype())
    for name in _BELIEFS:
        parts[name] = arrow_io.lists(batch, name)
    return Decisions(**parts, bundle=bundle, spent=spent)


def log_table(spec: SystemSpec, frame: Frame, decisions: Decisions) -> pa.Table:
    """One trajectory frame as a table for Parquet: its columns plus where it stands.

    Added columns: system, cohort, tick, time_us, aligner_epoch, bundle, worker, attempt,
    spec_hash, objective_hash, interface_hash.
    """
    schema = trajectory_schema(spec)
    batch = pa.RecordBatch.from_arrays(trajectory_arrays(spec, frame, decisions), schema=schema)
    return with_place(spec, batch, frame.header, decisions)


def with_place(
    spec: SystemSpec, batch: pa.RecordBatch, header: FrameHeader, decisions: Decisions
) -> pa.Table:
    """A trajectory batch with the columns that say where it stands; see `log_table`."""
    rows = batch.num_rows
    place: list[tuple[str, Any, pa.DataType]] = [
        ("system", header.system, pa.string()),
        ("cohort", header.cohort, pa.int32()),
        ("tick", header.tick, pa.int64()),
        ("time_us", header.time_us, pa.int64()),
        ("aligner_epoch", header.epoch, pa.int32()),
        ("bundle", decisions.bundle, pa.string()),
        ("worker", str(decisions.spent.get("worker", "")), pa.string()),
        ("attempt", int(decisions.spent.get("attempt", 0)), pa.int32()),
        ("spec_hash", header.spec_hash, pa.string()),
        ("interface_hash", spec.interface_hash, pa.string()),
        ("objective_hash", spec.objective_hash, pa.string()),
    ]
    table = pa.Table.from_batches([batch.replace_schema_metadata(None)])
    for name, value, kind in place:
        table = table.append_column(name, pa.repeat(pa.scalar(value, kind), rows))
    return table


__all__ = [
    "KEY_FRAME_EVERY",
    "QUANTILES",
    "Decisions",
    "Trajectory",
    "age_columns",
    "applied_columns",
    "decisions_of",
    "decode_trajectory",
    "encode_trajectory",
    "log_table",
    "trajectory_schema",
    "with_place",
]
