"""Which action was in force before each tick: what was reported counts, else what was issued."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.codes import Status
from streams.align_state import FAR, NEVER, Bools, Floats, Ints, grown


class _Tick(NamedTuple):
    """What is known of the actions of one tick, per entity."""

    reported: npt.NDArray[np.uint8]  # [E] Status; NONE where there is no report
    report: Floats  # [A, E]
    report_origin: Ints  # [2, E] source and offset of the report
    issued: Floats  # [A, E]; NaN where none
    issued_origin: Ints  # [2, E]


class InForce(NamedTuple):
    """values [A, ticks, E] and status [ticks, E] of the action in force before each tick."""

    values: Floats
    status: npt.NDArray[np.uint8]


class Actions:
    """Reports and issued actions by tick; a frame of tick k asks for the action of tick k-1.

    A report of that tick counts; without one, the first action issued under its id, as UNKNOWN;
    without that, the newest report of an earlier tick, for at most `memory` ticks; else NONE. So a
    late report corrects the next frame, and which one is the newest does not depend on their order.
    """

    def __init__(self, columns: int, memory: int) -> None:
        self.columns = columns
        self.memory = memory
        self.size = 0
        self.ticks: dict[int, _Tick] = {}
        self.last_tick: Ints = np.zeros(0, dtype=np.int64)
        self.last_status: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self.last_values: Floats = np.zeros((columns, 0))
        self.last_origin: Ints = np.zeros((2, 0), dtype=np.int64)

    def grow(self, size: int) -> None:
        """Makes room for `size` entities."""
        self.size = size
        self.last_tick = grown(self.last_tick, size, NEVER).astype(np.int64)
        self.last_status = grown(self.last_status, size, 0).astype(np.uint8)
        self.last_values = grown(self.last_values, size, np.nan).astype(np.float64)
        self.last_origin = grown(self.last_origin, size, FAR).astype(np.int64)
        for tick, known in self.ticks.items():
            self.ticks[tick] = _Tick(
                grown(known.reported, size, 0).astype(np.uint8),
                grown(known.report, size, np.nan).astype(np.float64),
                grown(known.report_origin, size, FAR).astype(np.int64),
                grown(known.issued, size, np.nan).astype(np.float64),
                grown(known.issued_origin, size, FAR).astype(np.int64),
            )

    def _at(self, tick: int) -> _Tick:
        found = self.ticks.get(tick)
        if found is None:
            found = self.ticks[tick] = _Tick(
                np.zeros(self.size, dtype=np.uint8),
                np.full((self.columns, self.size), np.nan),
                np.full((2, self.size), FAR),
                np.full((self.columns, self.size), np.nan),
                np.full((2, self.size), FAR),
            )
        return found

    def applied(
        self,
        entity: Ints,
        tick: Ints,
        values: Floats,
        status: Ints,
        closed: Ints,
        origin: tuple[Ints, Ints],
    ) -> int:
        """Takes reports in their order (values [n, A]); gives how many are of frames long closed.

        `closed` [E] is the last closed tick of each entity.
        """
        late = tick < closed[entity]
        for i in np.flatnonzero(late).tolist():
            if tick[i] >= self.last_tick[entity[i]]:
                self._remember(int(entity[i]), int(tick[i]), int(status[i]), values[i], origin, i)
        for number in np.unique(tick[~late]):
            known = self._at(int(number))
            rows = np.flatnonzero(~late & (tick == number))
            who = entity[rows]
            known.reported[who] = status[rows]
            known.report[:, who] = values[rows].T
            known.report_origin[0, who] = origin[0][rows]
            known.report_origin[1, who] = origin[1][rows]
        return int(late.sum())

    def _remember(
        self, row: int, tick: int, status: int, values: Floats, origin: tuple[Ints, Ints], i: int
    ) -> None:
        self.last_tick[row], self.last_status[row] = tick, status
        self.last_values[:, row] = values
        self.last_origin[:, row] = origin[0][i], origin[1][i]

    def issued(
        self, entity: Ints, tick: Ints, values: Floats, closed: Ints, origin: tuple[Ints, Ints]
    ) -> None:
        """Takes issued actions in their order; the first of an entity and tick counts."""
        wanted = tick >= closed[entity]
        for number in np.unique(tick[wanted]):
            known = self._at(int(number))
            rows = np.flatnonzero(wanted & (tick == number))
            rows = rows[np.unique(entity[rows], return_index=True)[1]]
            rows = rows[known.issued_origin[1, entity[rows]] == FAR]
            known.issued[:, entity[rows]] = values[rows].T
            known.issued_origin[0, entity[rows]] = origin[0][rows]
            known.issued_origin[1, entity[rows]] = origin[1][rows]

    def in_force(self, first: int, count: int, last: Ints) -> InForce:
        """The actions before ticks `first` … of entities up to tick `last` [E]; remembers them."""
        values = np.full((self.columns, count, self.size), np.nan)
        status = np.zeros((count, self.size), dtype=np.uint8)
        if not self.ticks and not np.any(self.last_tick != NEVER):
            return InForce(values, status)
        for row in range(count):
            tick = first + row
            known = self.ticks.get(tick - 1)
            if known is not None:
                self._advance(known, tick - 1, tick <= last)
            if known is not None or row == 0 or self._expires(tick):
                fresh = self.last_tick >= tick - 1 - self.memory
                values[:, row] = np.where(fresh, self.last_values, np.nan)
                status[row] = np.where(fresh, self.last_status, Status.NONE)
            else:
                values[:, row], status[row] = values[:, row - 1], status[row - 1]
            if known is not None:
                guessed = (known.reported == Status.NONE) & (known.issued_origin[1] != FAR)
                values[:, row] = np.where(guessed, known.issued, values[:, row])
                status[row] = np.where(guessed, Status.UNKNOWN, status[row])
        return InForce(values, status)

    def _expires(self, tick: int) -> bool:
        # Also after a guessed tick: what was remembered counts again.
        return tick - 2 in self.ticks or bool((self.last_tick == tick - 2 - self.memory).any())

    def _advance(self, known: _Tick, tick: int, closing: Bools) -> None:
        newer = closing & (known.reported != Status.NONE) & (tick >= self.last_tick)
        self.last_tick[newer] = tick
        self.last_status[newer] = known.reported[newer]
        self.last_values[:, newer] = known.report[:, newer]
        self.last_origin[:, newer] = known.report_origin[:, newer]

    def catch_up(self, tick: int, rows: Bools) -> None:
        """Remembers what was reported before `tick` about `rows` [E], which had no frames then."""
        for number in sorted(known for known in self.ticks if known < tick):
            self._advance(self.ticks[number], number, rows)

    def prune(self, tick: int) -> None:
        """Lets go of ticks before `tick`, which no frame asks for, and remembers their reports."""
        for number in sorted(known for known in self.ticks if known < tick):
            self._advance(self.ticks[number], number, np.ones(self.size, dtype=np.bool_))
            del self.ticks[number]

    def first_offsets(self, sources: int, closed: int) -> Ints:
        """[sources] the least offset that frames after tick `closed` may need; FAR where none."""
        first = np.full(sources, FAR, dtype=np.int64)
        fresh = self.last_tick >= closed - self.memory
        origins = [self.last_origin[:, fresh]]
        for known in self.ticks.values():
            origins += [known.report_origin, known.issued_origin]
        source, offset = np.concatenate(origins, axis=1)
        valid = offset != FAR
        np.minimum.at(first, source[valid], offset[valid])
        return first
