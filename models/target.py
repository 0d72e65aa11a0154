"""The one that a model or a simulator is to fit: an entity of a log, and its last minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.storage import Place
from models.data import Facts, Sequences, read_whole
from models.logs import DataError
from schemas.system import SystemSpec

Bools = npt.NDArray[np.bool_]
SHORTEST = 8
"""Ticks below which a stretch is left out."""


def read_target(
    spec: SystemSpec, folders: Sequence[Place], entity: str | None, minutes: float | None
) -> tuple[Sequences, Facts]:
    """What the trajectories below `folders` say of an entity (None: of all) in the last `minutes`
    of each run (None: ever), and where it is from.

    Raises:
        DataError: no such entity, or too little of it.
    """
    data, facts = read_whole(spec, folders, shortest=SHORTEST)
    wanted = np.ones(len(data), bool)
    if entity is not None:
        wanted = data.entity == entity
        if not wanted.any():
            there = sorted(set(data.entity.tolist()))
            some = ", ".join(there[:5]) + (", …" if len(there) > 5 else "")
            raise DataError(f"{folders[0]}: no unbroken run of entity {entity!r}; there are {some}")
    if minutes is not None:
        ticks = minutes * 60e6 / spec.period_us
        for run in np.unique(data.run[wanted]):
            mine = wanted & (data.run == run)
            wanted &= (data.run != run) | (data.tick > data.tick[mine].max() - ticks)
    return select(data, wanted), facts


def select(data: Sequences, wanted: Bools) -> Sequences:
    """The wanted rows; a segment ends where the next row is not wanted.

    Raises:
        DataError: no stretch of them is `SHORTEST` ticks long.
    """
    breaks = np.arange(len(data)) == data.first
    breaks[1:] |= wanted[1:] != wanted[:-1]
    number = np.cumsum(breaks)
    length = np.bincount(number)[number]
    kept = wanted & (length >= SHORTEST)
    if not kept.any():
        raise DataError(f"{int(wanted.sum())} ticks are left, none of them in a run of {SHORTEST}")
    _, first, count = np.unique(number[kept], return_index=True, return_counts=True)
    rows = {
        field.name: value[kept]
        for field in fields(data)
        if (value := getattr(data, field.name)) is not None
    }
    rows |= {"first": np.repeat(first, count), "last": np.repeat(first + count, count)}
    return Sequences(**rows)


def joined(*parts: Sequences) -> Sequences:
    """Several as one, whose segments stay what they are."""
    before = np.cumsum([0, *(len(part) for part in parts[:-1])])
    rows: dict[str, npt.NDArray[Any] | None] = {}
    for field in fields(Sequences):
        values = [getattr(part, field.name) for part in parts]
        if field.name in ("first", "last"):
            values = [value + rest for value, rest in zip(values, before, strict=True)]
        rows[field.name] = None if any(v is None for v in values) else np.concatenate(values)
    return Sequences(**rows)  # type: ignore[arg-type]


def in_time(data: Sequences, shares: Sequence[float]) -> tuple[Sequences, ...]:
    """Parts of each run, one after the other in time, by shares of its ticks.

    Raises:
        DataError: a part would be empty.
    """
    place = np.zeros(len(data))
    for run in np.unique(data.run):
        mine = data.run == run
        ticks = data.tick[mine]
        place[mine] = (ticks - ticks.min()) / (ticks.max() - ticks.min() + 1)
    ends = np.cumsum(shares)
    part = np.searchsorted(ends[:-1], place, side="right")
    return tuple(select(data, part == i) for i in range(len(ends)))
