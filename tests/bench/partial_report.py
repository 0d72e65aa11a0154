"""One robot that nobody trained on: where it was, what was read of it, and what was believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from infra.report import COLOURS, Card, Page
from tests.bench.partial_filters import Belief
from tests.bench.partial_scores import COLUMNS, LEVEL, REACH, Scores
from tests.bench.partial_world import F64, Log

INK = "#1a1d21"


def write_report(
    path: Path,
    log: Log,
    beliefs: Mapping[str, Belief],
    found: Mapping[str, Scores],
    facts: Mapping[str, Any],
    warm: int,
) -> Path:
    """Writes the page; returns its path. The first belief is the one to be measured by."""
    best, ours = list(beliefs)[:2]
    page = Page(
        "Rehearse: positions with gaps, and no velocities",
        "What is believed of robots that nobody trained on, held against the simulator's own "
        f"state, from tick {warm} on. {best} knows the dynamics and all noise: nothing is better.",
    )
    ratio = found[ours]["position_lost"] / found[best]["position_lost"]
    page.cards(
        [
            Card(f"{found[ours]['position_lost']:.3f} m", "off where the position was lost"),
            Card(f"{ratio:.1f} ×", "the error of the best that is possible"),
            Card(f"{found[ours]['held_90']:.0%}", f"of truths in what is to hold {LEVEL:.0%}"),
        ]
    )
    page.section(
        "One robot, along x",
        "How far off each belief is, since against a field of tens of metres all lines would be "
        f"one; bands hold {LEVEL:.0%} by the belief's own account, dots are readings. Below: the "
        "velocity, which no channel shows.",
    )
    page.figure(_episode(log, beliefs, _typical(log, beliefs[ours], warm), warm), 760)
    page.section("All robots", "Root mean square errors along an axis.")
    page.table(
        [
            {"filter": name, **{key: f"{row[key]:.4f}" if key in row else "–" for key in COLUMNS}}
            for name, row in found.items()
        ]
    )
    page.facts(facts)
    return page.write(path)


def _typical(log: Log, belief: Belief, warm: int) -> int:
    """The robot whose error is the median, so that the picture flatters nobody."""
    error = np.square(belief.position - log.truth[..., :2])[warm:].mean((0, 2))
    return int(np.argsort(error)[len(error) // 2])


def _episode(log: Log, beliefs: Mapping[str, Belief], robot: int, warm: int) -> go.Figure:
    figure = make_subplots(3, 1, shared_xaxes=True, vertical_spacing=0.05)
    ticks, truth = np.arange(warm, len(log.seen)), log.truth[warm:, robot]

    def line(y: F64, row: int, name: str, colour: str, **more: Any) -> None:
        style = {"mode": "lines", "line": {"color": colour, "width": 1.8}, **more}
        figure.add_scatter(x=ticks, y=y, name=name, legendgroup=name, row=row, col=1, **style)

    dots: dict[str, Any] = {"mode": "markers", "marker": {"color": INK, "size": 5}}
    line(truth[:, 0], 1, "truth", INK)
    line(log.seen[warm:, robot, 0], 1, "readings", INK, **dots)
    line(np.zeros(len(ticks)), 2, "truth", INK, showlegend=False)
    line(log.seen[warm:, robot, 0] - truth[:, 0], 2, "readings", INK, showlegend=False, **dots)
    line(truth[:, 2], 3, "truth", INK, showlegend=False)
    for (name, belief), colour in zip(beliefs.items(), COLOURS, strict=False):
        position, velocity = (x[warm:, robot, 0] for x in (belief.position, belief.velocity))
        line(position, 1, name, colour)
        line(position - truth[:, 0], 2, name, colour, showlegend=False)
        line(velocity, 3, name, colour, showlegend=False)
        if belief.std is not None:
            wide, off = REACH * belief.std[warm:, robot, 0], position - truth[:, 0]
            edge = {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
            line(off + wide, 2, name, colour, **edge)
            line(off - wide, 2, name, colour, fill="tonexty", fillcolor=_pale(colour), **edge)
    titles = ("position, m", "off by, m", "velocity, m/s")
    for row, title in enumerate(titles, 1):
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(title_text="tick", row=3, col=1)
    return figure


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},.15)"
