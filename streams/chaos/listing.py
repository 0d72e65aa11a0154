"""All runs there were, one line each: as a table to look at, as a document to keep."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from streams.chaos.campaign import Outcome, read_results, summary

_HEAD: Final = """\
# Chaos runs

{runs} runs of `rehearse chaos`, {faults} faults: {held} held, {violated} violated, {idle} idle. The
longest time without an applied action was {gap} s. Gaps are in seconds; a commit with a star had
changes beside it, one in brackets is a digest of the sources.

| seed | clock | faults | outcome | gap | of | date |
|---|---|---|---|---|---|---|
"""


def read_all(files: Iterable[Path]) -> list[Outcome]:
    """The outcomes of several files, each once, by seed and then by time.

    Raises `FileNotFoundError` where one is not there.
    """
    found: dict[tuple[object, ...], Outcome] = {}
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file} is not there: name files of results (runs.jsonl)")
        for outcome in read_results(file):
            found[outcome["seed"], outcome.get("at"), outcome.get("folder")] = outcome
    return sorted(found.values(), key=lambda o: (o["seed"], str(o.get("at", ""))))


def table_of(outcomes: Iterable[Outcome]) -> Table:
    """One line for each run, or as many as its faults take."""
    table = Table()
    for name in ("seed", "clock", "faults", "outcome", "gap, s", "of", "date"):
        table.add_column(name, no_wrap=name not in ("faults", "outcome"))
    for outcome in outcomes:
        table.add_row(*_cells(outcome))
    return table


def document_of(outcomes: Sequence[Outcome]) -> str:
    """Markdown: what all runs show together, and a line for each."""
    ends = Counter(str(outcome["outcome"]) for outcome in outcomes)
    total = summary(outcomes)
    head = _HEAD.format(
        runs=total["runs"],
        faults=sum(total["faults"].values()),
        gap=_seconds(total["longest_gap_ms"]),
        **{name: ends[name] for name in ("held", "violated", "idle")},
    )
    return head + "".join(f"| {' | '.join(_cells(outcome))} |\n" for outcome in outcomes)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    broken = " ".join(f"{name} {n}" for name, n in outcome["by_invariant"].items())
    clock = f"{outcome['clock']}{', twin' if outcome.get('twin') else ''}"
    return (
        str(outcome["seed"]),
        clock,
        _faults(outcome),
        f"{outcome['outcome']}: {broken}" if broken else str(outcome["outcome"]),
        _seconds(outcome["longest_gap_ms"]),
        _source(outcome),
        _date(outcome),
    )


def _faults(outcome: Outcome) -> str:
    """In the order in which they came, equal ones in a row once."""
    told: list[list[str | int]] = []
    for fault in outcome["faults"]:
        kind, target = str(fault["kind"]).replace("_", " "), str(fault["target"])
        if kind in ("rebalance", "zombie", "twice", "store", "clock jump") or target == "broker":
            target = ""  # there is no other
        what = " ".join(part for part in (kind, target, _way(fault)) if part)
        if told and told[-1][0] == what:
            told[-1][1] = int(told[-1][1]) + 1
        else:
            told.append([what, 1])
    return ", ".join(f"{what} ×{n}" if int(n) > 1 else str(what) for what, n in told)


def _way(fault: Outcome) -> str:
    return str(fault.get("how", "")) if str(fault["kind"]).startswith("broker") else ""


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.1f}"


def _source(outcome: Outcome) -> str:
    commit = str(outcome.get("commit", ""))
    if not commit:
        return f"[{outcome['source']}]" if outcome.get("source") else "?"
    return commit if outcome.get("clean") else f"{commit}*"


def _date(outcome: Outcome) -> str:
    at = str(outcome.get("at", ""))
    return f"{at[:4]}-{at[4:6]}-{at[6:8]}" if len(at) >= 8 else "?"


__all__ = ["document_of", "read_all", "table_of"]
