"""Many runs, one after the other: each outcome a line of a file, so that it can be gone on with."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.machine import machine
from streams.chaos.run import run_once
from streams.chaos.schedule import Kind, Schedule, make_schedule
from streams.chaos.source import source

RESULTS: Final = "runs.jsonl"
Outcome = Mapping[str, Any]
_FIELDS: Final = ("seed", "clock", "faults", "outcome", "by_invariant", "longest_gap_ms")


def run_campaign(
    home: Path,
    bundle: Path,
    seeds: Sequence[int],
    seconds: float,
    *,
    count: int | None = None,
    kinds: Sequence[Kind] = (),
    twin: bool = False,
    again: bool = False,
    keep: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs those of `seeds` that are not in `home/runs.jsonl` yet, and sums all of them up.

    An outcome of other faults than the seed has by now is none. Each says what source it is of.

    Args:
        home: of the campaign: its broker, its runs' folders, its results.
        bundle: what the worker decides by.
        seconds: of stream in each run.
        count: faults in each run; drawn by default.
        kinds: of faults; all by default.
        twin: a second worker runs beside the first.
        again: runs all, whatever was run before.
        keep: leaves the topics of all runs, not only of those with a violation.
        say: is told what happens.

    Returns `runs`, `idle` (those in which nothing was applied), `violations`, `by_invariant`,
    `longest_gap_ms`, `faults` (by kind), `machine`, `results` (the file), and `outcomes`, one for
    each seed.
    """
    home.mkdir(parents=True, exist_ok=True)
    file = home / RESULTS
    asked: dict[str, Any] = {"seconds": seconds, "count": count, "kinds": sorted(kinds)}
    asked |= {"twin": True} if twin else {}
    done = {} if again else {o["seed"]: o for o in read_results(file) if o["asked"] == asked}
    for number, seed in enumerate(seeds, 1):
        schedule = make_schedule(seed, seconds, count, kinds, twin)
        if seed in done and _is_of(done[seed], schedule):
            say(f"seed {seed} was run before: {done[seed]['outcome']}")
            continue
        say(f"run {number} of {len(seeds)}: seed {seed}, {schedule.clock} clock")
        begun = source()
        outcome = {**run_once(schedule, home, bundle, say, keep), "asked": asked}
        outcome |= {**begun.as_dict(), "clean": begun.clean and source() == begun}
        append_result(file, outcome)
        done[seed] = outcome
        say(f"seed {seed}: {outcome['outcome']} after {outcome['took_s']} s")
    outcomes = [done[seed] for seed in seeds]
    return {**summary(outcomes), "machine": machine(), "results": str(file), "outcomes": outcomes}


def _is_of(outcome: Outcome, schedule: Schedule) -> bool:
    return bool(outcome["faults"] == [fault.as_dict() for fault in schedule.faults])


def append_result(file: Path, outcome: Outcome) -> None:
    """Adds a line; one that was cut off before is left behind."""
    cut = file.exists() and not file.read_bytes().endswith(b"\n")
    with file.open("a") as lines:
        lines.write(("\n" if cut else "") + json.dumps(outcome) + "\n")


def read_results(file: Path) -> list[Outcome]:
    """The outcomes in a file of results; a line that was cut off is left out.

    Raises `ValueError` for one that is something else, with its number and what it lacks.
    """
    found = []
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else (), 1):
        try:
            outcome = json.loads(line)
        except json.JSONDecodeError:
            continue
        lacks = [name for name in _FIELDS if not isinstance(outcome, dict) or name not in outcome]
        if lacks:
            raise ValueError(
                f"{file}:{number}: no outcome of a run, as {lacks[0]!r} is missing; name files "
                "that `rehearse chaos` wrote (runs.jsonl)"
            )
        found.append(outcome)
    return found


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What all runs together show."""
    outcomes = list(outcomes)
    by_invariant: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        by_invariant.update(outcome["by_invariant"])
        faults.update(fault["kind"] for fault in outcome["faults"])
    return {
        "runs": len(outcomes),
        "idle": sum(outcome["outcome"] == "idle" for outcome in outcomes),
        "violations": sum(by_invariant.values()),
        "by_invariant": dict(sorted(by_invariant.items())),
        "longest_gap_ms": max((o["longest_gap_ms"] for o in outcomes), default=0),
        "faults": dict(sorted(faults.items())),
    }
