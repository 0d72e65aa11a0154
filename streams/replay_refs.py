"""A file of references: the decisions of a replay that later ones are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streams.replay_deck import ReplayError

Reference = tuple[int, int, bytes]  # tick, cohort, encoded trajectory


def read_references(path: Path) -> dict[tuple[int, int], bytes]:
    """(tick, cohort) → encoded trajectory. Raises `ReplayError`: no such file, or a damaged one."""
    if not path.is_file():
        raise ReplayError(f"{path}: no such file of references; make it with --update-refs")
    try:
        columns = pq.read_table(path).to_pydict()
        places = zip(columns["tick"], columns["cohort"], strict=True)
        return dict(zip(places, columns["value"], strict=True))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise ReplayError(
            f"{path}: no file of references ({error}); make it again with --update-refs"
        ) from error


def write_references(path: Path, kept: Sequence[Reference]) -> None:
    """Writes references, in the place of those that the file had."""
    ticks, cohorts, values = zip(*kept, strict=True) if kept else ((), (), ())
    table = pa.table(
        {
            "tick": pa.array(ticks, pa.int64()),
            "cohort": pa.array(cohorts, pa.int32()),
            "value": pa.array(values, pa.binary()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(path)
