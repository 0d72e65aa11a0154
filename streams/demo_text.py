"""The demo's last words on the terminal: the figures a person asks for, and where to look."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.baselines import SLO
from streams.demo_report import NAMES, unplanned_note
from streams.retrain_report import AFTER


def print_summary(result: Mapping[str, Any]) -> None:
    """Print a demo's result for people."""
    out = Console()
    head = f"[bold]{result['system']}[/]: {result['ticks']:,} ticks, {result['entities']} entities"
    lost = result["frames_lost"]
    colour = "red" if lost else "green"
    out.print(
        f"\n{head}, {result['decisions']:,} decisions in {result['seconds']:.0f} s, "
        f"{result['frames']:,} frames, [{colour}]{lost} lost[/]"
    )
    for name in ("modes", "gate"):
        total = max(result["decisions"], 1)
        parts = [f"{key} {100 * n / total:.1f} %" for key, n in result[name].items()]
        out.print(f"  {name:<8} {' · '.join(parts) or '–'}")
    if note := unplanned_note(result):
        out.print(f"[bold yellow]{note}[/]")
    if result.get("latency_ms"):
        values = result["latency_ms"]
        out.print(
            f"  latency  p50 {values['p50']:.1f} · p99 {values['p99']:.1f} · "
            f"p99.9 {values['p999']:.1f} ms from reading to action"
        )
        if result.get("stolen_ms"):
            out.print(f"           (the host took {result['stolen_ms']:,} ms of processor time)")
    if "slo" in result:
        out.print(_cost_table(result))
    if "returns" in result:
        out.print(_return_table(result))
    if "phases" in result:
        out.print(_phase_table(result))
    if result.get("report"):
        out.print(f"report: [bold]{result['report']}[/]", soft_wrap=True)


def _cost_table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for name in ("", "cost × elastic", "in time", "SLO", "flips"):
        table.add_column(name, justify="left" if not name else "right")
    scores = {"ours": result, **result.get("baselines", {})}
    for name, score in scores.items():
        met = score["slo"] >= SLO
        table.add_row(
            f"[bold]{NAMES[name]}[/]" if name == "ours" else NAMES[name],
            f"{score['cost_ratio']:.3f}",
            f"{100 * score['slo']:.4f} %",
            "[green]met[/]" if met else "[red]missed[/]",
            f"{score['flips']:,.0f}",
        )
    if "gap_closed" in result:
        gap = result["gap_closed"]
        table.caption = (
            "below the SLO a saving means nothing"
            if gap is None
            else f"{100 * gap:+.0f} % of the gap from the best HPA to the clairvoyant closed"
        )
    return table


def _return_table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("")
    for name in ("mean return", "at the goal"):
        table.add_column(name, justify="right")
    table.add_row("[bold]live[/]", "", f"{100 * result['reached']:.1f} %")
    for name, row in result["returns"].items():
        table.add_row(name, f"{row['return']:,.2f}", f"{100 * row.get('reached', 0.0):.1f} %")
    return table


def _phase_table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for name in ("", "ticks", "reward per decision", "in time", "replicas"):
        table.add_column(name, justify="right" if name else "left")
    for name, phase in result["phases"].items():
        table.add_row(
            f"[bold]{name}[/]" if name == AFTER else name,
            f"{phase['ticks']:,}",
            f"{phase['reward']:.4f}",
            f"{100 * phase['slo']:.3f} %",
            f"{phase['replicas']:.2f}",
        )
    return table
