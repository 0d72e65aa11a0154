"""A recording: a folder with the raw records of frames and trajectories, which stands alone.

manifest.json                what was recorded, from where, with the digest of every file
spec.yaml                    the system, so that the recording stands on its own
frames-00000.parquet, …      records as they were: topic, partition, offset, timestamp_ms, tick,
trajectories-00000.parquet   cohort, epoch, bundle, value
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from schemas.clock import format_duration
from schemas.system import SystemSpec, load_spec, parse_spec
from streams.intervals import Intervals

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SPEC: Final = "spec.yaml"
CHUNK_BYTES: Final = 8 << 20
_MOST_CHUNK: Final = 1 << 30  # bytes of a chunk's columns, unpacked; ours have about CHUNK_BYTES
_MOST_MANIFEST: Final = 64 << 20
KEPT_CHUNKS: Final = 40  # of a recording that is read: at most some hundred megabytes
RANGES_KEY: Final = b"rehearse-recording"
Kind = Literal["frames", "trajectories"]
KINDS: Final[tuple[Kind, ...]] = ("frames", "trajectories")
_SCHEMA: Final = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("tick", pa.int64()),
        ("cohort", pa.int32()),
        ("epoch", pa.int32()),
        ("bundle", pa.string()),
        ("value", pa.binary()),
    ]
)


class RecordingError(RuntimeError):
    """A recording that is not whole, or not what it should be; the message says the remedy."""


@dataclass(frozen=True)
class RawRecord:
    """One record of a topic, with the place of its frame in the run."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    tick: int
    cohort: int
    epoch: int
    bundle: str
    value: bytes


