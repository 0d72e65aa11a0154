"""`rehearse bench …`: the figures of this machine, with the limit beside each."""

from typing import Annotated, Literal

import typer

from schemas.spec_parts import PlannerName
from streams.commands.console import console
from streams.commands.options import (
    Bootstrap,
    Device,
    Extra,
    Json,
    cluster_of,
    errors,
    interruptible,
    show,
)

PatternName = Literal["burst", "spread", "both"]

app = typer.Typer(no_args_is_help=True, help="The figures of this machine.")


@app.command()
def machine(
    seconds: Annotated[float, typer.Option(min=1, help="To look for.")] = 20.0,
    as_json: Json = False,
) -> None:
    """How often and how long this machine stands still by itself: no latency can be below that.

    Example: rehearse bench machine --json
    """
    from infra.stalls import measure_stalls

    with errors(), console.status("working at half load"):
        result = measure_stalls(seconds)
    show(result, as_json)


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
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Readings into frames in one process, beside raw consumption of the same topic.

    Example: rehearse bench align --json
    """
    from streams.bench_align import bench_align

    with errors(), console.status("aligning"):
        place, settings = cluster_of(bootstrap, extra)
        result = bench_align(
            place, readings=readings, keys=keys, repeat=repeat, extra=settings, codec=codec
        )
    show(result, as_json)


@app.command()
def perceive(
    messages: Annotated[int, typer.Option(min=100, help="Of each sensor, as a backlog.")] = 4_000,
    hertz: Annotated[float, typer.Option(min=1, help="At which latency is measured.")] = 200.0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Images and clouds of points encoded in one process, beside reading and the encoder alone.

    Example: rehearse bench perceive --json
    """
    from streams.bench_perceive import bench_perceive

    with errors(), console.status("encoding"):
        result = bench_perceive(*cluster_of(bootstrap, extra), messages=messages, hertz=hertz)
    show(result, as_json)


@app.command()
def plan(
    repeat: Annotated[
        int, typer.Option(min=1, help="Interleaved repetitions; medians are shown.")
    ] = 30,
    device: Device = "cpu",
    planner: Annotated[PlannerName, typer.Option(help="As a tier's `planner` in a spec.")] = "icem",
    as_json: Json = False,
) -> None:
    """One planner iteration of 255 candidates on the reference ensemble, on one thread.

    Example: rehearse bench plan --planner mppi --json
    """
    from planner.bench import bench_plan

    with errors(), console.status("planning"):
        result = bench_plan(repeats=repeat, provider=device, planner=planner)
    show(result, as_json)


@app.command()
def gate(
    proposals: Annotated[int, typer.Option(min=1, help="To be gated.")] = 1_000_000,
    as_json: Json = False,
) -> None:
    """Arbitrary proposals through the gate, on one thread; what leaves it is checked.

    Exit status 1: one left it outside the envelope.

    Example: rehearse bench gate --json
    """
    from planner.bench_gate import bench_gate

    with errors(), console.status("gating"):
        result = bench_gate(proposals)
    show(result, as_json)
    if result["outside"]:
        raise typer.Exit(1)


