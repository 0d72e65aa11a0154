"""Recorded frames through the same `step` again: equal to the last bit, or with what differs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from planner.budget import Budget, FreeBudget
from planner.session import Bundle, Provider, load_bundle
from schemas.codes import Flag, Mode
from schemas.frames import Frame, decode_frame
from schemas.system import SystemSpec
from schemas.trajectories import Decisions, Trajectory, decode_trajectory, encode_trajectory
from streams.belief import Row, decode_row
from streams.bundles import Shelf
from streams.decide import is_repeated, recorded, step
from streams.plant import Stop
from streams.record import OnProgress, Span
from streams.recording import Recording
from streams.replay_compare import Comparison

How = Literal["pinned", "reinfer"]
Place = tuple[Path, int]


class ReplayError(RuntimeError):
    """A replay that cannot be made; the message says what is missing, and the remedy."""


def replay(
    recording: Path,
    mode: How = "pinned",
    *,
    bundles: Sequence[Path] = (),
    bundle: Path | None = None,
    spec: SystemSpec | None = None,
    from_us: int | None = None,
    to_us: int | None = None,
    entity: str | None = None,
    rate: float | None = None,
    start_paused: bool = False,
    loop: bool = False,
    diff: Literal["recorded"] | Path | None = "recorded",
    tolerance: float = 0.0,
    update_refs: bool = False,
    report: Path | None = None,
    provider: Provider = "auto",
    stop: Stop | None = None,
    wait: Callable[[], None] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Decides the frames of a recording again. Nothing is written to any topic.

    `pinned` spends what was spent then, under the bundle that decided then: equal bit for bit on
    the same kind of machine, decisions and beliefs. `reinfer` plans every tier to its end, under
    the bundle that was released, or another bundle or spec: the differences are the result.

    A cohort starts at its first frame where all its entities are new, else behind its first key
    frame, whose row is taken over. Where a pinned replay differs, it goes on from the next key
    frame's recorded row, so that one difference is not counted again and again.

    Args:
        recording: folder that `rehearse record` made.
        bundles: bundle folders, or folders of them, to find bundles in by digest.
        bundle: decides instead of the recorded ones (`reinfer`).
        spec: takes the place of the recorded one (`reinfer`; its interface must be the same).
        from_us, to_us: event times of the first and last tick to compare; None: open.
        entity: compares this one alone; its whole cohort is decided as always.
        rate: multiple of real time; None: as fast as it goes.
        start_paused: waits, by `wait` or for Enter, before the first frame.
        loop: begins again at the end, until `stop`.
        diff: what to compare with: the recording, a file of references, or nothing.
        tolerance: absolute and relative difference of numbers that counts as none.
        update_refs: writes the file of references named by `diff` instead of comparing with it.
        report: where to write an HTML page of the differences.

    Returns `frames`, `decisions`, `differences` (values), `changed` (frames), `columns` and
    `largest` (by column), `first` (the first ten), `modes`, and what was left out: `undecided`
    (frames without a logged decision), `repeated`, `lead` (frames before the start).

    Raises:
        RecordingError: the recording is not whole.
        ReplayError: a bundle is missing, or the options contradict each other.
    """
    _check(mode, bundle, spec, diff, update_refs)
    source = Recording.open(recording)
    run = _Replay(source, mode, spec or source.spec, Span.of(source.spec, from_us, to_us))
    run.tolerance, run.entity = tolerance, entity
    run.load(bundles, bundle, provider)
    if isinstance(diff, Path) and not update_refs:
        run.references = _read_references(diff)
    run.compares, run.keeps = diff is not None and not update_refs, update_refs
    if start_paused:
        (wait or _enter)()
    began = time.monotonic()
    while True:
        run.once(_Pace(run.spec, rate), stop, on_progress or (lambda done, total: None))
        if not loop or stop is None or stop.is_set():
            break
    if update_refs and isinstance(diff, Path):
        _write_references(diff, run.kept)
    result = {"recording": str(recording), "mode": mode, **run.result(time.monotonic() - began)}
    if report is not None:
        from streams.replay_report import write_report

        result["report"] = str(write_report(report, run.comparison, result, source.manifest))
    return result


