"""What operators said, as of a tick: control records by their event time, the last per key."""

from bisect import bisect_right, insort
from itertools import count

from schemas.frames import ControlView
from schemas.messages import Control


class ControlLog:
    """Control records in the order of their time; equal times in the order of arrival.

    Of one key the last word counts: a record never takes effect before an earlier one of its key,
    so that a `resume` without a time lifts a hold that has one.
    """

    def __init__(self) -> None:
        self._records: list[tuple[int, int, Control]] = []
        self._views: list[ControlView] = [ControlView()]
        self._number = count()
        self._since: dict[str, int] = {}  # key → when its newest record takes effect

    def add(self, record: Control) -> None:
        """Takes a record; frames from its time on show it, as far as they are not closed yet."""
        since = max(record.time, self._since.get(record.key, record.time))
        self._since[record.key] = since
        entry = (since, next(self._number), record)
        insort(self._records, entry)
        del self._views[self._records.index(entry) + 1 :]

    def remove(self, key: str) -> None:
        """Takes back every record of `key` (a tombstone of the compacted topic)."""
        self._records = [entry for entry in self._records if entry[2].key != key]
        self._since.pop(key, None)
        del self._views[1:]

    def at(self, time_us: int) -> ControlView:
        """The view as of `time_us`."""
        known = bisect_right(self._records, time_us, key=lambda entry: entry[0])
        if known >= len(self._views):
            self._extend()
        return self._views[known]

    def _extend(self) -> None:
        done = len(self._views) - 1
        latest = {record.key: record for _, _, record in self._records[:done]}
        for _, _, record in self._records[done:]:
            latest.pop(record.key, None)
            latest[record.key] = record
            self._views.append(_view(latest))


def _view(latest: dict[str, Control]) -> ControlView:
    bundle, budget = None, None
    holds: list[str] = []
    overrides: dict[str, dict[str, float]] = {}
    rearms: dict[str, int] = {}
    for record in latest.values():
        if record.kind == "release":
            bundle = record.bundle
        elif record.kind == "budget":
            budget = record.tier
        elif record.kind == "hold":
            holds.append(record.entity)
        elif record.kind == "override" and record.values:
            overrides[record.entity] = dict(record.values)
        elif record.kind == "rearm":
            rearms[record.entity] = record.said
    return ControlView(
        bundle,
        tuple(sorted(holds)),
        dict(sorted(overrides.items())),
        budget,
        dict(sorted(rearms.items())),
    )
