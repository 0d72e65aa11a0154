"""The differences of a replay as a page: where they began, in which columns, for whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go

from streams.replay_compare import LISTED, Comparison
from streams.report import Card, Mood, Page

SHOWN: Final = 200


def write_report(
    path: Path, comparison: Comparison, result: Mapping[str, Any], manifest: Mapping[str, Any]
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
            Card(f"{result['times_real_time']:,.0f} ×", "real time"),
        ]
    )
    if count:
        _differences(page, comparison)
    page.section("Where the figures come from")
    names = ("recording", "mode", "bundles", "modes", "undecided", "repeated", "lead", "seconds")
    known = {name: manifest[name] for name in ("spec_hash", "from_tick", "to_tick", "digest")}
    page.facts({**{name: result[name] for name in names}, **known})
    return page.write(path)


def _differences(page: Page, comparison: Comparison) -> None:
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
    ticks = Counter(difference.tick for difference in comparison.listed)
    page.section("By tick", f"Of the first {min(LISTED, comparison.differences):,} differences.")
    bars = go.Bar(x=sorted(ticks), y=[ticks[tick] for tick in sorted(ticks)])
    figure = go.Figure(bars)
    figure.update_layout(xaxis_title="tick", yaxis_title="values that differ")
    page.figure(figure, height=280)
    page.section("One by one", f"The first {min(SHOWN, len(comparison.listed))}.")
    page.table([difference.as_dict() for difference in comparison.listed[:SHOWN]])
