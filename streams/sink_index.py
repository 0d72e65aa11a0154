"""The catalog's view of a sink's files: where each action lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import delete

from schemas.catalog import Catalog, File
from schemas.system import SystemSpec
from streams import sink_files
from streams.sink_files import FileInfo

PIECE_ROWS: Final = 2_000  # after so many, others have their turn
_INDEXED: Final = ("action_id", "entity", "tick")


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
        known = {row.path for row in self._catalog.files(self._spec.system) if row.digest}
        there = {str(info.path): info for info in files}
        mine = {path for path in known if Path(path).is_relative_to(self._root)}
        self._drop(sorted(mine - there.keys()))
        for path in sorted(there.keys() - known):
            self.add(there[path])

    def add(self, info: FileInfo) -> None:
        """Puts a file and its actions into the catalog."""
        if self._catalog is not None:
            table = pq.read_table(info.path, columns=list(_INDEXED), partitioning=None)
            for _ in self.adding(info, table):
                pass

    def adding(self, info: FileInfo, table: pa.Table) -> Iterator[None]:
        """As `add`, with a pause for whoever calls after each piece; `table` holds its rows."""
        if self._catalog is None:
            return
        data = info.path.read_bytes()
        bounds = [tick for pairs in info.ticks.values() for pair in pairs for tick in pair]
        row = File(
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
            bytes=len(data),
            digest="",
        )
        self._catalog.put(row)
        for begin in range(0, info.rows, PIECE_ROWS):
            part = table.slice(begin, PIECE_ROWS)
            ids, entities, ticks = (part.column(name).to_pylist() for name in _INDEXED)
            groups = (np.arange(begin, begin + len(ids)) // sink_files.ROW_GROUP).tolist()
            self._catalog.index_decisions(row.path, ids, entities, ticks, groups, more=begin > 0)
            yield
        row.digest = hashlib.sha256(data).hexdigest()
        self._catalog.put(row)

    def replace(self, old: Sequence[FileInfo], merged: FileInfo) -> None:
        """Puts the merged file in, and takes those out that it replaces."""
        self.add(merged)
        self._drop([str(info.path) for info in old])

    def _drop(self, paths: Sequence[str]) -> None:
        if self._catalog is None or not paths:
            return
        with self._catalog.session(write=True) as session:
            session.execute(delete(File).where(File.path.in_(paths)))

    def close(self) -> None:
        """Leaves the catalog."""
        if self._catalog is not None:
            self._catalog.close()
