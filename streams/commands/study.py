"""Looking back and trying out: backtest, record."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress

from streams.commands.console import console
from streams.commands.options import (
    Bootstrap,
    Bundles,
    Extra,
    From,
    Json,
    PlantOptions,
    Seed,
    Spec,
    Ticks,
    To,
    acting_bundles,
    catalog_url,
    cluster_of,
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
    recording: Annotated[
        Path | None, typer.Option("--record", help="New folder of a recording, to be replayed.")
    ] = None,
    policy: Annotated[PolicyName, typer.Option(help="Who decides.")] = "planner",
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of explored stretches, with --policy explore.")
    ] = (0.7),
    unhurried: Annotated[
        bool,
        typer.Option(
            "--unhurried", help="Plan through all tiers, whatever the clock: the same run anywhere."
        ),
    ] = False,
    ticks: Ticks = None,
    seed: Seed = 0,
    bundles: Bundles = None,
    services: Annotated[int | None, typer.Option(min=1, help="Entities (autoscale).")] = None,
    capacity: Annotated[
        float | None, typer.Option(help="Requests per second that one replica serves (autoscale).")
    ] = None,
    cold_start: Annotated[
        str | None, typer.Option(help="Mean, such as '120 s' (autoscale).")
    ] = None,
    slo_wait: Annotated[
        str | None, typer.Option(help="A request that waits longer is late (autoscale).")
    ] = None,
    options: PlantOptions = None,
    as_json: Json = False,
) -> None:
    """Run a system against its simulator without Kafka, as fast as it goes.

    Example: rehearse backtest autoscale --ticks 240 --decisions out.parquet
    """
    with errors():
        from streams.backtest import backtest as run
        from streams.backtest_setup import BacktestSetup, prepare

        given: dict[str, Any] = plant_options(options)
        named = {"services": services, "cold_start": cold_start, "slo_wait": slo_wait}
        given |= {name: value for name, value in named.items() if value is not None}
        if capacity is not None:
            if not 0.0 < capacity < float("inf"):
                raise ValueError(f"--capacity {capacity}: give requests per second, more than zero")
            given["service_time"] = 1.0 / capacity
        known = tuple(acting_bundles(bundles))
        setup = BacktestSetup(
            spec_of(spec), trace, day, policy, share, seed, known, given, unhurried
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
                recording=recording,
                on_tick=lambda done: bar.update(task, completed=done),
            )
    show({**vars(result), "times_real_time": round(result.speed, 1)}, as_json)


def record(
    spec: Spec,
    out: Annotated[Path, typer.Option(help="Folder of the recording.")],
    from_: From = None,
    to: To = None,
    source: Annotated[
        Path | None, typer.Option(help="A sink's folder to record from, instead of Kafka.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on behind the present end, until Ctrl-C or --to.")
    ] = False,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Copy frames and trajectories of a system into a folder that can be replayed.

    Made again into the same folder, a recording that was cut off goes on where it was. What the
    topics do not hold any more is named.

    Example: rehearse record nav2d --out ./monday

    (beside a running `rehearse run nav2d --plant`, or after it)
    """
    from streams.record import record as run

    with errors(), stopping() as stop:
        system = spec_of(spec)
        place = ("", extra_settings(extra)) if source else cluster_of(bootstrap, extra, "replay")
        result = run(
            system,
            *place,
            out,
            from_us=from_,
            to_us=to,
            stop=stop,
            source=source,
            follow=follow,
            catalog_url=catalog_url(),
        )
    show(result, as_json)
    for line in result["missing"]:
        console.print(f"missing: {line}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if result["complete"] else 1)
