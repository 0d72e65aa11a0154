"""From the grid of ticks and entities to frames."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.codes import Flag
from schemas.frames import Frame, FrameHeader
from streams.align_actions import InForce
from streams.align_state import NEVER, Bools, Entities, Floats, Ints


class Grid(NamedTuple):
    """Ticks `first`, `first + 1`, … of all entities.

    time     [ticks, 1] us
    values   [O, ticks, E]
    newest   [channels, ticks, E] us, NEVER where never seen
    alive    [ticks, E] who is in the frames
    before   [ticks, E] who was in the cohort one tick before
    blocked  [ticks, cohorts] what closed by lateness
    """

    first: int
    time: Ints
    values: Floats
    newest: Ints
    action: InForce
    alive: Bools
    before: Bools
    blocked: Bools
    reset: Bools


def frames_of(
    grid: Grid, entities: Entities, headers: list[FrameHeader], span: tuple[Ints, Ints]
) -> list[Frame]:
    """The frames of cohorts with live entities; `headers` [ticks] lack what is a cohort's own.

    `span` gives each cohort's first and last tick of the grid.
    """
    frames: list[Frame] = []
    for cohort in np.flatnonzero(span[0] <= span[1]):
        begin, end = int(span[0][cohort]) - grid.first, int(span[1][cohort]) - grid.first + 1
        ticks = slice(begin, end)
        part = _cohort(grid, entities, int(cohort), ticks)
        frames += _frames(part, headers[ticks], int(cohort))
    return frames


class _Cohort(NamedTuple):
    """One cohort's part of the grid, entities sorted by name; the frames are slices of it."""

    names: npt.NDArray[np.object_]  # [E]
    alive: Bools  # [ticks, E]
    left: Bools  # [ticks, E]
    late: Bools  # [ticks]
    newest: Ints  # [ticks, E, channels]
    rough: Bools  # [ticks, E, channels] where the age does not give the time exactly
    columns: tuple[npt.NDArray[Any], ...]  # values, ages, applied, status, flags


def _cohort(grid: Grid, entities: Entities, cohort: int, ticks: slice) -> _Cohort:
    rows, names = entities.of_cohort(cohort)
    alive, before = grid.alive[ticks, rows], grid.before[ticks, rows]
    newest = grid.newest[:, ticks, rows].transpose(1, 2, 0)
    never = newest == NEVER
    age_us = np.where(never, 0, grid.time[ticks][:, :, None] - newest)
    ages = (age_us * 1e-6).astype(np.float32)
    rough = (np.rint(ages.astype(np.float64) * 1e6) != age_us) & alive[:, :, None]
    ages[never] = np.nan
    flags = np.where(alive & ~before, np.uint8(Flag.JOINED), np.uint8(0))
    flags |= np.where(grid.reset[ticks, rows], np.uint8(Flag.RESET), np.uint8(0))
    columns = (
        np.ascontiguousarray(grid.values[:, ticks, rows].transpose(1, 2, 0)),
        ages,
        np.ascontiguousarray(grid.action.values[:, ticks, rows].transpose(1, 2, 0)),
        grid.action.status[ticks, rows],
        flags,
    )
    late = grid.blocked[ticks, cohort]
    return _Cohort(names, alive, before & ~alive, late, newest, rough, columns)


def _frames(part: _Cohort, headers: list[FrameHeader], cohort: int) -> list[Frame]:
    everyone = tuple(part.names)
    full: list[bool] = np.all(part.alive, axis=1).tolist()
    some: list[bool] = np.any(part.alive, axis=1).tolist()
    leaves: list[bool] = np.any(part.left, axis=1).tolist()
    inexact: list[bool] = np.any(part.rough, axis=(1, 2)).tolist()
    late: list[bool] = part.late.tolist()
    frames: list[Frame] = []
    for i, header in enumerate(headers):
        if not some[i]:
            continue
        who = slice(None) if full[i] else part.alive[i]
        own: dict[str, Any] = {"cohort": cohort}
        if late[i]:
            own["closed_by"] = "lateness"
        if leaves[i]:
            own["left"] = tuple(part.names[part.left[i]])
        if inexact[i]:
            own["exact_us"] = _exact(part.newest[i][who], part.rough[i][who])
        columns = (column[i][who] for column in part.columns)
        names = everyone if full[i] else tuple(part.names[who])
        frames.append(Frame(FrameHeader(**{**header.__dict__, **own}), names, *columns))
    return frames


def _exact(newest: Ints, rough: Bools) -> tuple[tuple[int, int, int], ...]:
    rows, channels = np.nonzero(rough)
    times = newest[rows, channels]
    return tuple(zip(rows.tolist(), channels.tolist(), times.tolist(), strict=True))
