"""An evaluation as plotly figures: fans over what happened, errors by horizon, honest spreads."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from infra.report import COLOURS
from models.evaluation.drift import LEVEL, Drift
from models.evaluation.foresee import LEVELS
from models.evaluation.recalibrate import TOLD, Coverage, intervals
from models.evaluation.result import Evaluation
from models.evaluation.windows import WARM
from models.evaluation.worst import Odd

F64 = npt.NDArray[np.float64]

BLUE, ORANGE, GREEN, GREY, INK = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[6], "#1a1d21"
BANDS: Final = {0.95: "rgba(0,114,178,.13)", 0.8: "rgba(0,114,178,.2)", 0.5: "rgba(0,114,178,.3)"}
ACROSS, ROW = 3, 210
"""Plots in a row where there is one per channel, and the height of a row in pixels."""


def moving(found: Evaluation) -> list[int]:
    """Channels that move at all: what stands still needs no plot. The reward is the last."""
    still = np.nan_to_num(found.persistence).max(0)
    return [
        c for c in range(len(found.foreseen.names)) if still[c] > 1e-6 * found.foreseen.scale[c]
    ]


def height(plots: int) -> int:
    """Of a figure of so many plots, in pixels."""
    return 90 + ROW * -(-plots // ACROSS)


def fans(found: Evaluation, windows: Sequence[int]) -> tuple[Any, int]:
    """A row per moving channel, a column per window; the figure and its height."""
    channels = moving(found)
    names, dotted = found.foreseen.names, _recalibrated(found)
    figure = make_subplots(
        len(channels),
        len(windows),
        shared_xaxes=True,
        vertical_spacing=0.25 / max(len(channels), 2) ** 1.3,
        horizontal_spacing=0.04,
    )
    for i, channel in enumerate(channels):
        for j, window in enumerate(windows):
            at = (i + 1, j + 1)
            _fan(figure, found, dotted, window, channel, at, legend=not i and not j)
        figure.update_yaxes(title_text=names[channel], row=i + 1, col=1)
    for j in range(len(windows)):
        figure.update_xaxes(title_text="ticks ahead", row=len(channels), col=j + 1)
    return figure, 90 + 165 * len(channels)


def worst(found: Evaluation, odd: Sequence[Odd]) -> Any:
    """The worst windows, each in its worst channel."""
    names, dotted = found.foreseen.names, _recalibrated(found)
    figure = make_subplots(1, len(odd), horizontal_spacing=0.07)
    for j, x in enumerate(odd):
        _fan(figure, found, dotted, x.window, x.channel, (1, j + 1), legend=not j)
        place = f"{x.entity} from tick {x.tick}<br>{x.times:.1f} × the usual"
        figure.update_xaxes(title_text=place, row=1, col=j + 1)
        figure.update_yaxes(title_text=names[x.channel], row=1, col=j + 1)
    return figure


def _recalibrated(found: Evaluation) -> F64 | None:
    """`[T, 2, B, C]` ends of the recalibrated 80 % intervals."""
    best = found.stored or found.recalibration
    if best is None:
        return None
    i, ticks = LEVELS.index(0.8), range(found.foreseen.ticks)
    return np.array([[end[i] for end in intervals(found.foreseen, t, best)] for t in ticks])


def _fan(
    figure: Any,
    found: Evaluation,
    dotted: F64 | None,
    window: int,
    channel: int,
    at: tuple[int, int],
    legend: bool,
) -> None:
    """One window and channel: what happened, and what was foreseen as far as the window goes."""
    seen, rows = found.foreseen, found.windows
    known = int(np.isfinite(rows.alive[window, WARM:]).sum())
    ahead = np.arange(1, known + 1)
    past = rows.reward if channel == len(found.columns) else rows.obs[..., channel]
    row, col = at

    def add(x: Any, y: Any, name: str = "", **given: Any) -> None:
        given |= {"row": row, "col": col, "showlegend": legend and bool(name)}
        figure.add_scatter(x=x, y=y, mode="lines", name=name, **given)

    for level, colour in BANDS.items():
        i = LEVELS.index(level)
        low, high = seen.low[i, :known, window, channel], seen.high[i, :known, window, channel]
        none = {"width": 0}
        add(ahead, low, line=none, hoverinfo="skip")
        fill = {"fill": "tonexty", "fillcolor": colour}
        add(ahead, high, f"{level:.0%}", line=none, hoverinfo="skip", **fill)
    if dotted is not None and channel < len(found.columns):
        dots = {"color": ORANGE, "width": 1, "dash": "dot"}
        add(ahead, dotted[:known, 0, window, channel], line=dots)
        add(ahead, dotted[:known, 1, window, channel], "80 % recalibrated", line=dots)
    median = seen.median[:known, window, channel]
    add(ahead, median, "median", line={"color": BLUE, "width": 1.2})
    whole = np.arange(1 - WARM, known + 1)
    add(whole, past[window, : WARM + known], "what happened", line={"color": INK, "width": 1.6})


def growth(found: Evaluation) -> tuple[Any, int]:
    """Error against horizon beside persistence's, per moving channel; the figure and its height."""
    channels = moving(found)
    figure = _grid(found, channels)
    ahead = np.arange(1, found.foreseen.ticks + 1)
    for n, channel in enumerate(channels):
        at = {"row": n // ACROSS + 1, "col": n % ACROSS + 1, "showlegend": not n, "x": ahead}
        still = {"color": GREY, "dash": "dash"}
        figure.add_scatter(y=found.persistence[:, channel], name="persistence", line=still, **at)
        figure.add_scatter(y=found.rmse[:, channel], name="model", line={"color": BLUE}, **at)
    figure.update_yaxes(rangemode="tozero")
    _label_last_row(figure, len(channels), "ticks ahead")
    return figure, height(len(channels))


def reliability(found: Evaluation) -> tuple[Any, int]:
    """Level asked and share held, at every horizon, before and after; the figure and its height."""
    channels = [c for c in moving(found) if c < len(found.columns)]
    figure = _grid(found, channels)
    kinds: list[tuple[str, Coverage, str]] = [("as predicted", found.before, ORANGE)]
    if found.after is not None:
        kinds.append(("recalibrated", found.after, BLUE))
    for n, channel in enumerate(channels):
        at = {"row": n // ACROSS + 1, "col": n % ACROSS + 1}
        line = {"color": GREY, "dash": "dash", "width": 1}
        figure.add_scatter(
            x=[0, 1], y=[0, 1], line=line, mode="lines", name="honest", showlegend=not n, **at
        )
        for name, coverage, colour in kinds:
            for k in found.horizons:
                first = not n and k == found.horizons[0]
                figure.add_scatter(
                    x=LEVELS,
                    y=coverage.share[:, k - 1, channel],
                    name=name,
                    legendgroup=name,
                    showlegend=first,
                    opacity=0.75,
                    mode="lines+markers",
                    marker={"size": 3},
                    line={"color": colour, "width": 1.1},
                    hovertemplate=f"{name}, k={k}: %{{y:.3f}}<extra></extra>",
                    **at,
                )
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1.02])
    _label_last_row(figure, len(channels), "level of the interval")
    return figure, height(len(channels))


