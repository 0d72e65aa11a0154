"""Where in a Parquet file of trajectories the rows of one action lie: the row group, exactly.

Read are the statistics of row groups, and of those that may hold what is looked for the columns
that say so. Anything that is wrong with the file is told with its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_COLUMNS: Final = ("action_id", "system", "entity", "tick")
_ANY: Final = 2**63

__all__ = ["FileGone", "FileUnreadable", "Place", "last_of_entity", "of_action"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of one action lie; read the row group and filter by `action_id`."""

    action_id: str
    system: str
    entity: str
    tick: int
    path: str
    row_group: int


class FileUnreadable(RuntimeError):
    """A file is no Parquet file of trajectories, or damaged."""


class FileGone(FileUnreadable):
    """A file is not there. `path`: which."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not there")
        self.path = path


def of_action(path: str, action_id: str) -> list[Place]:
    """Every row group of the file that holds rows of the action.

    Raises:
        FileGone, FileUnreadable: it cannot be looked into.
    """
    with _opened(path) as file:
        found = []
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["action_id"]).column("action_id")
            at = pc.index(ids, action_id).as_py()
            if at >= 0:
                found.append(_place(file, path, group, at))
        return found


def last_of_entity(path: str, entity: str, tick: int) -> list[Place]:
    """Every row group that holds rows of the entity's last decision at or before `tick`.

    Raises:
        FileGone, FileUnreadable: it cannot be looked into.
    """
    with _opened(path) as file:
        found: list[Place] = []
        for first, last, group in sorted(_ticks(file), key=lambda bounds: -bounds[1]):
            if first > tick or (found and last < found[0].tick):
                continue
            columns = file.read_row_group(group, columns=["entity", "tick"])
            mine = pc.and_(
                pc.equal(columns.column("entity"), entity),
                pc.less_equal(columns.column("tick"), tick),
            )
            newest = pc.max(columns.column("tick").filter(mine)).as_py()
            if newest is None or (found and newest < found[0].tick):
                continue
            found = [place for place in found if place.tick == newest]
            at = pc.index(pc.and_(mine, pc.equal(columns.column("tick"), newest)), True).as_py()
            found.append(_place(file, path, group, at))
        return sorted(found, key=lambda place: place.row_group)


def _ticks(file: pq.ParquetFile) -> Iterator[tuple[int, int, int]]:
    """First tick, last tick and number of each row group; anything, where it does not say."""
    leaf = [file.schema.column(number).path for number in range(len(file.schema))].index("tick")
    for group in range(file.num_row_groups):
        said = file.metadata.row_group(group).column(leaf).statistics
        known = said is not None and said.has_min_max
        yield (said.min, said.max, group) if known else (-_ANY, _ANY, group)


def _place(file: pq.ParquetFile, path: str, group: int, at: int) -> Place:
    (row,) = file.read_row_group(group, columns=list(_COLUMNS)).slice(at, 1).to_pylist()
    return Place(path=path, row_group=group, **row)


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            if missing := set(_COLUMNS) - set(file.schema_arrow.names):
                raise FileUnreadable(f"{path} has no column {min(missing)}")
            yield file
    except FileNotFoundError:
        raise FileGone(path) from None
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        reason = str(error).strip("'\"").splitlines()
        raise FileUnreadable(f"{path} cannot be read: {reason[0] if reason else error!r}") from None
