"""Recorded frames through the same `step` again: equal to the last bit, or with what differs."""

from __future__ import annotations

import select
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from infra.machine import machine
from planner.runtime import Provider
from schemas.codes import Mode
from schemas.system import SystemSpec
from schemas.trajectories import decode_trajectory, encode_trajectory
from streams.belief import decode_row
from streams.plant import Stop
from streams.record import OnProgress, Span
from streams.recording import Recording
from streams.replay_compare import Comparison
from streams.replay_control import Commands, Player
from streams.replay_deck import Deck, How, Played, ReplayError
from streams.replay_refs import Reference, read_references, write_references
from streams.replay_series import Series
from streams.replay_show import text_of
from streams.target import Pace


class Sink(Protocol):
    """Where played ticks go as well: topics that were named."""

    sent: int

    def send(self, played: Sequence[Played]) -> None:
        """Takes one tick."""

    def again(self) -> None:
        """The recording begins once more."""


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
    commands: Commands | None = None,
    say: Callable[[str], None] | None = None,
    sink: Sink | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Decides the frames of a recording again. Nothing is written to any topic, but by `sink`.

    `pinned` spends what was spent then, under the bundle that decided then: equal bit for bit on
    the same kind of machine, decisions and beliefs. `reinfer` plans every tier to its end, under
    the bundle that was released, or another bundle or spec: the differences are the result.

    A replay that begins in the middle starts from the last key frame's belief rows at once. Where
    a pinned replay differs, it goes on from the next key frame's recorded row, so that one
    difference is not counted again and again.

    Args:
        recording: folder that `rehearse record` or `rehearse import` made.
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
        commands: pause, step and seek (see `replay_control`); it begins paused then.
        say: is told each tick as text.
        sink: gets what is played.

    Returns `frames`, `decisions`, `differences` (values), `changed` (frames), `columns` and
    `largest` (by column), `first` (the first ten), `modes`, and what was left out: `undecided`
    (frames without a logged decision), `repeated`, `lead` (frames before the start); and its speed:
    `seconds` without pauses, `times_real_time`, `frames_per_s`, `machine`; `complete`.

    Raises:
        RecordingError: the recording is not whole.
        ReplayError: a bundle is missing, or the options contradict each other.
    """
    _check(mode, bundle, spec, diff, update_refs, loop, commands, from_us, to_us)
    source = Recording.open(recording)
    run = _Replay(source, mode, spec or source.spec, Span.of(source.spec, from_us, to_us))
    run.tolerance, run.entity, run.sink = tolerance, entity, sink
    run.deck.load(bundles, bundle, provider)
    if isinstance(diff, Path) and not update_refs:
        run.references = read_references(diff)
    run.compares, run.keeps = diff is not None and not update_refs, update_refs
    run.say, run.shown = say, on_progress
    if start_paused and commands is None:
        wait() if wait else _enter(stop)
    complete = _play(run, Pace(rate), loop, stop, commands)
    if complete:
        _found_something(run, entity)
    if update_refs and isinstance(diff, Path):
        _write_references(run, diff, complete)
    result = {"recording": str(recording), "mode": mode, **run.result(complete)}
    return result if report is None else {**result, "report": _report(run, report, result)}


def _check(
    mode: How,
    bundle: Path | None,
    spec: SystemSpec | None,
    diff: object,
    update_refs: bool,
    loop: bool,
    commands: object,
    from_us: int | None,
    to_us: int | None,
) -> None:
    if from_us is not None and to_us is not None and from_us > to_us:
        raise ReplayError(f"--from {from_us} lies behind --to {to_us}: exchange them")
    if mode == "pinned" and (bundle is not None or spec is not None):
        raise ReplayError("a pinned replay has the recorded bundle and spec: use mode reinfer")
    if update_refs and not isinstance(diff, Path):
        raise ReplayError("name the file of references to write: --diff FILE --update-refs")
    if commands is not None and (loop or update_refs):
        raise ReplayError("step through a recording without --loop and without --update-refs")


def _play(
    run: _Replay, pace: Pace, loop: bool, stop: Stop | None, commands: Commands | None
) -> bool:
    """Once, or with `loop` until told to stop; whether the last time came to the end."""
    while True:
        complete = run.once(pace, stop, commands)
        if not loop or stop is None or stop.is_set():
            break
    run.deck.close()
    return complete


def _write_references(run: _Replay, path: Path, complete: bool) -> None:
    if not complete:
        raise ReplayError(f"{path} is left as it was: the replay did not come to its end")
    write_references(path, run.kept)


def _report(run: _Replay, path: Path, result: dict[str, Any]) -> str:
    from streams.replay_report import write_report

    return str(write_report(path, run.comparison, run.series, result, run.source.manifest))


def _found_something(run: _Replay, entity: str | None) -> None:
    if not run.counts["frames"]:
        raise ReplayError(_nothing(run))
    if entity is not None and entity not in run.entities:
        raise ReplayError(
            f"--entity {entity}: in no frame that was replayed; in them are "
            f"{', '.join(sorted(run.entities)[:9])}, …"
        )


def _nothing(run: _Replay) -> str:
    counts = {name: run.deck.counts[name] for name in ("undecided", "lead")}
    why = "; ".join(
        text
        for name, text in (
            ("undecided", f"{counts['undecided']} frames have no logged decision"),
            ("lead", f"{counts['lead']} lie before the first key frame"),
        )
        if counts[name]
    )
    facts, why = run.source.manifest, why or "none between --from and --to"
    return (
        f"{run.source.folder}: no frame to replay there ({why}); it holds event times "
        f"{facts.get('from_us')} to {facts.get('to_us')} us"
    )


def _enter(stop: Stop | None) -> None:
    """Waits for a line on standard input, or until told to stop."""
    sys.stderr.write("paused; press Enter to start\n")
    while not (stop and stop.is_set()):
        if select.select([sys.stdin], [], [], 0.2)[0]:
            sys.stdin.readline()
            return


class _Replay:
    """One replay: the deck, what it is compared with, and what came out."""

    tolerance = 0.0
    entity: str | None = None
    compares = True
    keeps = False
    sink: Sink | None = None
    say: Callable[[str], None] | None = None
    shown: OnProgress
    references: dict[tuple[int, int], bytes] | None = None

    def __init__(self, source: Recording, mode: How, spec: SystemSpec, span: Span) -> None:
        self.source, self.spec, self.mode, self.span = source, spec, mode, span
        self.deck = Deck(source, mode, spec)
        self.kept: list[Reference] = []
        self.entities: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.seconds = 0.0  # of all passes, as are the next two
        self.ticks = self.decided = 0

    def once(self, pace: Pace, stop: Stop | None, commands: Commands | None) -> bool:
        """Plays the recording once; returns whether it came to the end."""
        self.comparison = Comparison(self.spec, self.tolerance, self.entity)
        self.series = Series(self.spec, self.entity)
        self.judged: set[tuple[int, int]] = set()
        self.kept.clear()
        for counts in (self.counts, self.modes, self.deck.counts):
            counts.clear()
        player = Player(self.deck, pace, self._tick, stop, commands, self.say or (lambda _: None))
        player.last = self.span.last
        player.seek(self.deck.ticks[0] if self.span.first is None else self.span.first)
        if self.sink is not None:
            self.sink.again()
        began = time.monotonic()
        complete = player.run()
        self.seconds += time.monotonic() - began - player.idle_s
        self.decided += self.deck.counts["decided"]
        return complete

    def _tick(self, tick: int, played: list[Played]) -> None:
        self.ticks += 1
        for item in played:
            place = (item.frame.tick, item.frame.cohort)
            if place not in self.judged:  # else somebody stepped back
                self.judged.add(place)
                self._judge(item)
        if self.sink is not None:
            self.sink.send(played)
        self.shown(self.deck.place, len(self.deck.ticks))
        if self.say is not None:
            count = self.comparison.differences
            self.say(text_of(self.spec, tick, played, self.entity, count))

    def _judge(self, item: Played) -> None:
        frame, decisions, logged = item
        self.counts["frames"] += 1
        self.entities.update(frame.entities)
        self.counts["decisions"] += len(frame.entities)
        for code, count in Counter(decisions.mode.tolist()).items():
            self.modes[Mode(code).name.lower()] += count
        if self.keeps:
            value = encode_trajectory(self.spec, frame, decisions)
            self.kept.append((frame.tick, frame.cohort, value))
        known = None if logged is None else logged.decisions
        if self.references is not None:
            value = self.references.get((frame.tick, frame.cohort), b"")
            known = decode_trajectory(self.spec, value).decisions if value else None
        before = self.comparison.differences
        if self.compares and known is None:
            self.counts["uncompared"] += 1
        elif self.compares and known is not None:
            equal = self.comparison.add(frame, known, decisions)
            if not equal and self.mode == "pinned" and logged is not None and logged.row:
                self.deck.take(frame.cohort, decode_row(logged.row))
        self.series.add(frame, known, decisions, self.comparison.differences - before)

    def result(self, complete: bool) -> dict[str, Any]:
        """What came out, as plain JSON values."""
        made, deck, seconds = self.comparison, self.deck, self.seconds
        simulated = self.ticks * self.spec.period_us / 1e6
        more: dict[str, Any] = {} if self.sink is None else {"sent": self.sink.sent}
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
            "bundles": sorted(deck.bundles),
            **{name: deck.counts[name] for name in ("undecided", "repeated", "lead")},
            "uncompared": self.counts["uncompared"],
            **more,
            "seconds": seconds,
            "times_real_time": simulated / seconds if seconds else 0.0,
            "frames_per_s": self.decided / seconds if seconds else 0.0,
            "machine": machine(),
            "complete": complete,
        }


__all__ = ["ReplayError", "replay"]
