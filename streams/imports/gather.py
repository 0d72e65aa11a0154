"""From logs and a mapping to readings per sensor, in the spec's channels and units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
import polars as pl

from schemas.system import SystemSpec
from streams.align_state import Floats, Ints
from streams.imports.log import Content, LogError, OnRead, Reader, Table, Want
from streams.imports.mapping import (
    TABLES,
    EntityField,
    Format,
    Located,
    Source,
    factors,
    format_of,
    pattern,
)
from streams.imports.mcap import McapReader
from streams.imports.rosbag import RosbagReader
from streams.imports.tables import TableReader
from streams.imports.ulog import UlogReader
from streams.imports.units import LibraryError

READERS: Final[Mapping[Format, Reader]] = {
    "mcap": McapReader(),
    "rosbag": RosbagReader(),
    "ulog": UlogReader(),
    "csv": TableReader("csv"),
    "parquet": TableReader("parquet"),
}
T = TypeVar("T")


class Stream(NamedTuple):
    """`n` readings of one sensor (or actions), by time: whose, when, and values [n, columns]."""

    entity: Ints  # index into the names
    time_us: Ints
    values: Floats

    def between(self, first_us: int, end_us: int) -> Stream:
        """Those with first_us < time ≤ end_us."""
        begin, end = np.searchsorted(self.time_us, [first_us, end_us], side="right")
        chosen = slice(int(begin), int(end))
        return Stream(self.entity[chosen], self.time_us[chosen], self.values[chosen])


class Gathered(NamedTuple):
    """Everything that a mapping finds: names of entities, readings by sensor, actions."""

    entities: list[str]
    sensors: dict[str, Stream]
    actions: Stream | None

    @property
    def readings(self) -> int:
        """How many there are."""
        return sum(len(stream.time_us) for stream in self.sensors.values())


def contents(path: Path, located: Located | None = None) -> list[Content]:
    """What a log holds, for whoever writes a mapping. Raises `LogError` or `LibraryError`."""
    kind = format_of(path, located.mapping if located else None)
    return _guarded(path, kind, lambda reader: reader.contents(path))


def gather(
    located: Located, spec: SystemSpec, files: Sequence[Path], shown: OnRead = lambda *_: None
) -> Gathered:
    """Reads all of `files` that the mapping names.

    Raises:
        LogError: a file cannot be read, or lacks what the mapping wants of it.
        LibraryError: the library of a format is not installed.
    """
    mapping, names = located.mapping, _Names(located)
    wants = [(place, source, _want(located, place, source)) for place, source in mapping.sources()]
    found: dict[tuple[str, ...], list[Table]] = {place: [] for place, _, _ in wants}
    for path in files:
        here = [(place, want) for place, _, want in wants if _meant(want, path)]
        kind = format_of(path, mapping)
        for place, want in here:
            if kind not in TABLES and want.topic is None:
                raise LogError(f"{located.at(*place)}: add 'topic:', as {path} has several")
        if not here:
            continue
        chosen = [want for _, want in here]
        read = _guarded(path, kind, partial(_read, path, chosen, shown))
        for (place, _), tables in zip(here, read, strict=True):
            found[place] += tables
    for place, source, _ in wants:
        if not found[place]:
            raise LogError(
                f"{located.at(*place)}: none of the files is {source.file!r}; given were "
                f"{', '.join(path.name for path in files)}"
            )
    sensors = {
        name: _stream(
            found["sensors", name],
            source,
            [(c.name, c.size, c.unit) for c in spec.sensors[name].channels.values()],
            names,
        )
        for name, source in mapping.sensors.items()
    }
    actions = None
    if mapping.actions is not None:
        columns = [(a.name, a.size, a.unit) for a in spec.actions.values()]
        actions = _stream(found["actions",], mapping.actions, columns, names)
    gathered = Gathered(names.known, sensors, actions)
    if not gathered.readings:
        raise LogError(f"{located.name}: there is no reading in {', '.join(map(str, files))}")
    return gathered


def _read(path: Path, wants: list[Want], shown: OnRead, reader: Reader) -> list[list[Table]]:
    return reader.read(path, wants, shown)


def _guarded(path: Path, kind: Format, read: Callable[[Reader], T]) -> T:
    """What `read` gives; whatever a format's library raises becomes a plain error."""
    try:
        return read(READERS[kind])
    except (LogError, LibraryError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        raise LogError(f"{path}: there is no such file") from error
    # Each library has errors of its own, and bugs on broken files; Polars' panics are no Exception.
    except (Exception, pl.exceptions.PanicException) as error:
        raise LogError(
            f"{path}: not a {kind} file that can be read: {type(error).__name__}: {error}"
        ) from error


def _want(located: Located, place: tuple[str, ...], source: Source) -> Want:
    fields = dict.fromkeys(name for part in source.parts.values() for name in part.names)
    entity = located.mapping.entity
    return Want(
        located.at(*place),
        source.topic,
        source.file,
        source.instance,
        source.time,
        tuple(fields),
        entity.field if isinstance(entity, EntityField) else None,
    )


def _meant(want: Want, path: Path) -> bool:
    return want.file is None or pattern(want.file).fullmatch(path.name) is not None


class _Names:
    """Entities by number, in the order in which they are met."""

    def __init__(self, located: Located) -> None:
        self._located, self.known = located, list[str]()
        self._index: dict[str, int] = {}

    def rows(self, table: Table) -> Ints:
        """[n] the entity of each reading."""
        fixed, count = self._located.mapping.entity, len(table.time_us)
        if isinstance(table.entity, str):
            name = table.entity or (fixed if isinstance(fixed, str) else "")
            return np.full(count, self._row(name), dtype=np.int64)
        return np.fromiter(map(self._row, table.entity), np.int64, count)

    def _row(self, name: str) -> int:
        if not name:
            raise LogError(
                f"{self._located.at('entity')}: a reading names no entity; write 'entity: NAME' "
                "if all are of one"
            )
        found = self._index.get(name)
        if found is None:
            found = self._index[name] = len(self.known)
            self.known.append(name)
        return found


def _stream(
    tables: list[Table], source: Source, wanted: Iterable[tuple[str, int, str]], names: _Names
) -> Stream:
    """Tables as one stream; `wanted` are (name, components, unit) of all its columns in order."""
    fields = list(dict.fromkeys(name for part in source.parts.values() for name in part.names))
    place = {field: i for i, field in enumerate(fields)}
    entity = np.concatenate([names.rows(table) for table in tables])
    time = np.concatenate([table.time_us for table in tables])
    raw = np.concatenate([table.values for table in tables])
    columns: list[Floats] = []
    for name, size, unit in wanted:
        part = source.parts.get(name)
        if part is None:  # the log does not have it: missing
            columns += [np.full(len(time), np.nan)] * size
            continue
        scale, offset = factors(part, unit)
        columns += [raw[:, place[field]] * scale + offset for field in part.names]
    order = np.argsort(time, kind="stable")
    return Stream(entity[order], time[order], np.stack(columns, axis=1)[order])
