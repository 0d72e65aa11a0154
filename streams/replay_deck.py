"""Where a replay stands: belief rows after some tick, how to go on, how to start anywhere."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, Literal, NamedTuple

from planner.budget import Budget, FreeBudget
from planner.runtime import Provider
from planner.session import Bundle, load_bundle
from schemas.codes import Flag
from schemas.frames import Frame, decode_frame
from schemas.system import SystemSpec
from schemas.trajectories import KEY_FRAME_EVERY, Decisions, Trajectory, decode_trajectory
from streams.belief import Row, decode_row
from streams.bundles import Shelf
from streams.decide import is_repeated, recorded, step
from streams.recording import Recording
from streams.twin import without_plans

How = Literal["pinned", "reinfer"]
RECENT: Final = 128  # ticks whose rows are kept to step back to
KEPT: Final = 512  # ticks that are multiples of `KEY_FRAME_EVERY` whose rows are kept as well
Place = tuple[Path, int]
_BEHIND: Final = ("twin", "held", "shadow")  # attempts that count less and less


class ReplayError(RuntimeError):
    """A replay that cannot be made; the message says what is missing, and the remedy."""


class Played(NamedTuple):
    """One frame that was decided again, and what was decided on it when it was recorded."""

    frame: Frame
    decisions: Decisions
    logged: Trajectory | None


class Due(NamedTuple):
    """A frame that comes next: what it is decided from, and what was decided on it then."""

    frame: Frame
    logged: Trajectory | None
    row: Row | None  # before it
    bundle: Bundle | None
    budget: Budget | None
    ahead: Budget | None


class Deck:
    """Decides the frames of a recording tick by tick; `seek` starts before any of them.

    `pinned` spends what was spent then, under the bundle that decided then; `reinfer` plans every
    tier to its end, under the bundle that was released, or another one. A cohort starts at its
    first frame where all its entities are new, else behind a key frame, whose row is taken over.

    `cohort`: this one alone; None: all.

    `counts`: `undecided`, `repeated` and `lead` frames, and `decided`, all since the beginning.
    """

    def __init__(
        self, source: Recording, mode: How, spec: SystemSpec, cohort: int | None = None
    ) -> None:
        self.source, self.mode, self.spec = source, mode, spec
        if spec.interface_hash != source.spec.interface_hash:
            raise ReplayError(
                f"the spec's interface {spec.interface_hash} is not the recording's "
                f"{source.spec.interface_hash}: what is seen and done must be the same"
            )
        self.free = (FreeBudget(), FreeBudget() if spec.budget.ahead_us else None)
        self.bundles: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.rows: dict[int, Row | None] = {}
        self._after: dict[int, int] = {}  # cohort → the tick that its row stands behind
        self._recent: OrderedDict[int, dict[int, Row | None]] = OrderedDict()
        self._far: OrderedDict[int, dict[int, Row | None]] = OrderedDict()
        self._logged: dict[tuple[int, int], list[Place]] = {}
        for tick, other, _, path, row in source.index("trajectories"):
            if cohort in (None, other):
                self._logged.setdefault((tick, other), []).append((path, row))
        if mode == "pinned" and not self._logged:
            raise ReplayError(
                f"{source.folder}: nothing was decided in this recording, so there is nothing to "
                "repeat: replay it with mode reinfer"
            )
        wanted = [place for place in source.index("frames") if cohort in (None, place[1])]
        groups = groupby(wanted, key=itemgetter(0))
        self._frames: list[tuple[int, list[tuple[int, Place]]]] = [
            (tick, [(other, (path, row)) for _, other, _, path, row in found])
            for tick, found in groups
        ]
        self.ticks = [tick for tick, _ in self._frames]
        self.cohorts = sorted({other for _, found in self._frames for other, _ in found})
        self._next = 0

    def load(self, roots: Sequence[Path], bundle: Path | None, provider: Provider) -> None:
        """Gets the bundles ready; `bundle` decides instead of the recorded ones."""
        self._shelf = Shelf(self.spec, roots, provider)
        self._only = None if bundle is None else load_bundle(bundle, provider)
        if self._only is not None:
            self._only.check(self.spec)

    def close(self) -> None:
        """Lets go of the bundles."""
        self._shelf.close()

    # going on

    @property
    def upcoming(self) -> int | None:
        """The tick that `play` decides next; None at the end."""
        return self.ticks[self._next] if self._next < len(self.ticks) else None

    @property
    def place(self) -> int:
        """How many ticks lie behind."""
        return self._next

    def play(self) -> list[Played]:
        """Decides the frames of the next tick, by cohort; passes over what cannot be decided."""
        tick, places = self._frames[self._next]
        self._next += 1
        played = []
        for cohort, (path, row) in places:
            if tick > self._after.get(cohort, tick - 1):
                frame = decode_frame(self.spec, self.source.value(path, row))
                if (found := self._decide(frame)) is not None:
                    played.append(found)
        self._keep(tick)
        return played

    def frames(self, tick: int) -> list[Frame]:
        """The frames of a tick as they were recorded; none where the recording has none."""
        at = bisect_left(self.ticks, tick)
        if self.ticks[at : at + 1] != [tick]:
            return []
        places = (place for _, place in self._frames[at][1])
        return [decode_frame(self.spec, self.source.value(*place)) for place in places]

    def take(self, cohort: int, row: Row) -> None:
        """Goes on from another row than the one that was computed for the tick just played."""
        self.rows[cohort] = row
        self._keep(self.ticks[self._next - 1])

    def _decide(self, frame: Frame) -> Played | None:
        due = self.due(frame)
        if due is None:
            return None
        row, decisions = step(self.spec, due.bundle, due.row, frame, due.budget, due.ahead)
        self.rows[frame.cohort] = row
        self.counts["decided"] += 1
        return Played(frame, decisions, due.logged)

    def due(self, frame: Frame) -> Due | None:
        """What `frame` is decided from, where it can be decided as the next of its cohort."""
        cohort = frame.cohort
        if is_repeated(self.rows.get(cohort), frame):
            self.counts["repeated"] += 1
            return None
        logged = self.logged(frame.tick, cohort)
        if logged is None and self.mode == "pinned":
            self.counts["undecided"] += 1  # the worker had left, or rejected the frame
            return None
        if cohort not in self.rows and not self._begin(frame, logged):
            self.counts["lead"] += 1
            return None
        bundle, budget, ahead = self._means(frame, logged)
        before = self.rows[cohort]
        if self.mode == "pinned" and logged is not None and logged.decisions.spent.get("fresh"):
            before = without_plans(before, self.spec, logged.decisions.spent.get("latch"))
        return Due(frame, logged, before, bundle, budget, ahead)

    def _begin(self, frame: Frame, logged: Trajectory | None) -> bool:
        """Whether `frame` can be the first decided; else takes a key frame's row over."""
        cohort = frame.cohort
        if bool(((frame.flags & Flag.JOINED) != 0).all()):
            self.rows[cohort] = None  # everybody is new: no row is needed
            return True
        if logged is not None and logged.row is not None:
            self.rows[cohort] = decode_row(logged.row)
            return False
        if self.mode == "reinfer":
            self.rows[cohort] = None
            return True
        return False

    def logged(self, tick: int, cohort: int) -> Trajectory | None:
        """What was decided then: the last attempt, as its row is what the next tick began from.

        A twin's counts where there is no other, and what was held back where nothing was sent.
        """
        found, least = None, len(_BEHIND)
        for path, row in reversed(self._logged.get((tick, cohort), [])):
            read = decode_trajectory(self.spec, self.source.value(path, row))
            spent = read.decisions.spent
            behind = max((i for i, name in enumerate(_BEHIND, 1) if spent.get(name)), default=0)
            if not behind:
                return read
            if found is None or behind < least:
                found, least = read, behind
        return found

    def _means(
        self, frame: Frame, logged: Trajectory | None
    ) -> tuple[Bundle | None, Budget | None, Budget | None]:
        """The bundle to decide `frame` with, and the budgets for now and for planning ahead."""
        if self.mode == "pinned":
            assert logged is not None
            bundle = self._recorded_bundle(logged.decisions.bundle)
            return bundle, *recorded(logged.decisions.spent)
        found = self._chosen(frame)
        self.bundles |= {found.digest} if found else set()
        return found, *self.free

    def _chosen(self, frame: Frame) -> Bundle | None:
        """The bundle of a `reinfer`: the one given, else the one released as of the frame."""
        return self._only or self._shelf.get(frame.header.control.bundle)

    def _recorded_bundle(self, digest: str) -> Bundle | None:
        if not digest:
            return None
        found = self._shelf.get(digest)
        if found is None:
            raise ReplayError(
                f"the recording was decided by bundle {digest}, which is in none of the folders "
                "given: name its folder with --bundles, or replay with mode reinfer"
            )
        self.bundles.add(digest)
        return found

    # starting anywhere

    def seek(self, tick: int) -> None:
        """Goes to before the first tick from `tick` on, and no further back than it must.

        Each cohort starts from the newest row behind which nothing else is needed: one of this
        replay, or of a key frame, of which the recording has one per 64 ticks. Ticks in between
        are decided by `play` first; they lie before `tick`.
        """
        starts: dict[int, tuple[int, Row | None]] = {}
        for cohort in self.cohorts:
            found = [*self._own(cohort, tick), *self._recorded(cohort, tick)]
            if found:
                starts[cohort] = max(found, key=itemgetter(0))
        self.rows = {cohort: row for cohort, (_, row) in starts.items()}
        self._after = {cohort: after for cohort, (after, _) in starts.items()}
        begin = min(self._after.get(cohort, self.ticks[0] - 1) for cohort in self.cohorts)
        self._next = next((i for i, t in enumerate(self.ticks) if t > begin), len(self.ticks))

    def _keep(self, tick: int) -> None:
        """Remembers the rows after `tick`, to step back to."""
        rows = dict(self.rows)
        kept, most = (self._far, KEPT) if tick % KEY_FRAME_EVERY == 0 else (self._recent, RECENT)
        kept[tick] = rows
        kept.move_to_end(tick)
        if len(kept) > most:
            kept.popitem(last=False)

    def _own(self, cohort: int, tick: int) -> list[tuple[int, Row | None]]:
        known = [k for kept in (self._recent, self._far) for k in kept if k < tick]
        for near in sorted(known, reverse=True):
            rows = self._recent.get(near) or self._far.get(near) or {}
            if cohort in rows:
                return [(near, rows[cohort])]
        return []

    def _recorded(self, cohort: int, tick: int) -> list[tuple[int, Row | None]]:
        """The row of the last key frame before `tick`, where this replay would have the same."""
        near = (tick - 1) // KEY_FRAME_EVERY * KEY_FRAME_EVERY
        while near >= self.ticks[0]:
            logged = self.logged(near, cohort)
            if logged is not None and logged.row is not None:
                row = decode_row(logged.row)
                if self.mode == "pinned":
                    return [(near, row)]
                chosen = self._chosen(logged.frame)
                return [(near, row)] if row.bundle == (chosen.digest if chosen else "") else []
            near -= KEY_FRAME_EVERY
        return []
