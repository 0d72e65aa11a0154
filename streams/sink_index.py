"""The catalog's view of a sink's files: what each holds, and which actions and entities."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import delete

from schemas.bloom import Keys, filling, filter_of, keys_of, keys_of_entities
from schemas.catalog import Catalog, File
from schemas.system import SystemSpec
from streams.sink_files import FileInfo

PIECE_BYTES: Final = 1 << 20  # are digested at a time
_KEYED: Final = ["action_id", "entity"]


class SinkIndex:
    """The catalog's view of the files, if there is a catalog."""

    def __init__(self, spec: SystemSpec, root: Path, url: str | None) -> None:
        self._spec, self._root = spec, root
        self._catalog = Catalog(url) if url else None
        if self._catalog:
            self._catalog.create()

    def match(self, files: Sequence[FileInfo]) -> None:
        """Makes the catalog say what is there: after a crash it may lag behind, or be ahead."""
        if self._catalog is None:
            return
        known = {row.path for row in self._catalog.files(self._spec.system)}
        there = {str(info.path): info for info in files}
        mine = {path for path in known if Path(path).is_relative_to(self._root)}
        self._drop(sorted(mine - there.keys()))
        for path in sorted(there.keys() - self._catalog.indexed(self._spec.system)):
            self.add(there[path])

    def add(self, info: FileInfo) -> None:
        """Puts a file into the catalog."""
        with pq.ParquetFile(info.path) as file:
            for _ in self._adding(info, file.iter_batches(columns=_KEYED)):
                pass

    def adding(self, info: FileInfo, table: pa.Table) -> Iterator[None]:
        """As `add`, with a pause for whoever calls after each piece; `table` holds its rows."""
        return self._adding(info, table.select(_KEYED).to_batches())

    def _adding(self, info: FileInfo, batches: Iterable[pa.RecordBatch]) -> Iterator[None]:
        if self._catalog is None:
            return
        digest = yield from _digest(info.path)
        keys = FileKeys()
        for batch in batches:
            keys.add(batch)
        yield
        self._catalog.put_file(_row(info, digest), filter_of(keys.all()))

    def replacing(
        self, old: Sequence[FileInfo], merged: FileInfo, keys: FileKeys
    ) -> Iterator[None]:
        """Puts the merged file in, and those out that it replaces, in one transaction."""
        if self._catalog is None:
            return
        digest = yield from _digest(merged.path)
        bits = yield from filling(keys.all())
        paths = [str(info.path) for info in old]
        self._catalog.put_file(_row(merged, digest), bits, replaces=paths)

    def _drop(self, paths: Sequence[str]) -> None:
        if self._catalog is None or not paths:
            return
        with self._catalog.session(write=True) as session:
            session.execute(delete(File).where(File.path.in_(paths)))

    def close(self) -> None:
        """Leaves the catalog."""
        if self._catalog is not None:
            self._catalog.close()


class FileKeys:
    """The keys of all actions and entities in the rows that it was given."""

    def __init__(self) -> None:
        self._actions: list[Keys] = []
        self._entities: set[Any] = set()

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Takes rows in; their columns `action_id` and `entity` are looked at."""
        self._actions.append(keys_of(rows.column("action_id").to_pylist()))
        self._entities.update(rows.column("entity").unique().to_pylist())

    def all(self) -> Keys:
        """[any number] all keys."""
        return np.concatenate([*self._actions, keys_of_entities(sorted(self._entities))])


def _digest(path: Path) -> Generator[None, None, str]:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            content.update(piece)
            yield
    return content.hexdigest()


def _row(info: FileInfo, digest: str) -> File:
    bounds = [tick for pairs in info.ticks.values() for pair in pairs for tick in pair]
    return File(
        path=str(info.path),
        system=info.system,
        day=info.day,
        first_tick=min(bounds, default=0),
        last_tick=max(bounds, default=1) - 1,
        rows=info.rows,
        cohorts=sorted(info.ticks),
        spec_hash=info.facts["spec_hash"],
        interface_hash=info.facts["interface_hash"],
        objective_hash=info.facts["objective_hash"],
        bundles=info.facts["bundles"],
        bytes=info.path.stat().st_size,
        digest=digest,
    )
