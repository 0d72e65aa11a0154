"""The parts of the loop, one process each: perceive, align, worker, sink, plant."""

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
    show,
    spec_of,
    stopping,
    ways_of,
    worker_role,
)


def align(
    spec: Spec,
    clock: ClockName = "wall",
    standby: Annotated[
        bool, typer.Option("--standby", help="Take over when the active aligner falls silent.")
    ] = False,
    part: Annotated[
        str,
        typer.Option(metavar="K/N", help="Of N aligners, the K-th: a share of the cohorts."),
    ] = "1/1",
    repartition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FROM=TO",
            help="Only copy topic FROM to a sensor's topic TO, partitioned by entity; repeatable.",
        ),
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Turn sensor topics into frames: one cohort of entities at one tick.

    Example: rehearse topics create nav2d && rehearse align nav2d

    Another one with --standby reads along, and takes over within two seconds. With --part 1/2 and
    --part 2/2 two of them share the work, where topics are partitioned by entity; what is not comes
    there with --repartition devices.position=nav2d.sensors.position, in a process of its own.
    """
    from infra.priority import go_first
    from streams.align_kafka import run_align
    from streams.align_share import Share
    from streams.repartition import run_repartition

    go_first()
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        share = Share.named(part)
        if share is None:
            raise ValueError(f"--part {part}: write it as K/N, such as 1/2 for the first of two")
        system = spec_of(spec)
        cluster = cluster_of(bootstrap, extra, "admin" if repartition else "align")
        if repartition:
            result = run_repartition(system, *cluster, stop, ways_of(repartition))
        else:
            result = run_align(system, *cluster, stop, clock=clock, standby=standby, share=share)
    show(result, as_json)


def perceive(
    spec: Spec,
    clock: ClockName = "wall",
    name: Annotated[str, typer.Option("--id", help="Stays the same over restarts.")] = "perceive-0",
    data_dir: Annotated[Path | None, typer.Option(help="Its own folder.")] = None,
    device: Device = "auto",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Encode raw messages, such as images or points: each becomes a reading of a sensor.

    Example: rehearse topics create sight.yaml && rehearse perceive sight.yaml

    (a spec one of whose sensors has `perceive`, as streams/examples/sight.yaml and crowd.yaml have)
    """
    from infra.priority import go_first
    from streams.perceive_worker import run_perceive

    go_first()
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        system = spec_of(spec)
        result = run_perceive(
            system,
            *cluster_of(bootstrap, extra, "perceive"),
            stop,
            name=name,
            data_dir=data_dir or home_folder() / "workers" / system.system / name,
            clock=clock,
            provider=device,
        )
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
    from streams.spare import stand_ready
    from streams.worker import run_worker

    stand_ready()
    go_first()
    with errors(), stopping() as stop, metrics_at(metrics_port, metrics_host):
        role, system = worker_role(shadow, twin), spec_of(spec)
        name = name or ("twin-0" if twin else "worker-0")
        result = run_worker(
            system,
            *cluster_of(bootstrap, extra, "shadow" if shadow else "worker"),
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
            *cluster_of(bootstrap, extra, "sink"),
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
            *cluster_of(bootstrap, extra, "plant"),
            stop,
            ticks=ticks,
            lockstep=lockstep,
            speed=speed,
            pace_file=pace_file,
            seed=seed,
            log=log,
        )
    show(result, as_json)
