"""The demo's report: what was controlled, how well, beside whom, and where each figure is from."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from infra.report import COLOURS, Card, Page
from schemas.codes import Mode
from streams.baselines import SLO

if TYPE_CHECKING:
    from streams.demo_scene import Scene
    from streams.demo_stage import Take

NAMES = {
    "ours": "Rehearse",
    "hpa_70": "HPA at 70 %",
    "hpa_best": "HPA, best target",
    "clairvoyant": "clairvoyant",
}
OFTEN = 0.2
"""Share of the decisions above which it is told loudly that the fallback made them."""


def write_report(scene: "Scene", take: "Take", result: Mapping[str, Any], folder: Path) -> Path:
    """Write the page of one run; returns its path."""
    ticks = pl.read_parquet(scene.folder / "ticks.parquet")
    page = Page(
        f"Rehearse: {result['system']}",
        f"{result['entities']} {scene.spec.entity}s, {result['ticks']:,} ticks through Kafka in "
        f"{result['seconds']:.0f} s. Who decided each action, what the gate said of it, and what "
        "came of it stands below.",
    )
    page.cards(_cards(result))
    if "baselines" in result:
        _autoscale(page, scene, result, ticks)
    elif "cost" in result:
        _course(page, scene, ticks, {})
    else:
        _nav2d(page, scene, result, ticks)
    return finished(page, scene, take, result, folder)


def finished(
    page: Page, scene: "Scene", take: "Take", result: Mapping[str, Any], folder: Path
) -> Path:
    """Adds what every report ends with, and writes it; returns its path."""
    _decisions_section(page, result)
    _latency_section(page, take, result)
    _provenance_section(page, scene, result)
    return page.write(folder / f"{scene.folder.name}.html")


def _cards(result: Mapping[str, Any]) -> list[Card]:
    cards = []
    if "slo" in result:
        met = result["slo"] >= SLO
        cards.append(
            Card(
                f"{100 * result['slo']:.3f} %",
                "requests in time (SLO 99.95 %)",
                "good" if met else "bad",
            )
        )
        cards.append(Card(f"{result['cost_ratio']:.3f} ×", "cost, of perfectly elastic"))
    if "baselines" in result:
        others = result["baselines"]
        saved = 1 - result["cost"] / others["hpa_70"]["cost"]
        cards.append(
            Card(
                f"{100 * saved:+.1f} %", "saved against HPA at 70 %", "good" if saved > 0 else "bad"
            )
        )
        gap = result["gap_closed"]
        text = "–" if gap is None else f"{100 * gap:+.0f} %"
        cards.append(
            Card(
                text,
                "of the gap from best HPA to clairvoyant",
                "good" if gap and gap > 0 else "bad",
            )
        )
    if "reached" in result:
        good = result["reached"] >= 0.95
        cards.append(
            Card(
                f"{100 * result['reached']:.1f} %",
                "robots at their goal",
                "good" if good else "bad",
            )
        )
    lost = result["frames_lost"]
    cards.append(Card(f"{result['frames']:,}", "frames"))
    cards.append(Card(f"{lost}", "frames lost", "bad" if lost else "good"))
    cards.append(Card(f"{result['decisions']:,}", "decisions"))
    if unplanned_note(result):
        share = result["modes"][Mode.FALLBACK.name.lower()] / result["decisions"]
        cards.append(Card(f"{100 * share:.0f} %", "of them the fallback's: see below", "bad"))
    latency = result["latency_ms"]
    if latency:
        cards.append(
            Card(f"{latency['p50']:.1f} / {latency['p99']:.1f}", "ms sensor → action, p50 / p99")
        )
    return cards


def _autoscale(page: Page, scene: "Scene", result: Mapping[str, Any], ticks: pl.DataFrame) -> None:
    others = result["baselines"]
    page.section(
        "Beside others, on the same arrivals",
        "Cost is billed replica-seconds, as a multiple of a perfectly elastic fleet. Parameters "
        "of the HPA and of the clairvoyant were chosen on training days; a saving counts only "
        "where the SLO of 99.95 % is met.",
    )
    rows = [_row("ours", result, None)]
    rows += [_row(name, score, score["parameter"]) for name, score in others.items()]
    page.table(rows)
    scores = {"ours": result, **others}
    figure = go.Figure()
    for i, (name, score) in enumerate(scores.items()):
        figure.add_bar(
            x=[score["cost_ratio"]],
            y=[NAMES[name]],
            orientation="h",
            name=NAMES[name],
            marker_color=COLOURS[0] if i == 0 else "#b9c0c8",
            text=[f"{score['cost_ratio']:.3f} × · {100 * score['slo']:.3f} % in time"],
            textposition="auto",
        )
    figure.update_layout(showlegend=False, xaxis_title="cost, × perfectly elastic")
    figure.update_yaxes(autorange="reversed")
    page.figure(figure, 260)
    _course(page, scene, ticks, others)


def _row(name: str, score: Mapping[str, Any], parameter: float | None) -> dict[str, Any]:
    return {
        "policy": NAMES[name],
        "parameter": "" if parameter is None else f"{parameter:g}",
        "cost, × elastic": f"{score['cost_ratio']:.3f}",
        "replica-hours": f"{score['cost'] / 3600:,.0f}",
        "in time": f"{100 * score['slo']:.4f} %",
        "SLO": "met" if score["slo"] >= SLO else "missed",
        "direction flips": f"{score['flips']:,.0f}",
    }


def _course(
    page: Page, scene: "Scene", ticks: pl.DataFrame, others: Mapping[str, Mapping[str, Any]]
) -> None:
    entity = str(ticks["entity"].min())
    one = ticks.filter(pl.col("entity") == entity).sort("time_s")
    times = pl.from_epoch(one["time_s"].cast(pl.Int64)).to_list()
    page.section(
        f"The course of {entity}",
        "Load in Erlang (arrival rate × service time): so many replicas were busy on average. "
        "Click a name in the legend to hide its line.",
    )
    capacity = float(scene.spec.fallback.params.get("capacity", 1.0))
    period = scene.spec.period_us / 1e6
    figure = go.Figure()
    figure.add_scatter(
        x=times,
        y=(one["requests"] / period / capacity).to_list(),
        name="load",
        line={"color": "#9aa2ab", "width": 1},
        fill="tozeroy",
        fillcolor="rgba(120,130,140,.18)",
    )
    figure.add_scatter(
        x=times,
        y=one["ready"].to_list(),
        name="ready (ours)",
        line={"color": COLOURS[0], "width": 1.4, "shape": "hv"},
    )
    for i, (name, score) in enumerate(others.items()):
        visible: Any = True if name == "hpa_best" else "legendonly"
        figure.add_scatter(
            x=times,
            y=score["ready"][: len(times)],
            name=NAMES[name],
            line={"color": COLOURS[i + 1], "width": 1.1, "shape": "hv"},
            visible=visible,
        )
    figure.update_layout(yaxis_title="replicas")
    page.figure(figure, 420)
    late = ticks.group_by("time_s").agg(pl.col("late").sum()).sort("time_s")
    figure = go.Figure()
    figure.add_scatter(
        x=times,
        y=late["late"].cum_sum().to_list(),
        name="late requests",
        line={"color": COLOURS[1]},
    )
    figure.update_layout(yaxis_title="late so far, all services")
    page.figure(figure, 260)


def seconds_text(value: float | None) -> str:
    """A time, or a dash where nobody arrived."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f} s"


