"""How training went: its curves as one HTML page."""

from pathlib import Path

import numpy as np


def write_report(path: Path, curves: dict[str, list[tuple[int, float]]], title: str) -> None:
    """The training curves as one HTML page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = sorted(curves)
    figure = make_subplots(rows=(len(names) + 2) // 3, cols=3, subplot_titles=names)
    for i, name in enumerate(names):
        steps, values = np.array(curves[name], dtype=np.float64).T
        window = max(1, len(values) // 200)
        usable = len(values) // window * window
        smooth = values[:usable].reshape(-1, window).mean(1)
        at = steps[:usable].reshape(-1, window).mean(1)
        line = go.Scatter(x=at, y=smooth, mode="lines", name=name, showlegend=False)
        figure.add_trace(line, row=i // 3 + 1, col=i % 3 + 1)
    figure.update_layout(title=title, height=260 * ((len(names) + 2) // 3), width=1100)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs="directory")
