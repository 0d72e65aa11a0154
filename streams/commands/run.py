"""`rehearse demo` and `rehearse run`: the whole loop."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live

from infra.home import home_folder
from infra.secure import as_role
from streams.commands.console import console
from streams.commands.options import (
    Bootstrap,
    Bundles,
    Device,
    Extra,
    Json,
    PlantOptions,
    Seed,
    Shadow,
    Spec,
    Ticks,
    Twin,
    acting_bundles,
    cluster_of,
    errors,
    interruptible,
    plant_options,
    show,
    spec_of,
    stopping,
    worker_role,
)
from streams.make_topics import make_topics
from streams.supervise import Process


def demo(
    system: Annotated[
        str, typer.Option(help="autoscale (services under a day of load) or nav2d (200 robots).")
    ] = "autoscale",
    trace: Annotated[
        Path | None, typer.Option(help="Load as Parquet or CSV; default: recorded or generated.")
    ] = None,
    time_column: Annotated[str | None, typer.Option(help="Of the trace.")] = None,
    value_column: Annotated[str | None, typer.Option(help="Of the trace.")] = None,
    day: Annotated[
        int | None, typer.Option(help="Full day of the trace; default: its first test day.")
    ] = None,
    ticks: Ticks = None,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Collect, train, and hand over while the stream runs."),
    ] = False,
    seed: Seed = 0,
    bundles: Bundles = None,
    options: PlantOptions = None,
    keep_topics: Annotated[bool, typer.Option(help="Leave the run's topics behind.")] = False,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """The whole loop on real topics: a live table, a summary, and an HTML report.

    Example: rehearse demo --system nav2d
    """
    from streams.demo import run_demo
    from streams.demo_scene import DemoOptions
    from streams.demo_text import print_summary
    from streams.retrain import run_retrain

    with interruptible(), errors():
        chosen = DemoOptions(
            system=system,
            trace=trace,
            time_column=time_column,
            value_column=value_column,
            day=day,
            ticks=ticks,
            seed=seed,
            bundles=tuple(acting_bundles(bundles)),
            plant_options=plant_options(options),
            keep_topics=keep_topics,
        )
        run = run_retrain if retrain else run_demo
        place, settings = cluster_of(bootstrap, extra)
        result = run(chosen, home_folder().absolute(), place, settings, console)
    if as_json:
        show(result, True)
    else:
        print_summary(result)


def run(
    spec: Spec,
    shadow: Shadow = False,
    twin: Twin = False,
    plant: Annotated[
        bool, typer.Option("--plant", help="Also run the simulator that the spec names.")
    ] = False,
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="With --plant: event clock, as fast as it goes.")
    ] = False,
    options: PlantOptions = None,
    aligners: Annotated[
        int, typer.Option(min=1, help="Aligners, each with a share of the cohorts.")
    ] = 1,
    standby: Annotated[
        bool, typer.Option("--standby", help="Beside each aligner one that takes over from it.")
    ] = False,
    bundles: Bundles = None,
    device: Device = "auto",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Aligner, worker and sink (and plant), supervised, against any broker, until Ctrl-C.

    Example: rehearse run nav2d --plant

    With plants and a cluster of one's own: add --shadow and --bootstrap-servers HOST:PORT. Where an
    aligner may fail: --standby. Where one is not enough: --aligners 2. Where a
    worker may: --twin.
    """
    from streams.align_share import Share
    from streams.monitor import Monitor, live_table
    from streams.supervise import Supervisor

    with errors(), stopping() as stop:
        system, _ = spec_of(spec), worker_role(shadow, twin)
        if (lockstep or options) and not plant:
            raise ValueError("--lockstep and --option are for the simulator: add --plant")
        Share(of=aligners).check(system, {})  # before anything is started
        if device == "cuda":
            from planner.runtime import choose

            choose(device)  # says here, too, that there is none, not only in the worker's log
        place, settings = cluster_of(bootstrap, extra)
        make_topics(system, place, settings)
        connection = ["--bootstrap-servers", place]
        clock = ["--clock", "event" if plant and lockstep else "wall"]
        chosen = [part for path in bundles or [] for part in ("--bundle", str(path))]
        chosen += ["--device", device]
        began, simulator = time.monotonic(), None
        monitor = Monitor(system, place, as_role(settings, "replay"))
        folder = home_folder().absolute() / "runs" / system.system
        with Supervisor(folder, settings) as supervisor:
            supervisor.start("sink", "sink", spec, *connection)
            mode = ["--shadow"] if shadow else []
            decide = ["worker", spec, *clock, *mode, *chosen, *connection]
            supervisor.start("worker", *decide, spared=not (twin or shadow))
            if twin:
                supervisor.start("twin", "worker", spec, "--twin", *clock, *chosen, *connection)
            for name, way in _aligners(aligners, standby):
                supervisor.start(name, "align", spec, *way, *clock, *connection)
            if system.perceived:
                supervisor.start(
                    "perceive", "perceive", spec, *clock, "--device", device, *connection
                )
            if plant:
                way = ["--lockstep"] if lockstep else []
                way += [part for option in options or [] for part in ("-o", option)]
                simulator = supervisor.start("plant", "plant", spec, *way, *connection)
            with Live(console=console, refresh_per_second=4) as live:
                while not stop.is_set():
                    monitor.poll(0.25)
                    supervisor.check()
                    seconds = time.monotonic() - began
                    note = "the plant's run is over" if _over(simulator) else ""
                    live.update(live_table(system, monitor.statistics, None, seconds, note))
        summaries: dict[str, Any] = {p.name: p.summary() for p in supervisor.processes}
        monitor.close()
    show({"system": system.system, "shadow": shadow, **summaries}, as_json)


def _aligners(count: int, standby: bool) -> Iterator[tuple[str, list[str]]]:
    """Names and options of the aligners to start.

    Of a pair both stand by, so that the one that is started again does not take over at once.
    """
    for number in range(1, count + 1):
        name = "align" if count == 1 else f"align-{number}"
        way = [] if count == 1 else ["--part", f"{number}/{count}"]
        if not standby:
            yield name, way
            continue
        yield name, [*way, "--standby"]
        yield f"{name}-standby", [*way, "--standby"]


def _over(plant: Process | None) -> bool:
    return plant is not None and plant.poll() == 0
