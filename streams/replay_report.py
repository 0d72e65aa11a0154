"""The differences of a replay as a page: where they began, in which columns, for whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go

from infra.report import Card, Mood, Page
from streams.replay_compare import Comparison
from streams.replay_series import Series

SHOWN: Final = 200
SHOWN_ACTIONS: Final = 8
_TICKS: Final = {"title": "tick", "tickformat": "d"}


def write_report(
    path: Path,
    comparison: Comparison,
    series: Series,
    result: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> Path:
    """Writes the page of one replay; returns its path."""
    count = comparison.differences
    page = Page(
        f"Replay of {manifest['system']}",
        "Recorded frames were decided again, and every column of the decisions was compared."
        if result["mode"] == "pinned"
        else "Recorded frames were decided anew, with free budgets; this is what would differ.",
    )
    mood: Mood = "good" if count == 0 else ("bad" if result["mode"] == "pinned" else "plain")
    page.cards(
        [
            Card(f"{count:,}", "values that differ", mood),
            Card(f"{comparison.changed:,} of {comparison.frames:,}", "frames with a difference"),
            Card(f"{comparison.decisions:,}", "decisions compared"),
            Card(f"{_short(result['times_real_time'])} ×", "real time"),
            Card(_short(result["frames_per_s"]), "frames a second"),
        ]
    )
    if count:
        _differences(page, comparison, series)
    _decided(page, comparison, series)
    page.section("Where the figures come from")
    left_out = ("undecided", "repeated", "lead", "uncompared")
    names = ("recording", "mode", "bundles", "modes", *left_out, "seconds", "machine", "complete")
    known = {name: manifest[name] for name in ("spec_hash", "from_tick", "to_tick", "digest")}
    page.facts({**{name: result[name] for name in names}, **known})
    return page.write(path)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _decided(page: Page, comparison: Comparison, series: Series) -> None:
    spec = comparison.spec
    if modes := series.modes():
        whose = "all entities" if comparison.entity is None else comparison.entity
        page.section("Who decided", f"Decisions of the replay per tick, of {whose}.")
        figure = go.Figure()
        for name, (ticks, counts) in modes.items():
            figure.add_trace(go.Scatter(x=ticks, y=counts, name=name, stackgroup="all"))
        figure.update_layout(xaxis=_TICKS, yaxis_title="decisions")
        page.figure(figure, height=280)
    for column, name in enumerate(spec.action_columns[:SHOWN_ACTIONS]):
        recorded, replayed = series.actions(column)
        mean = "the mean over entities of " if comparison.entity is None else ""
        page.section(f"Action: {name}", f"By tick, {mean}what was recorded and what was replayed.")
        figure = go.Figure()
        if recorded[0]:
            figure.add_trace(go.Scatter(x=recorded[0], y=recorded[1], name="recorded"))
        dashed = {"dash": "dash"}
        figure.add_trace(go.Scatter(x=replayed[0], y=replayed[1], name="replayed", line=dashed))
        figure.update_layout(xaxis=_TICKS, yaxis_title=name)
        page.figure(figure, height=300)


def _differences(page: Page, comparison: Comparison, series: Series) -> None:
    page.section("By column", "How many values of each column differ, and the largest difference.")
    page.table(
        [
            {
                "column": name,
                "values": f"{number:,}",
                "largest": f"{comparison.largest[name]:.6g}" if name in comparison.largest else "",
            }
            for name, number in comparison.columns.most_common()
        ]
    )
    ticks, counts = series.differences()
    page.section("By tick", "How many values differ at each tick that has any.")
    bars = go.Bar(x=ticks, y=counts)
    figure = go.Figure(bars)
    figure.update_layout(xaxis=_TICKS, yaxis_title="values that differ")
    page.figure(figure, height=280)
    page.section("One by one", f"The first {min(SHOWN, len(comparison.listed))}.")
    page.table([difference.as_dict() for difference in comparison.listed[:SHOWN]])
