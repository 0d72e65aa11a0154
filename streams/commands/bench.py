"""`rehearse bench …`: the figures of this machine, with the limit beside each."""

from typing import Annotated

import typer

from streams.commands.options import Bootstrap, Device, Json, broker_of, console, errors, show

app = typer.Typer(no_args_is_help=True, help="The figures of this machine.")


@app.command()
def align(
    readings: Annotated[int, typer.Option(min=1, help="Readings to align.")] = 2_000_000,
    keys: Annotated[int, typer.Option(min=1, help="Entities they come from.")] = 200,
    repeat: Annotated[
        int, typer.Option(min=1, help="Interleaved repetitions; medians are shown.")
    ] = 3,
    codec: Annotated[
        str, typer.Option(help="Of the readings: json, avro, protobuf, arrow, raw.")
    ] = "json",
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Readings into frames in one process, beside raw consumption of the same topic.

    Example: rehearse bench align --json
    """
    from streams.bench_align import bench_align

    with errors(), console.status("aligning"):
        result = bench_align(
            broker_of(bootstrap), readings=readings, keys=keys, repeat=repeat, codec=codec
        )
    show(result, as_json)


@app.command()
def plan(
    repeat: Annotated[
        int, typer.Option(min=1, help="Interleaved repetitions; medians are shown.")
    ] = 30,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """One planner iteration of 255 candidates on the reference ensemble, on one thread.

    Example: rehearse bench plan --json
    """
    from planner.bench import bench_plan

    with errors(), console.status("planning"):
        result = bench_plan(repeats=repeat, provider=device)
    show(result, as_json)


@app.command()
def replay(
    decisions: Annotated[
        int, typer.Option(min=1, help="At least so many are made and replayed.")
    ] = (100_000),
    as_json: Json = False,
) -> None:
    """A pinned replay of planned decisions: whether it is bit-exact, and how fast it goes.

    Example: rehearse bench replay --json
    """
    from streams.bench_replay import bench_replay

    with errors(), console.status("recording, then replaying"):
        result = bench_replay(decisions=decisions)
    show(result, as_json)
    raise typer.Exit(0 if result["bit_exact"] else 1)
