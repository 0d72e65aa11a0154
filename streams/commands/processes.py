"""The parts of the loop, one process each: align, worker, sink, plant."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.home import home_folder
from streams.commands.options import (
    Bootstrap,
    Bundles,
    CatalogUrl,
    ClockName,
    Device,
    Extra,
    Json,
    MetricsHost,
    MetricsPort,
    PlantOptions,
    Seed,
    Shadow,
    Spec,
    Ticks,
    Twin,
    acting_bundles,
    bundle_roots,
    catalog_url,
    cluster_of,
    errors,
    metrics_at,
    plant_options,
    role_of,
    show,
    spec_of,
    stopping,
)


def align(
    spec: Spec,
    clock: ClockName = "wall",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Turn sensor topics into frames: one cohort of entities at one tick.

    Example: rehearse topics create nav2d && rehearse align nav2d
    """
    from infra.priority import go_first
    from streams.align_kafka import run_align

    go_first()
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        result = run_align(spec_of(spec), *cluster_of(bootstrap, extra), stop, clock=clock)
    show(result, as_json)


def worker(
    spec: Spec,
    clock: ClockName = "wall",
    shadow: Shadow = False,
    twin: Twin = False,
    name: Annotated[
        str | None,
        typer.Option("--id", help="Stays the same over restarts. Default: worker-0, or twin-0."),
    ] = None,
    bundles: Bundles = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of its local store.")] = None,
    device: Device = "auto",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Decide: frames in; beliefs, gated actions and trajectories out.

    Example: rehearse topics create nav2d && rehearse worker nav2d --shadow

    A twin beside the workers that act: rehearse worker nav2d --twin
    """
    from infra.priority import go_first
    from streams.worker import run_worker

    go_first()
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        role, system = role_of(shadow, twin), spec_of(spec)
        name = name or ("twin-0" if twin else "worker-0")
        result = run_worker(
            system,
            *cluster_of(bootstrap, extra),
            stop,
            bundles=acting_bundles(bundles),
            known=bundle_roots(),
            worker_id=name,
            data_dir=data_dir or home_folder() / "workers" / system.system / name,
            role=role,
            clock=clock,
            provider=device,
        )
    show(result, as_json)


def sink(
    spec: Spec,
    out: Annotated[Path | None, typer.Option(help="Folder for Parquet files.")] = None,
    catalog: CatalogUrl = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Write trajectories to Parquet by system and day, and index them in the catalog.

    Example: rehearse topics create nav2d && rehearse sink nav2d --out ./trajectories
    """
    from infra.priority import make_room
    from streams.sink import run_sink

    make_room(10)  # nobody waits for it
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        result = run_sink(
            spec_of(spec),
            *cluster_of(bootstrap, extra),
            stop,
            out_dir=out or home_folder() / "trajectories",
            catalog_url=catalog or catalog_url(),
        )
    show(result, as_json)


def plant(
    spec: Spec,
    ticks: Ticks = None,
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="Wait for the actions of each tick.")
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(help="Event clock, N times real time; with --lockstep at most so fast."),
    ] = None,
    pace_file: Annotated[
        Path | None,
        typer.Option(help="With --lockstep: holds a --speed that may be changed meanwhile."),
    ] = None,
    seed: Seed = 0,
    options: PlantOptions = None,
    log: Annotated[
        Path | None, typer.Option(help="Parquet with a row per tick and entity.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Put the simulator that a spec names on its topics: readings out, actions in.

    Example: rehearse topics create nav2d && rehearse plant nav2d --ticks 600 -o robots=50
    """
    from infra.plants.base import make_plant
    from infra.priority import go_first
    from streams.plant import run_plant

    go_first()
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        system = spec_of(spec)
        parsed: dict[str, Any] = plant_options(options)
        result = run_plant(
            system,
            make_plant(system, **parsed),
            *cluster_of(bootstrap, extra),
            stop,
            ticks=ticks,
            lockstep=lockstep,
            speed=speed,
            pace_file=pace_file,
            seed=seed,
            log=log,
        )
    show(result, as_json)