def _check(
    mode: How, bundle: Path | None, spec: SystemSpec | None, diff: object, update_refs: bool
) -> None:
    if mode == "pinned" and (bundle is not None or spec is not None):
        raise ReplayError("a pinned replay has the recorded bundle and spec: use mode reinfer")
    if update_refs and not isinstance(diff, Path):
        raise ReplayError("name the file of references to write: --diff FILE --update-refs")


def _enter() -> None:
    sys.stderr.write("paused; press Enter to start\n")
    sys.stdin.readline()


class _Pace:
    """Holds ticks back so that event time runs at `rate` times real time."""

    def __init__(self, spec: SystemSpec, rate: float | None) -> None:
        self._spec, self._rate = spec, rate
        self._first: tuple[int, float] | None = None

    def wait(self, tick: int, stop: Stop | None) -> None:
        """Returns when `tick` is due, or when told to stop."""
        if self._rate is None:
            return
        if self._first is None:
            self._first = (tick, time.monotonic())
        first, began = self._first
        due = began + (tick - first) * self._spec.period_us / 1e6 / self._rate
        while (left := due - time.monotonic()) > 0 and not (stop and stop.is_set()):
            time.sleep(min(left, 0.1))


class _Replay:
    """One replay: the recording, the cohorts' rows, and the comparison."""

    tolerance = 0.0
    entity: str | None = None
    compares = True
    keeps = False

    def __init__(self, source: Recording, mode: How, spec: SystemSpec, span: Span) -> None:
        self.source, self.mode, self.spec, self.span = source, mode, spec, span
        if spec.interface_hash != source.spec.interface_hash:
            raise ReplayError(
                f"the spec's interface {spec.interface_hash} is not the recording's "
                f"{source.spec.interface_hash}: what is seen and done must be the same"
            )
        self.free = (FreeBudget(), FreeBudget() if spec.budget.ahead_us else None)
        self.references: dict[tuple[int, int], bytes] | None = None
        self.kept: list[tuple[int, int, bytes]] = []
        self.counts: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.bundles: set[str] = set()
        self.logged: dict[tuple[int, int], list[Place]] = {}
        for tick, cohort, _, path, row in source.index("trajectories"):
            self.logged.setdefault((tick, cohort), []).append((path, row))
        self.index = source.index("frames")
        if mode == "pinned" and not self.logged:
            raise ReplayError(
                f"{source.folder}: nothing was decided in this recording, so there is nothing to "
                "repeat: replay it with mode reinfer"
            )

    def load(self, roots: Sequence[Path], bundle: Path | None, provider: Provider) -> None:
        """Gets the bundles ready."""
        self.shelf = Shelf(self.spec, roots, provider)
        self.only = None if bundle is None else load_bundle(bundle, provider)
        if self.only is not None:
            self.only.check(self.spec)

    # the run

    def once(self, pace: _Pace, stop: Stop | None, shown: OnProgress) -> None:
        """The whole recording, tick by tick, cohort by cohort."""
        self.comparison = Comparison(self.spec, self.tolerance, self.entity)
        self.rows: dict[int, Row | None] = {}
        self.counts.clear()
        self.modes.clear()
        self.kept.clear()
        for done, (tick, cohort, _, path, row) in enumerate(self.index):
            if stop and stop.is_set():
                break
            if self.span.passed(tick):
                continue
            pace.wait(tick, stop)
            self._frame(decode_frame(self.spec, self.source.value(path, row)), cohort)
            shown(done + 1, len(self.index))

    def _frame(self, frame: Frame, cohort: int) -> None:
        if is_repeated(self.rows.get(cohort), frame):
            self.counts["repeated"] += 1
            return
        logged = self._logged(frame)
        if logged is None and self.mode == "pinned":
            self.counts["undecided"] += 1  # the worker had left, or rejected the frame
            return
        if cohort not in self.rows and not self._begin(frame, logged):
            self.counts["lead"] += 1
            return
        bundle, budget, ahead = self._means(frame, logged)
        row, decisions = step(self.spec, bundle, self.rows[cohort], frame, budget, ahead)
        self.rows[cohort] = row
        if self.span.first is None or frame.tick >= self.span.first:
            self._judge(frame, logged, decisions)
        else:
            self.counts["lead"] += 1

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

    def _logged(self, frame: Frame) -> Trajectory | None:
        """What was decided then: the last attempt, as its row is what the next tick began from."""
        found = None
        for path, row in reversed(self.logged.get((frame.tick, frame.cohort), [])):
            read = decode_trajectory(self.spec, self.source.value(path, row))
            if not read.decisions.spent.get("shadow", False):
                return read
            found = found or read  # a shadow's, where nobody else decided
        return found

    def _means(
        self, frame: Frame, logged: Trajectory | None
    ) -> tuple[Bundle | None, Budget | None, Budget | None]:
        """The bundle to decide `frame` with, and the budgets for now and for planning ahead."""
        if self.mode == "pinned":
            assert logged is not None
            bundle = self._recorded_bundle(logged.decisions.bundle)
            return bundle, *recorded(logged.decisions.spent)
        if self.only is not None:
            self.bundles.add(self.only.digest)
            return self.only, *self.free
        found = self.shelf.get(frame.header.control.bundle)
        self.bundles |= {found.digest} if found else set()
        return found, *self.free

    def _recorded_bundle(self, digest: str) -> Bundle | None:
        if not digest:
            return None
        found = self.shelf.get(digest)
        if found is None:
            raise ReplayError(
                f"the recording was decided by bundle {digest}, which is in none of the folders "
                "given: name its folder with --bundles, or replay with mode reinfer"
            )
        self.bundles.add(digest)
        return found

    def _judge(self, frame: Frame, logged: Trajectory | None, decisions: Decisions) -> None:
        self.counts["frames"] += 1
        self.counts["decisions"] += len(frame.entities)
        for code, count in Counter(decisions.mode.tolist()).items():
            self.modes[Mode(code).name.lower()] += count
        if self.keeps:
            value = encode_trajectory(self.spec, frame, decisions)
            self.kept.append((frame.tick, frame.cohort, value))
        if not self.compares:
            return
        known = logged
        if self.references is not None:
            value = self.references.get((frame.tick, frame.cohort), b"")
            known = decode_trajectory(self.spec, value) if value else None
        if known is None:
            self.counts["uncompared"] += 1
            return
        equal = self.comparison.add(frame, known.decisions, decisions)
        if not equal and self.mode == "pinned" and logged is not None and logged.row is not None:
            self.rows[frame.cohort] = decode_row(logged.row)

    # the end

    def result(self, seconds: float) -> dict[str, Any]:
        """What came out, as plain JSON values."""
        self.shelf.close()
        made = self.comparison
        simulated = self.counts["frames"] * self.spec.period_us / 1e6 / max(1, len(self.rows))
        return {
            "frames": self.counts["frames"],
            "decisions": self.counts["decisions"],
            "compared": made.frames,
            "differences": made.differences,
            "changed": made.changed,
            "columns": dict(made.columns.most_common()),
            "largest": made.largest,
            "first": [difference.as_dict() for difference in made.listed[:10]],
            "modes": dict(sorted(self.modes.items())),
            "bundles": sorted(self.bundles),
            **{name: self.counts[name] for name in ("undecided", "repeated", "lead", "uncompared")},
            "seconds": seconds,
            "times_real_time": simulated / seconds if seconds else 0.0,
        }


def _read_references(path: Path) -> dict[tuple[int, int], bytes]:
    if not path.is_file():
        raise ReplayError(f"{path}: no such file of references; make it with --update-refs")
    columns = pq.read_table(path).to_pydict()
    places = zip(columns["tick"], columns["cohort"], strict=True)
    return dict(zip(places, columns["value"], strict=True))


def _write_references(path: Path, kept: Sequence[tuple[int, int, bytes]]) -> None:
    ticks, cohorts, values = zip(*kept, strict=True) if kept else ((), (), ())
    table = pa.table(
        {
            "tick": pa.array(ticks, pa.int64()),
            "cohort": pa.array(cohorts, pa.int32()),
            "value": pa.array(values, pa.binary()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


__all__ = ["ReplayError", "replay"]