class ChunkWriter:
    """Appends records of one kind as Parquet chunks; each is there whole, or not at all.

    A chunk's metadata says which offsets were seen when it was written, skipped ones included, so
    a recording that was cut off goes on where it was.
    """

    def __init__(self, folder: Path, kind: Kind, topic_id: str) -> None:
        self._folder, self._kind, self._topic_id = folder, kind, topic_id
        self.seen: dict[int, Intervals] = {}
        self._pending: list[RawRecord] = []
        self._bytes = 0
        self._chunks = 0
        for path in chunk_paths(folder, kind):
            content = json.loads((pq.read_schema(path).metadata or {})[RANGES_KEY])
            if content["topic_id"] != topic_id:
                raise RecordingError(
                    f"{path} was recorded from another topic of the same name: choose a new folder"
                )
            self.seen = {int(key): Intervals(pairs) for key, pairs in content["seen"].items()}
            self._chunks += 1

    def skip(self, partition: int, offset: int) -> None:
        """A record that was seen, and is not part of the recording."""
        self.seen.setdefault(partition, Intervals()).add(offset)

    def add(self, record: RawRecord) -> None:
        """Takes a record in; writes a chunk when there is enough for one."""
        self.seen.setdefault(record.partition, Intervals()).add(record.offset)
        self._pending.append(record)
        self._bytes += len(record.value)
        if self._bytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending."""
        if not self._pending:
            return
        columns = [[getattr(r, item.name) for r in self._pending] for item in _SCHEMA]
        arrays = [
            pa.array(column, item.type) for column, item in zip(columns, _SCHEMA, strict=True)
        ]
        seen = {str(key): list(found) for key, found in self.seen.items()}
        metadata = {RANGES_KEY: json.dumps({"topic_id": self._topic_id, "seen": seen}).encode()}
        table = pa.Table.from_arrays(arrays, schema=_SCHEMA.with_metadata(metadata))
        path = self._folder / f"{self._kind}-{self._chunks:05d}.parquet"
        fresh = path.with_suffix(".tmp")
        with fresh.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        self._chunks += 1
        self._pending.clear()
        self._bytes = 0


def _columns(path: Path, *names: str) -> pa.Table:
    """Columns of a chunk, as they were written. Raises `RecordingError`."""
    try:
        with pq.ParquetFile(path) as file:  # a few bytes may say that they are any number
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > _MOST_CHUNK:
                raise ValueError(f"more than {_MOST_CHUNK} bytes")
        found = pq.read_table(path, columns=list(names), partitioning=None)
        found = found.cast(pa.schema([_SCHEMA.field(name) for name in names]))
        found.validate(full=True)
        empty = [name for name in names if found.column(name).null_count]
        problem = f"nothing in places of {empty[0]}" if empty else ""
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = f"{error}"
    if problem:
        raise RecordingError(f"{path}: not a chunk of a recording ({problem}): record again")
    return found


def chunk_paths(folder: Path, kind: Kind) -> list[Path]:
    """The chunks of a kind, in the order in which they were written."""
    return sorted(folder.glob(f"{kind}-[0-9]*.parquet"))


def spec_text(spec: SystemSpec) -> str:
    """A spec as YAML that reads back as the same spec, whatever file it came from."""
    content = _readable(spec.model_dump(mode="json", by_alias=True))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=96)
    if parse_spec(text, SPEC).spec_hash != spec.spec_hash:
        raise RecordingError(f"{spec.system}: the spec does not survive being written; report this")
    return text


_DURATIONS: Final = (
    "tick",
    "lateness",
    "forget_after",
    "every",
    "max_age",
    "deadline",
    "discipline",
    "stale_after",
    "wait",
    "ahead",
)
_FREE: Final = ("fallback", "plant")  # their parameters are their own, and plain values already


def _readable(content: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in content.items():
        if value is None:
            continue
        if isinstance(value, dict) and name not in _FREE:
            value = _readable(value)
        elif name in _DURATIONS and isinstance(value, int) and value is not False:
            value = format_duration(value)
        elif name == "shape":
            value = [value]
        made[name] = value
    return made


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes the manifest, with the digests of all files beside it."""
    files = {}
    for path in sorted([folder / SPEC, *(p for kind in KINDS for p in chunk_paths(folder, kind))]):
        data = path.read_bytes()
        files[path.name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    body = {"format": FORMAT, **content, "files": files}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["digest"] = hashlib.sha256(canonical).hexdigest()
    fresh = folder / f"{MANIFEST}.tmp"
    fresh.write_text(json.dumps(body, indent=1) + "\n")
    fresh.replace(folder / MANIFEST)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_MANIFEST:
            raise ValueError(f"more than {_MOST_MANIFEST} bytes")
        content = json.loads(path.read_bytes())
        if "format" in content and all(e["sha256"] for e in content["files"].values()):
            return dict(content)
        problem = "a field is missing"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = f"{error}"
    raise RecordingError(f"{path}: not the manifest of a recording ({problem}): record again")


@dataclass
class Recording:
    """A finished recording, to be read."""

    folder: Path
    manifest: dict[str, Any]
    _cache: OrderedDict[Path, pa.Table] = field(default_factory=OrderedDict, repr=False)

    @classmethod
    def open(cls, folder: Path, verify: bool = True) -> Recording:
        """Opens a recording; `verify` compares every file with its digest.

        Raises:
            RecordingError: there is none, it was cut off, or a file was changed.
        """
        path = folder / MANIFEST
        if not path.is_file():
            began = any(chunk_paths(folder, kind) for kind in KINDS)
            remedy = "it was cut off: record once more into it, it goes on" if began else "make one"
            raise RecordingError(f"{folder} is no finished recording; {remedy} (rehearse record)")
        recording = cls(folder, _manifest(path))
        if recording.manifest.get("format") != FORMAT:
            raise RecordingError(f"{path}: format {recording.manifest.get('format')}, not {FORMAT}")
        if verify:
            recording._verify()
        return recording

    def _verify(self) -> None:
        files = self.manifest["files"]
        if unlisted := [
            p for kind in KINDS for p in chunk_paths(self.folder, kind) if p.name not in files
        ]:
            raise RecordingError(f"{unlisted[0]} is no part of the recording: remove it")
        for name, facts in files.items():
            path = self.folder / name
            if not path.is_file():
                raise RecordingError(f"{path} is missing: record again")
            if hashlib.sha256(path.read_bytes()).hexdigest() != facts["sha256"]:
                raise RecordingError(f"{path} was changed since it was recorded: record again")

    @cached_property
    def spec(self) -> SystemSpec:
        """The system as it was recorded."""
        return load_spec(self.folder / SPEC)

    def index(self, kind: Kind) -> list[tuple[int, int, int, Path, int]]:
        """(tick, cohort, offset, file, row) of every record of a kind, in that order."""
        found = []
        for path in chunk_paths(self.folder, kind):
            columns = _columns(path, "tick", "cohort", "offset")
            places = zip(*columns.to_pydict().values(), strict=True)
            found += [(*place, path, row) for row, place in enumerate(places)]
        return sorted(found, key=lambda place: place[:3])

    def value(self, path: Path, row: int) -> bytes:
        """The bytes of one record."""
        if path in self._cache:
            self._cache.move_to_end(path)
        else:
            self._cache[path] = _columns(path, "value")
            if len(self._cache) > KEPT_CHUNKS:
                self._cache.popitem(last=False)
        values = self._cache[path].column("value")
        if row >= len(values):
            raise RecordingError(f"{path}: {len(values)} values for more records: record again")
        value: bytes = values[row].as_py()
        return value

    def records(self, kind: Kind) -> Iterator[tuple[int, int, bytes]]:
        """(tick, cohort, value) of every record of a kind, by tick and cohort."""
        for tick, cohort, _, path, row in self.index(kind):
            yield tick, cohort, self.value(path, row)
