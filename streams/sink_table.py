"""Trajectory frames and what the actuators reported, joined into rows for Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute  # decoding would load it at the first message

from schemas.arrow_io import HEADER_KEY, FrameError, matrix, read_batch
from schemas.codes import Mode, Status
from schemas.messages import Applied, action_id
from schemas.system import SystemSpec
from schemas.trajectories import ROW_KEY

Bools = npt.NDArray[np.bool_]
_APPLIED: Final = int(Status.APPLIED)  # comparing with an enumeration takes ten times as long
SETTLE_S: Final = 1.0  # after a frame its actuators have reported of it, where they report,
SILENT_S: Final = 5.0  # where it never reported,
PATIENCE_S: Final = 30.0  # and in any case
KEPT_TICKS: Final = 512  # for how long it is remembered which attempt counted


@dataclass(frozen=True)
class LoggedFrame:
    """One trajectory record as it was read: its rows, its header, and its coordinates."""

    partition: int
    offset: int
    stamp_ms: int
    batch: pa.RecordBatch
    header: str
    row: bytes | None
    cohort: int
    tick: int
    time_us: int
    epoch: int
    spec_hash: str
    bundle: str
    worker: str
    attempt: int
    held: bool  # its actions were not sent: a twin's, or a shadow's
    belief: str  # digest of the belief after it

    @property
    def place(self) -> tuple[int, int, int]:
        """Its tick, and where it stands in the log."""
        return self.tick, self.partition, self.offset

    @property
    def layout(self) -> str:
        """Equal for frames that fit into one table."""
        columns = [(item.name, str(item.type)) for item in self.batch.schema]
        text = f"{self.spec_hash} {columns}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_frame(partition: int, offset: int, stamp_ms: int, data: bytes) -> LoggedFrame:
    """A trajectory record as its rows and its header. Raises `FrameError`."""
    batch, metadata = read_batch(data)
    try:
        header = metadata[HEADER_KEY]
        content = msgspec.json.decode(header)
        made = content["decisions"]
        spent = made["spent"]
        return LoggedFrame(
            partition=partition,
            offset=offset,
            stamp_ms=stamp_ms,
            batch=batch.replace_schema_metadata(None),
            header=header.decode(),
            row=metadata.get(ROW_KEY),
            cohort=int(content["cohort"]),
            tick=int(content["tick"]),
            time_us=int(content["time_us"]),
            epoch=int(content["epoch"]),
            spec_hash=str(content["spec_hash"]),
            bundle=str(made["bundle"]),
            worker=str(spent.get("worker", "")),
            attempt=int(spent.get("attempt", 0)),
            held=bool(spent.get("held", False)),
            belief=str(spent.get("belief", "")),
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise FrameError(f"not a trajectory frame: {error!r}") from error


@dataclass
class Reports:
    """What actuators said, by tick and entity, until the frames that it belongs to are stored."""

    _known: dict[int, dict[str, Applied]] = field(default_factory=dict)
    _counted: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    _beliefs: dict[tuple[int, int, str], str] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)  # of each entity, the newest stamp

    def add(self, applied: Applied, stamp_ms: int) -> None:
        """Takes a report in; that an action was applied outweighs what is said of it later.

        stamp_ms: of the record, whose partition has those of an entity in their order.
        """
        known = self._known.setdefault(applied.tick, {})
        self._newest[applied.entity] = max(stamp_ms, self._newest.get(applied.entity, 0))
        before = known.get(applied.entity)
        if before is None or before.status != _APPLIED:
            known[applied.entity] = applied

    def settled(self, frame: LoggedFrame, waited_s: float) -> bool:
        """Whether all is known of a frame's actions that will be, `waited_s` after it came.

        Reports may lag far behind the frames: they go another way, and an actuator, or the broker,
        may have stood still. So it is by the log that time must have passed, not by the clock
        alone: a report was read that its actuator sent well after the frame. (Not of a later tick:
        an actuator that falls back says so before it applies what comes late.)
        """
        missing = self._missing(frame)
        if missing and waited_s > PATIENCE_S:
            for entity in missing:
                self._newest.pop(entity, None)  # as if it had never said anything
            return True
        return all(self._is_past(entity, frame.stamp_ms, waited_s) for entity in missing)

    def _missing(self, frame: LoggedFrame) -> list[str]:
        """The entities whose published action of the frame has no report yet."""
        known = self._known.get(frame.tick, {})
        entities, modes = _column(frame.batch, "entity"), _column(frame.batch, "mode")
        pairs = zip(entities, modes, strict=True)
        return [entity for entity, mode in pairs if mode != Mode.REFUSED and entity not in known]

    def _is_past(self, entity: str, stamp_ms: int, waited_s: float) -> bool:
        newest_ms = self._newest.get(entity)
        if newest_ms is None:
            return waited_s > SILENT_S
        return waited_s > SETTLE_S and newest_ms > stamp_ms + 1e3 * SETTLE_S

    def unlike(self, frame: LoggedFrame) -> bool:
        """Whether another attempt at this frame, by the same bundle, had another belief."""
        place = (frame.cohort, frame.tick, frame.bundle)
        return self._beliefs.setdefault(place, frame.belief) != frame.belief

    def remember(self, cohort: int, tick: int, entities: Sequence[str]) -> None:
        """These entities' actions of the tick were applied, and an attempt has that mark."""
        self._counted.setdefault((cohort, tick), set()).update(entities)

    def mark(self, spec: SystemSpec, frame: LoggedFrame) -> tuple[npt.NDArray[np.uint8], Bools]:
        """[E] status of the action of this tick, and [E] whether this attempt is what was applied.

        Reports name no attempt: the first one in the log that asked for the values applied counts,
        of those that sent what they asked for.
        """
        known = self._known.get(frame.tick, {})
        counted = self._counted.setdefault((frame.cohort, frame.tick), set())
        entities, names = _column(frame.batch, "entity"), spec.action_columns
        asked = matrix(frame.batch, [f"action:{name}" for name in names], np.float64)
        status = np.full(len(entities), int(Status.UNKNOWN), np.uint8)
        mine = np.zeros(len(entities), bool)
        for i, (entity, row) in enumerate(zip(entities, asked.tolist(), strict=True)):
            report = known.get(entity)
            if report is None:
                continue
            status[i] = report.status
            if report.status == _APPLIED and not frame.held and entity not in counted:
                mine[i] = row == [report.values.get(name) for name in names]
                if mine[i]:
                    counted.add(entity)
        return status, mine

    def forget(self, before_tick: int) -> None:
        """Drops what belongs to ticks before `before_tick`."""
        self._known = {t: found for t, found in self._known.items() if t >= before_tick}
        limit = before_tick - KEPT_TICKS
        self._counted = {key: found for key, found in self._counted.items() if key[1] >= limit}
        self._beliefs = {key: found for key, found in self._beliefs.items() if key[1] >= limit}


