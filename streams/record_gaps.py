"""What a recording lacks, in words: stretches that only one of its two topics has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from schemas.system import SystemSpec
from schemas.topics import topic
from streams.recording import Kind

Places = dict[int, set[int]]
"""Cohort → ticks."""


def gaps(spec: SystemSpec, tables: Mapping[Kind, Sequence[pa.Table]]) -> list[str]:
    """One line for each cohort of which one topic has ticks that the other has not.

    Frames behind the last trajectory are left out: nobody may have decided on them yet.
    """
    frames, decided = (_places(tables[kind]) for kind in ("frames", "trajectories"))
    found = []
    for cohort in sorted(frames | decided):
        of_frames, of_decided = frames.get(cohort, set()), decided.get(cohort, set())
        last = max(of_decided, default=None)
        undecided = {t for t in of_frames - of_decided if last is None or t < last}
        found += _line(spec, cohort, undecided, "trajectories", "were never decided, or")
        found += _line(spec, cohort, of_decided - of_frames, "frames", "")
    return found


def _places(tables: Iterable[pa.Table]) -> Places:
    found: Places = {}
    for table in tables:
        columns = (table.column(name).to_pylist() for name in ("cohort", "tick"))
        for cohort, tick in zip(*columns, strict=True):
            found.setdefault(cohort, set()).add(tick)
    return found


def _line(spec: SystemSpec, cohort: int, ticks: set[int], kind: Kind, or_: str) -> list[str]:
    if not ticks:
        return []
    words = " ".join(filter(None, (or_, f"have gone from {topic(spec, kind)} (its retention)")))
    span = f"ticks {min(ticks)} to {max(ticks)}" if len(ticks) > 1 else f"tick {min(ticks)}"
    remedy = "a replay passes over them, and starts from the next key frame"
    return [f"cohort {cohort}: {len(ticks)} of {span} {words}; {remedy}"]
