"""Bundles as people read them: lineage in sentences, two bundles in a table, moves in lines."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from planner.summary import flat

_WIDEST = 60  # characters of a value in a table


def moment(at_us: int) -> str:
    """Microseconds as ISO 8601, UTC, to the millisecond."""
    when = datetime.fromtimestamp(at_us / 1e6, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def history_line(row: Mapping[str, Any]) -> str:
    """What a move of an alias says beside its time."""
    end = "" if row["until"] is None else f" until {row['until']}"
    ended = f" (taken away by {row['ended_by']})" if row["ended_by"] else ""
    why = f": {row['why']}" if row["why"] else ""
    return f"{row['since']}{end}  {row['alias']} → {row['bundle']} by {row['by']}{why}{ended}"


def readable(content: Mapping[str, Any]) -> dict[str, Any]:
    """A summary of `planner.summary` with its long parts in sentences; scales are left out."""
    lineage = dict(content["lineage"])
    lineage.pop("scales", None)
    data = lineage.pop("datasets", [])
    graphs = content["graphs"]
    return {
        **content,
        "lineage": {
            **{f"data {entry.get('name', '?')}": _dataset(entry) for entry in data},
            "config": _settings(lineage.pop("config", {})),
            "versions": _settings(lineage.pop("versions", {})),
            **lineage,
        },
        "metrics": _shortened(content["metrics"]),
        "graphs": {name: _graph(facts) for name, facts in graphs.items()},
    }


def _dataset(entry: Mapping[str, Any]) -> str:
    first, last = entry.get("ticks", ("?", "?"))
    said = f"{entry.get('rows', '?')} rows of {entry.get('entities', '?')} entities, "
    said += f"ticks {first} to {last}"
    if "sha256" in entry:
        said += f", {entry['files']} files, {entry['bytes']} bytes, sha256 {entry['sha256']}"
    return said


def _settings(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in flat(content))


def _graph(facts: Mapping[str, Any]) -> str:
    ends = ", ".join(f"{name} {size}" for name, size in facts.get("inputs", {}).items())
    said = f"opset {facts.get('opset')}, {facts.get('precision', 'fp32')}; {ends}"
    timed = facts.get("timed", {})
    if timed:
        said += f"; {timed['ms']} ms a call at {_settings(timed['shape'])}"
    for name in ("parity", "regret"):
        if name in facts:
            said += f"; {name}: {_settings(facts[name])}"
    return said


def _shortened(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics one line each, numbers to four places."""
    return {name: _rounded(value) for name, value in flat(metrics)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def print_sides(names: Sequence[str], apart: Mapping[str, Mapping[str, list[Any]]]) -> None:
    """Two bundles side by side, a table for each part that differs."""
    from rich.console import Console
    from rich.table import Table

    out = Console()
    if not apart:
        out.print("the manifests say the same of both")
    for part, fields in apart.items():
        table = Table(part, *names, title_justify="left", show_edge=False)
        for field, (first, second) in fields.items():
            table.add_row(field, _cell(first), _cell(second, first))
        out.print(table)


def _cell(value: Any, beside: Any = None) -> str:
    if value is None:
        return "–"
    text = str(_rounded(value))
    if len(text) > _WIDEST:
        text = text[: _WIDEST - 1] + "…"
    numbers = [type(x) in (int, float) for x in (value, beside)]
    if all(numbers) and beside:
        text += f"  ({value / beside - 1:+.1%})"
    return text