def _nav2d(page: Page, scene: "Scene", result: Mapping[str, Any], ticks: pl.DataFrame) -> None:
    page.section(
        "Planner, actor, fallback",
        "Mean return of the same robots from the same starts to the same goals; higher is better. "
        "A planner must beat its own actor.",
    )
    page.table(
        [
            {
                "policy": name,
                "return": f"{row['return']:,.1f}",
                "at the goal": f"{100 * row['reached']:.1f} %",
                "time to goal": seconds_text(row["time_to_goal"]),
            }
            for name, row in result["returns"].items()
        ]
    )
    trajectories = read_trajectories(scene.folder / "trajectories")
    if trajectories is None or "position[0]" not in trajectories.columns:
        return
    page.section("Paths of 24 robots", "From the open circle to the cross of the same colour.")
    figure = go.Figure()
    names = sorted(trajectories["entity"].unique().to_list())
    for i, entity in enumerate(names[:: max(1, len(names) // 24)][:24]):
        path = trajectories.filter(pl.col("entity") == entity).sort("tick")
        path = path.filter(pl.col("position[0]").is_not_nan())
        colour = COLOURS[i % len(COLOURS)]
        figure.add_scatter(
            x=path["position[0]"].to_list(),
            y=path["position[1]"].to_list(),
            mode="lines",
            line={"color": colour, "width": 1.3},
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=path["position[0]"].head(1).to_list(),
            y=path["position[1]"].head(1).to_list(),
            mode="markers",
            marker={"color": colour, "symbol": "circle-open", "size": 8},
            showlegend=False,
            name=entity,
        )
        figure.add_scatter(
            x=path["goal[0]"].tail(1).to_list(),
            y=path["goal[1]"].tail(1).to_list(),
            mode="markers",
            marker={"color": colour, "symbol": "x", "size": 7},
            showlegend=False,
            name=entity,
        )
    figure.update_yaxes(scaleanchor="x", scaleratio=1, title="m")
    figure.update_xaxes(title="m")
    page.figure(figure, 620)
    _distances(page, trajectories)


def _distances(page: Page, trajectories: pl.DataFrame) -> None:
    page.section("Distance to the goal", "Half of all robots are within the band; line: median.")
    offsets = [pl.col(f"position[{i}]") - pl.col(f"goal[{i}]") for i in (0, 1)]
    distance = (offsets[0] ** 2 + offsets[1] ** 2).sqrt().fill_nan(None)
    rows = (
        trajectories.with_columns(distance=distance)
        .group_by("tick")
        .agg(
            *(pl.col("distance").quantile(q).alias(f"q{round(100 * q)}") for q in (0.25, 0.5, 0.75))
        )
        .sort("tick")
    )
    seconds = ((rows["tick"] - rows["tick"].min()) / 10).to_list()
    figure = go.Figure()
    figure.add_scatter(x=seconds, y=rows["q75"].to_list(), line={"width": 0}, showlegend=False)
    figure.add_scatter(
        x=seconds,
        y=rows["q25"].to_list(),
        line={"width": 0},
        fill="tonexty",
        fillcolor="rgba(0,114,178,.2)",
        name="middle half",
    )
    figure.add_scatter(
        x=seconds, y=rows["q50"].to_list(), line={"color": COLOURS[0]}, name="median"
    )
    figure.update_layout(xaxis_title="s", yaxis_title="m")
    page.figure(figure, 300)


def read_trajectories(folder: Path) -> pl.DataFrame | None:
    """All trajectory rows below `folder`; None where there are none."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        return None
    return pl.concat([pl.read_parquet(file) for file in files], how="diagonal_relaxed")


def _decisions_section(page: Page, result: Mapping[str, Any]) -> None:
    """Counts by mode and by reason of the gate."""
    page.section(
        "Who decided, and what the gate said",
        "plan: imagined at this tick. follow: the rest of an earlier plan. actor: the learned "
        "policy. fallback: the verified controller. A reason of the gate may stand beside any. "
        + unplanned_note(result),
    )
    total = max(result["decisions"], 1)
    known = [mode.name.lower() for mode in Mode]
    page.table(
        [
            {"mode": name, "decisions": f"{count:,}", "share": f"{100 * count / total:.2f} %"}
            for name, count in sorted(result["modes"].items(), key=lambda m: known.index(m[0]))
        ]
    )
    page.table(
        [
            {"reason": name, "decisions": f"{count:,}", "share": f"{100 * count / total:.2f} %"}
            for name, count in sorted(result["gate"].items(), key=lambda item: -item[1])
        ]
    )


def unplanned_note(result: Mapping[str, Any]) -> str:
    """What to say where the fallback, not a plan, decided often; nothing where it seldom did."""
    share = result["modes"].get(Mode.FALLBACK.name.lower(), 0) / max(result["decisions"], 1)
    if share <= OFTEN or "phases" in result:  # before a model is trained, nothing else decides
        return ""
    return (
        f"The fallback decided {100 * share:.0f} % of the time: these figures are of it more than "
        f"of planning. Most often plans do not fit the deadline of {result['deadline_ms']:g} ms on "
        "the machine: 'rehearse bench plan' tells what one takes here; a longer deadline or a "
        "smaller tier (budget in the spec) makes room."
    )


def stolen_note(result: Mapping[str, Any]) -> str:
    """What to say of the processor time that was not this machine's; nothing where all was."""
    if not result.get("stolen_ms"):
        return ""
    return (
        f" The host of this virtual machine gave {result['stolen_ms']:,} ms of its processors' "
        "time to others meanwhile; what waited for it is in these figures."
    )


def _latency_section(page: Page, take: "Take", result: Mapping[str, Any]) -> None:
    """Percentiles from reading to action, and of a step."""
    # In lockstep nothing is due at a time, and the plant waits for every action.
    lockstep = result.get("tick_to_action_ms") is None
    begin = (
        "From the sending of a tick's first reading"
        if lockstep
        else "Open loop: from the scheduled sending of the reading that closed a tick"
    )
    page.section(
        "Latency",
        f"{begin} to the arrival of the action at the actuator. Step: encode, believe, plan and "
        "gate, inside the worker." + stolen_note(result),
    )
    names = {
        "latency_ms": "sensor → action",
        "tick_to_action_ms": "tick time → action",
        "send_lateness_ms": "lateness of our own sending",
    }
    rows = [
        {"": label, **{key: f"{value:,.2f}" for key, value in result[name].items() if key != "n"}}
        for name, label in names.items()
        if result.get(name)
    ]
    if take.statistics.step_ms:
        quantiles = np.percentile(take.statistics.step_ms, (50, 99, 99.9, 100))
        labels = ("p50", "p99", "p999", "max")
        values = {k: f"{v:,.2f}" for k, v in zip(labels, quantiles, strict=True)}
        rows.append({"": "step", **values})
    page.table(rows)


def _provenance_section(page: Page, scene: "Scene", result: Mapping[str, Any]) -> None:
    """Command, folder, spec, bundles, load and seed."""
    page.section("Where these figures come from")
    page.facts(
        {
            "command": " ".join(["rehearse", *sys.argv[1:]]),
            "run": result["folder"],
            "spec": f"{scene.spec_file} ({result['spec']})",
            "bundles": ", ".join(f"{k}: {v:,}" for k, v in result["bundles"].items()),
            "load": result.get("load", "none"),
            "seed": result["seed"],
            "processes restarted": result["restarts"],
        }
    )