def _column(batch: pa.RecordBatch, name: str) -> list[Any]:
    values: list[Any] = batch.column(name).to_pylist()
    return values


def table_of(spec: SystemSpec, frames: Sequence[LoggedFrame], reports: Reports) -> pa.Table:
    """The rows of frames of one layout: `schemas.trajectories.log_table`, and in addition

    action_id, outcome (`codes.Status` of this tick's action), counted (this attempt was applied),
    partition and offset of the record; and in the first row of each frame alone `header` (JSON)
    and, of key frames, `row` (the encoded belief row), from which the record can be made again.
    """
    table = pa.Table.from_batches([frame.batch for frame in frames])
    sizes = np.array([frame.batch.num_rows for frame in frames])
    ids = [
        action_id(spec.system, entity, frame.tick)
        for frame in frames
        for entity in _column(frame.batch, "entity")
    ]
    marks = [reports.mark(spec, frame) for frame in frames]
    first = np.cumsum(sizes) - sizes
    first_rows = {int(at): frame for at, frame, n in zip(first, frames, sizes, strict=True) if n}
    headers: list[str | None] = [None] * table.num_rows
    rows: list[bytes | None] = [None] * table.num_rows
    for at, frame in first_rows.items():
        headers[at], rows[at] = frame.header, frame.row
    more = [
        *((name, _spread(values, kind, sizes)) for name, values, kind in _places(spec, frames)),
        ("action_id", pa.array(ids, pa.string())),
        ("outcome", pa.array(np.concatenate([status for status, _ in marks]), pa.uint8())),
        ("counted", pa.array(np.concatenate([mine for _, mine in marks]), pa.bool_())),
        ("partition", _spread([frame.partition for frame in frames], pa.int32(), sizes)),
        ("offset", _spread([frame.offset for frame in frames], pa.int64(), sizes)),
        ("header", pa.array(headers, pa.string())),
        ("row", pa.array(rows, pa.binary())),
    ]
    names = [*table.column_names, *(name for name, _ in more)]
    return pa.Table.from_arrays([*table.columns, *(array for _, array in more)], names)


def _places(
    spec: SystemSpec, frames: Sequence[LoggedFrame]
) -> list[tuple[str, list[Any], pa.DataType]]:
    """The columns that `schemas.trajectories.with_place` adds, for many frames at once."""
    n = len(frames)
    return [
        ("system", [spec.system] * n, pa.string()),
        ("cohort", [frame.cohort for frame in frames], pa.int32()),
        ("tick", [frame.tick for frame in frames], pa.int64()),
        ("time_us", [frame.time_us for frame in frames], pa.int64()),
        ("aligner_epoch", [frame.epoch for frame in frames], pa.int32()),
        ("bundle", [frame.bundle for frame in frames], pa.string()),
        ("worker", [frame.worker for frame in frames], pa.string()),
        ("attempt", [frame.attempt for frame in frames], pa.int32()),
        ("spec_hash", [frame.spec_hash for frame in frames], pa.string()),
        ("interface_hash", [spec.interface_hash] * n, pa.string()),
        ("objective_hash", [spec.objective_hash] * n, pa.string()),
    ]


def _spread(values: list[Any], kind: pa.DataType, sizes: npt.NDArray[np.int64]) -> pa.Array:
    """Each frame's value for each of its rows."""
    return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(values)), sizes)))
