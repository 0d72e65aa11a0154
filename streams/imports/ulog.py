"""ULog files of PX4, by pyulog; a topic is one array per field already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from streams.imports.log import (
    Content,
    LogError,
    OnRead,
    Table,
    Want,
    missing_field,
    missing_topic,
    scaled_times,
)
from streams.imports.units import library

_TIME: Final = "timestamp"  # microseconds since the autopilot was started


class UlogReader:
    """Reads the topics of a ULog file; the time without a field is `timestamp`, in us."""

    def read(self, path: Path, wants: list[Want], shown: OnRead) -> list[list[Table]]:
        """See `log.Reader`."""
        data = _open(path).data_list
        names = {f"{item.name}[{item.multi_id}]" if item.multi_id else item.name for item in data}
        found = []
        for done, want in enumerate(wants):
            tables = []
            for item in data:
                entity = want.names_in(item.name)
                if entity is not None and item.multi_id == want.instance:
                    tables.append(_table(item, want, entity))
            if not tables:
                raise missing_topic(want, path, list(names))
            found.append(tables)
            shown(done + 1, len(wants))
        return found

    def contents(self, path: Path) -> list[Content]:
        """See `log.Reader`."""
        found = [
            Content(
                f"{item.name}[{item.multi_id}]" if item.multi_id else item.name,
                len(item.data[_TIME]),
                tuple(item.data),
            )
            for item in _open(path).data_list
        ]
        return sorted(found)


def _table(item: Any, want: Want, entity: str) -> Table:
    for field in (*want.fields, want.time.field or _TIME):
        if field not in item.data:
            raise missing_field(want.at, field, item.name, tuple(item.data))
    if want.entity_field is not None and not entity:
        raise LogError(f"{want.at}: ULog fields are numbers; name the entity by 'entity: NAME'")
    columns = [item.data[field].astype(np.float64) for field in want.fields]
    unit = "us" if want.time.field is None else want.time.unit
    time = scaled_times(item.data[want.time.field or _TIME], unit)
    return Table(time, np.stack(columns, axis=1), entity)


def _open(path: Path) -> Any:
    module = library("pyulog", "a ULog file")
    with path.open("rb") as stream:
        return module.ULog(stream)