@app.command()
def latency(
    cases: Annotated[
        list[str] | None,
        typer.Option(
            "--case", help="Entities×sensors×Hz: 200x5x10, 200x3x10, 2000x1x2, 10000x1x1."
        ),
    ] = None,
    pattern: Annotated[
        PatternName, typer.Option(help="How readings are sent; burst is what is quoted.")
    ] = "burst",
    runs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Of loop and echo that count, in turn; medians are shown. Up to eight times as "
            "many are made, as a run whose generator was late does not count.",
        ),
    ] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Counted of each run.")] = 2.0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """From the scheduled send of readings to their actions, beside an echo through the same broker.

    Exit status 1: too few runs count. Whoever may (root) sends in real time.

    Example: rehearse bench latency --case 200x5x10 --json
    """
    from infra.priority import go_first
    from streams.bench_latency import bench_latency

    with errors(), console.status("timing the loop and the echo in turn") as status:
        place, settings = cluster_of(bootstrap, extra)
        go_first()
        result = bench_latency(
            place,
            settings,
            cases=cases or ["200x5x10", "2000x1x2", "10000x1x1"],
            patterns=("burst", "spread") if pattern == "both" else (pattern,),
            runs=runs,
            seconds=seconds,
            say=status.update,
        )
    show(result, as_json)
    least = min(min(found["counted"], found["echo_counted"]) for found in result.values())
    raise typer.Exit(0 if least >= runs else 1)


@app.command()
def decide(
    decisions: Annotated[int, typer.Option(min=1, help="Of each round.")] = 160_000,
    entities: Annotated[int, typer.Option(min=1, help="Of each of the four cohorts.")] = 200,
    workers: Annotated[int, typer.Option(help="That share four cohorts: 1, 2 or 4.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds; medians are shown.")] = 3,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Decisions of a worker's process, actor alone, beside `step` in a loop and librdkafka.

    Example: rehearse bench decide --workers 2 --json
    """
    from streams.bench_decide import bench_decide

    with errors(), console.status("deciding"):
        if workers not in (1, 2, 4):
            raise ValueError(f"--workers {workers}: four cohorts are shared evenly by 1, 2 or 4")
        place, settings = cluster_of(bootstrap, extra)
        result = bench_decide(
            place,
            settings,
            decisions=decisions,
            entities=entities,
            workers=workers,
            runs=repeat,
        )
    show(result, as_json)


@app.command()
def failover(
    repeat: Annotated[
        int, typer.Option(min=1, help="Rounds; medians are shown, and each figure.")
    ] = 2,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """How long robots wait when a worker is killed or joins: with a twin, restarted, taken over.

    Exit status 1: a limit was missed, or a kill beside a twin cost a tick. Takes about a minute and
    a half; it has processes of its own killed, no others.

    Example: rehearse bench failover --json
    """
    from streams.bench_failover import bench_failover, held

    with interruptible(), errors():
        place, settings = cluster_of(bootstrap, None)
        if settings:
            raise ValueError(
                "it starts and kills workers without passwords: use a plain broker "
                "(rehearse broker stop, then rehearse broker start --plain)"
            )
        result = bench_failover(place, repeat, lambda text: console.print(f"[dim]{text}[/]"))
    show(result, as_json)
    raise typer.Exit(0 if held(result) else 1)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(help="Of stream.")] = 60.0,
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 10.0,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """The loop for an hour: whether memory stays flat and committed offsets keep advancing.

    Exit status 1: a process grew, or frames came and nothing was committed.

    Example: rehearse bench soak --minutes 60 --json
    """
    from streams.bench_soak import bench_soak

    with interruptible(), errors(), console.status("starting the loop") as status:
        place, settings = cluster_of(bootstrap, None)
        if settings:
            raise ValueError(
                "its processes are started without passwords: use a plain broker "
                "(rehearse broker stop, then rehearse broker start --plain)"
            )
        result = bench_soak(place, minutes, every, status.update)
    show(result, as_json)
    raise typer.Exit(0 if result["held"] else 1)


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


@app.command()
def capacity(
    entities: Annotated[int, typer.Option(min=1, help="Of the whole fleet.")] = 1_000_000,
    hz: Annotated[float, typer.Option(min=0.001, help="Ticks a second.")] = 1.0,
    sensors: Annotated[int, typer.Option(min=1, help="Readings of an entity in a tick.")] = 1,
    planned: Annotated[
        float, typer.Option(min=0, max=1, help="Share of decisions that are planned anew.")
    ] = 0.0,
    rollouts: Annotated[
        int, typer.Option(min=0, help="Candidates × horizon × iterations of such a plan.")
    ] = 255 * 10,
    cohort: Annotated[int, typer.Option(min=1, help="Entities of a cohort, at most.")] = 400,
    price: Annotated[float, typer.Option(min=0, help="Of a core for an hour.")] = 0.0,
    as_json: Json = False,
) -> None:
    """What a fleet takes, by the costs measured on one machine: nothing is run.

    Example: rehearse bench capacity --entities 1000000 --hz 10 --price 0.04
    """
    from streams.capacity import Fleet, report

    with errors():
        fleet = Fleet(entities, hz, sensors, planned, rollouts, cohort)
        show(report(fleet, price), as_json)
