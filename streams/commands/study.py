"""Looking back and trying out: backtest, record, replay, monitor."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress

from streams.commands.options import (
    Bootstrap,
    Bundles,
    Extra,
    Json,
    Seed,
    Spec,
    broker_of,
    bundle_roots,
    console,
    errors,
    extra_settings,
    plant_options,
    show,
    spec_of,
    stopping,
)

PolicyName = Literal["planner", "actor", "fallback", "explore"]


def backtest(
    spec: Spec,
    trace: Annotated[Path | None, typer.Option(help="Load, Parquet or CSV (autoscale).")] = None,
    day: Annotated[
        int | None, typer.Option(help="Only this full day of the trace; negative: from its end.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="Parquet with a row per tick and entity.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Folder of trajectories to train from.")] = None,
    policy: Annotated[PolicyName, typer.Option(help="Who decides.")] = "planner",
    share: Annotated[float, typer.Option(help="Of explored stretches, with --policy explore.")] = (
        0.7
    ),
    ticks: Annotated[int | None, typer.Option(help="Stop after so many ticks.")] = None,
    seed: Seed = 0,
    bundles: Bundles = None,
    services: Annotated[int | None, typer.Option(help="Entities (autoscale).")] = None,
    capacity: Annotated[
        float | None, typer.Option(help="Requests per second that one replica serves (autoscale).")
    ] = None,
    cold_start: Annotated[
        str | None, typer.Option(help="Mean, such as '120 s' (autoscale).")
    ] = None,
    slo_wait: Annotated[
        str | None, typer.Option(help="A request that waits longer is late (autoscale).")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Of the plant; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a system against its simulator without Kafka, as fast as it goes.

    Example: rehearse backtest autoscale --trace load.parquet --decisions out.parquet
    """
    with errors():
        from streams.backtest import backtest as run
        from streams.backtest_setup import BacktestSetup, prepare

        given: dict[str, Any] = plant_options(options)
        named = {"services": services, "cold_start": cold_start, "slo_wait": slo_wait}
        given |= {name: value for name, value in named.items() if value is not None}
        if capacity is not None:
            given["service_time"] = 1.0 / capacity
        setup = BacktestSetup(
            spec_of(spec), trace, day, policy, share, seed, tuple(bundles or bundle_roots()), given
        )
        plant, chosen = prepare(setup)
        total = ticks if plant.ticks is None else min(ticks or plant.ticks, plant.ticks)
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"{spec}: {policy}", total=total)
            result = run(
                setup.spec,
                plant,
                chosen,
                seed=seed,
                ticks=total,
                decisions=decisions,
                log=log,
                on_tick=lambda done: bar.update(task, completed=done),
            )
    show({**vars(result), "times_real_time": round(result.speed, 1)}, as_json)


def record(
    spec: Spec,
    out: Annotated[Path, typer.Option(help="Folder of the recording.")],
    from_: Annotated[int | None, typer.Option("--from", metavar="US", help="Event time.")] = None,
    to: Annotated[int | None, typer.Option(metavar="US", help="Event time.")] = None,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Copy frames and trajectories of a system into a folder that can be replayed.

    Example: rehearse record autoscale --out ./monday
    """
    from streams.record import record as run

    with errors(), stopping() as stop:
        result = run(
            spec_of(spec),
            broker_of(bootstrap),
            extra_settings(extra),
            out,
            from_us=from_,
            to_us=to,
            stop=stop,
        )
    show(result, as_json)


def add(app: typer.Typer) -> None:
    """Add these commands to the main one."""
    for command in (backtest, record):
        app.command(rich_help_panel="Looking back, trying out")(command)