def pits(found: Evaluation) -> tuple[Any, int]:
    """PIT histograms at three horizons, per moving channel; the figure and its height."""
    channels = moving(found)
    figure = _grid(found, channels)
    bins = len(found.pit)
    edges = np.arange(bins + 1) / bins
    shown = sorted({found.horizons[0], found.verdict_at, found.horizons[-1]})
    for n, channel in enumerate(channels):
        at = {"row": n // ACROSS + 1, "col": n % ACROSS + 1}
        for k, colour in zip(shown, (COLOURS[5], BLUE, INK), strict=False):
            figure.add_scatter(
                x=edges,
                y=np.append(found.pit[:, k - 1, channel], found.pit[-1, k - 1, channel]),
                line={"shape": "hv", "color": colour, "width": 1.4},
                mode="lines",
                name=f"k={k}",
                legendgroup=f"k={k}",
                showlegend=not n,
                **at,
            )
        figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1}, **at)
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(rangemode="tozero")
    _label_last_row(figure, len(channels), "PIT")
    return figure, height(len(channels))


def drifting(drift: Drift) -> Any:
    """Coverage over time of a fixed and of an adaptive factor, averaged over channels."""
    figure = go.Figure()
    ticks = np.arange(len(drift.fixed))
    for name, share, colour in (
        ("fixed factor", drift.fixed, ORANGE),
        ("adaptive factor", drift.adaptive, BLUE),
    ):
        mean = np.nanmean(share, axis=1)
        figure.add_scatter(x=ticks, y=mean, name=name, line={"color": colour, "width": 1.4})
    figure.add_hline(y=LEVEL, line={"color": GREY, "dash": "dash"})
    figure.add_vrect(
        x0=drift.begins, x1=drift.full, fillcolor=COLOURS[4], opacity=0.15, line_width=0
    )
    figure.update_layout(xaxis_title="ticks", yaxis_title="share held", yaxis_range=[0, 1])
    return figure


def _grid(found: Evaluation, channels: Sequence[int]) -> Any:
    rows = -(-len(channels) // ACROSS)
    figure = make_subplots(
        rows, ACROSS, vertical_spacing=0.15 / rows if rows > 1 else 0.0, horizontal_spacing=0.08
    )
    for n, channel in enumerate(channels):
        name = found.foreseen.names[channel]
        figure.update_yaxes(title_text=name, row=n // ACROSS + 1, col=n % ACROSS + 1)
    return figure


def _label_last_row(figure: Any, plots: int, title: str) -> None:
    for n in range(max(0, plots - ACROSS), plots):
        figure.update_xaxes(title_text=title, row=n // ACROSS + 1, col=n % ACROSS + 1)


def told(found: Evaluation) -> list[dict[str, str]]:
    """The table of coverage: a row per channel and level, before and after at every horizon."""
    rows = []
    for c, name in enumerate(found.columns):
        for level in TOLD:
            i = LEVELS.index(level)
            row = {"channel": name, "level": f"{level:.0%}"}
            for k in found.horizons:
                cells = [f"{found.before.share[i, k - 1, c]:.1%}"]
                if found.after is not None:
                    cells.append(f"{found.after.share[i, k - 1, c]:.1%}")
                row[f"k={k}"] = " → ".join(cells)
            rows.append(row)
    return rows
