"""How a recording is made: records into chunks, and the manifest that finishes it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.arrow_io import HEADER_KEY, FrameError, read_batch
from schemas.catalog import Catalog
from schemas.catalog_tables import Recording as RecordingRow
from schemas.clock import tick_time
from schemas.frames import Frame, encode_frame
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, partition_of, topic
from schemas.trajectories import KEY_FRAME_EVERY, Decisions, encode_trajectory
from streams.belief import Row, encode_row
from streams.record_gaps import gaps
from streams.recording import (
    KINDS,
    SPEC,
    ChunkWriter,
    Kind,
    RawRecord,
    RecordingError,
    chunk_paths,
    spec_text,
    write_manifest,
)


class RecordingMaker:
    """A recording of frames that come from no topic: of an import, or of a backtest.

    Args:
        folder: must not hold a recording yet.
        origin: what made it, such as `import`; it stands where a topic's id would.
    """

    def __init__(self, spec: SystemSpec, folder: Path, origin: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(chunk_paths(folder, kind) for kind in KINDS):
            raise RecordingError(f"{folder} holds a recording: choose a new folder, or remove it")
        self._spec, self._folder, self._text = spec, folder, spec_text(spec)
        (folder / SPEC).write_text(self._text)
        self._writers: dict[Kind, ChunkWriter] = {
            kind: ChunkWriter(folder, kind, origin) for kind in KINDS
        }
        self._partitions = cohort_partitions(spec)
        self._next: dict[tuple[Kind, int], int] = {}
        self.origin = origin
        self.frames = 0

    def add(self, frame: Frame, decisions: Decisions | None = None, row: Row | None = None) -> None:
        """Takes a frame, and where it was decided what was, with the belief row after it."""
        self._put("frames", frame.cohort, encode_frame(self._spec, frame))
        self.frames += 1
        if decisions is not None:
            key = row is not None and frame.tick % KEY_FRAME_EVERY == 0
            packed = encode_row(row) if key and row is not None else None
            value = encode_trajectory(self._spec, frame, decisions, packed)
            self._put("trajectories", frame.cohort, value)

    def finish(
        self, complete: bool = True, catalog_url: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Writes what is pending and the manifest; see `finish`. Raises `RecordingError`."""
        for writer in self._writers.values():
            writer.flush()
        more = {"origin": self.origin, **more}
        return finish(self._spec, self._folder, self._text, None, complete, catalog_url, **more)

    def _put(self, kind: Kind, cohort: int, value: bytes) -> None:
        partition = partition_of(cohort, self._partitions)
        offset = self._next.get((kind, partition), 0)
        self._next[kind, partition] = offset + 1
        self._writers[kind].add(raw_record(topic(self._spec, kind), partition, offset, -1, value))


def raw_record(
    name: str, partition: int, offset: int, timestamp_ms: int, value: bytes
) -> RawRecord:
    """A record with the place of its frame, read from its header. Raises `FrameError`."""
    _, metadata = read_batch(value)
    try:
        header = msgspec.json.decode(metadata[HEADER_KEY])
        return RawRecord(
            topic=name,
            partition=partition,
            offset=offset,
            timestamp_ms=timestamp_ms,
            tick=int(header["tick"]),
            cohort=int(header["cohort"]),
            epoch=int(header["epoch"]),
            bundle=str(header.get("decisions", {}).get("bundle", "")),
            value=value,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FrameError(f"not a frame: {error!r}") from error


def finish(
    spec: SystemSpec,
    folder: Path,
    text: str,
    first: int | None,
    complete: bool,
    catalog_url: str | None,
    missing: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Writes the manifest of a recording whose chunks are there; returns the summary of it.

    Args:
        text: the spec as YAML, for the catalog.
        first: the first tick that was asked for; what lies before it is there to start from.
        complete: whether it was not stopped early.
        catalog_url: a catalog that shall know the recording.
        missing: what its source says it lacks, in words; `gaps` adds to it.
        more: further facts for the manifest.

    Raises `RecordingError` when nothing was recorded.
    """
    columns = ["topic", "partition", "offset", "tick", "cohort", "bundle"]
    tables = {
        kind: [pq.read_table(path, columns=columns) for path in chunk_paths(folder, kind)]
        for kind in KINDS
    }
    every = [table for found in tables.values() for table in found]
    if not every:
        raise RecordingError(f"{spec.system}: no frame in that stretch; check --from and --to")
    table = pa.concat_tables(every)
    ticks = table.column("tick").to_pylist()
    asked = [tick for tick in ticks if first is None or tick >= first] or ticks
    content = {
        "system": spec.system,
        "spec_hash": spec.spec_hash,
        "interface_hash": spec.interface_hash,
        "objective_hash": spec.objective_hash,
        "frames": sum(t.num_rows for t in tables["frames"]),
        "trajectories": sum(t.num_rows for t in tables["trajectories"]),
        "cohorts": sorted(set(table.column("cohort").to_pylist())),
        "from_tick": min(asked),
        "to_tick": max(ticks),
        "from_us": tick_time(min(asked), spec.epoch_us, spec.period_us),
        "to_us": tick_time(max(ticks), spec.epoch_us, spec.period_us),
        "bundles": sorted(set(table.column("bundle").to_pylist()) - {""}),
        "ranges": _ranges(table),
        "complete": complete,
        **more,
    }
    write_manifest(folder, content)
    lacking = gaps(spec, tables) if tables["trajectories"] else []
    size = sum(path.stat().st_size for kind in KINDS for path in chunk_paths(folder, kind))
    if catalog_url:
        _register(catalog_url, folder, text, content)
    shown = ("frames", "trajectories", "cohorts", "from_tick", "to_tick", "bundles", "complete")
    return {
        "recording": str(folder),
        **{name: content[name] for name in shown},
        "bytes": size,
        "missing": [*missing, *lacking],
    }


def _ranges(table: pa.Table) -> dict[str, dict[str, list[int]]]:
    """topic → partition → [first offset, offset after the last]."""
    grouped = table.group_by(["topic", "partition"]).aggregate(
        [("offset", "min"), ("offset", "max")]
    )
    found: dict[str, dict[str, list[int]]] = {}
    for row in sorted(grouped.to_pylist(), key=lambda r: (r["topic"], r["partition"])):
        ends = [row["offset_min"], row["offset_max"] + 1]
        found.setdefault(row["topic"], {})[str(row["partition"])] = ends
    return found


def _register(url: str, folder: Path, text: str, content: Mapping[str, Any]) -> None:
    catalog = Catalog(url)
    catalog.create()
    names = ("system", "from_us", "to_us", "frames", "spec_hash", "ranges")
    path, created = str(folder.absolute()), time.time_ns() // 1_000
    facts = {name: content[name] for name in names}
    catalog.put(RecordingRow(path=path, spec=text, created_us=created, **facts))
    catalog.close()
