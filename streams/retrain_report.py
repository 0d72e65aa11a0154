"""The report of a run that trained while it streamed: return before, after, and beside whom."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go
import polars as pl

from infra.report import COLOURS, Card, Page
from streams.demo_report import finished

if TYPE_CHECKING:
    from streams.demo_scene import Scene
    from streams.demo_stage import Take

BEFORE: Final = "before: exploring"
AFTER: Final = "after: new bundle"
ALONE: Final = "after: fallback alone"
BIN: Final = 40  # ticks that are averaged for the plots


def write_retrain_report(
    scene: "Scene", take: "Take", result: Mapping[str, Any], folder: Path
) -> Path:
    """Write the page; returns its path. Reads `ticks.parquet` and `fallback.parquet` of the run."""
    page = Page(
        f"Rehearse: {result['system']}, retrained while it ran",
        f"{result['entities']} {scene.spec.entity}s began under the fallback, which varied its "
        "actions so that the log shows causes. From that log a world model was trained, exported "
        "as a bundle, and took over without the stream being stopped.",
    )
    page.cards(_cards(result))
    _comparison(page, result)
    ours = _binned(pl.read_parquet(scene.folder / "ticks.parquet"))
    alone = _binned(pl.read_parquet(scene.folder / "fallback.parquet"))
    _course(page, result, ours, alone)
    _gain(page, result, ours, alone)
    return finished(page, scene, take, result, folder)


def _cards(result: Mapping[str, Any]) -> list[Card]:
    before, after, alone = (result["phases"][name]["reward"] for name in (BEFORE, AFTER, ALONE))
    lost = result["frames_lost"]
    return [
        Card(f"{before:.4f}", "reward per decision before (exploring fallback)"),
        Card(f"{after:.4f}", "after (new bundle)", "good" if after > before else "bad"),
        Card(
            f"{after - alone:+.4f}",
            "after, against the fallback alone on the same arrivals",
            "good" if after > alone else "bad",
        ),
        Card(f"{result['train_seconds']} s", "of training, while the stream went on"),
        Card(f"{result['frames']:,}", "frames"),
        Card(f"{lost}", "frames lost", "bad" if lost else "good"),
    ]


def _comparison(page: Page, result: Mapping[str, Any]) -> None:
    page.section(
        "Return before and after",
        "Reward is the spec's, per service and tick; it is negative, and nearer to zero is better. "
        "Before and after are different hours of the load, and exploring costs reward on purpose. "
        "So the last row is the fair comparison: the fallback without exploration over the ticks "
        "after the handover, on the same arrivals, simulated from the same start.",
    )
    page.table(
        [
            {
                "phase": name,
                "ticks": f"{phase['ticks']:,}",
                "reward per decision": f"{phase['reward']:.5f}",
                "requests in time": f"{100 * phase['slo']:.3f} %",
                "replicas, mean": f"{phase['replicas']:.2f}",
            }
            for name, phase in result["phases"].items()
        ]
    )


def _binned(ticks: pl.DataFrame) -> pl.DataFrame:
    """Mean reward over entities and `BIN` ticks: columns `bin` (its first tick) and `reward`."""
    return (
        ticks.group_by((pl.col("tick") // BIN * BIN).alias("bin"))
        .agg(pl.col("reward").fill_nan(None).mean())
        .sort("bin")
    )


def _course(page: Page, result: Mapping[str, Any], ours: pl.DataFrame, alone: pl.DataFrame) -> None:
    page.section(
        "Reward over time",
        f"Mean over all services and {BIN} ticks. Shaded: training ran beside the stream. Dashed: "
        "the handover to the new bundle.",
    )
    figure = go.Figure()
    first = int(ours["bin"][0])
    for name, rows, colour in (
        ("fallback alone, same arrivals", alone, "#9aa2ab"),
        ("the stream", ours, COLOURS[0]),
    ):
        figure.add_scatter(
            x=(rows["bin"] - first).to_list(),
            y=rows["reward"].to_list(),
            name=name,
            line={"color": colour, "width": 1.4},
        )
    _mark(figure, result, first)
    figure.update_layout(xaxis_title="ticks", yaxis_title="reward per decision")
    page.figure(figure, 380)


def _gain(page: Page, result: Mapping[str, Any], ours: pl.DataFrame, alone: pl.DataFrame) -> None:
    page.section(
        "Return gained since the start, against the fallback alone",
        "Sum of the difference of the two lines above, per service. It falls while the fallback "
        "explores, and rises where the stream does better than the fallback alone would have.",
    )
    both = ours.join(alone, on="bin", suffix="_alone")
    gained = ((both["reward"] - both["reward_alone"]) * BIN).cum_sum()
    figure = go.Figure()
    first = int(both["bin"][0])
    figure.add_scatter(
        x=(both["bin"] - first).to_list(), y=gained.to_list(), line={"color": COLOURS[0]}
    )
    _mark(figure, result, first)
    figure.update_layout(xaxis_title="ticks", yaxis_title="return", showlegend=False)
    page.figure(figure, 300)


def _mark(figure: go.Figure, result: Mapping[str, Any], first: int) -> None:
    """The stretch of training, and the handover at its end."""
    begun, handover = result["training_tick"] - first, result["handover_tick"] - first
    figure.add_vrect(x0=begun, x1=handover, fillcolor=COLOURS[4], opacity=0.15, line_width=0)
    figure.add_vline(
        x=handover, line={"color": COLOURS[1], "dash": "dash"}, annotation_text="handover"
    )
