"""`rehearse chaos`: faults against the running loop, and whether what is promised held."""

from pathlib import Path
from typing import Annotated

import typer

from infra.home import home_folder
from planner.library import SHIPPED
from streams.commands.options import Json, Seed, console, errors, interruptible, show


def chaos(
    seed: Seed = 0,
    minutes: Annotated[float, typer.Option(help="Of stream in each run.")] = 1.0,
    runs: Annotated[int, typer.Option(help="Runs, with seeds from --seed on.", min=1)] = 1,
    count: Annotated[
        int | None, typer.Option("--faults", help="In each run; default: 3 to 6 a minute.", min=1)
    ] = None,
    twin: Annotated[
        bool, typer.Option("--twin", help="With a second worker, which is struck as well.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run also what was run before, under the same home.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the topics of every run.")] = False,
    bundle: Annotated[
        Path, typer.Option(help="Of nav2d, by which the worker decides; default: shipped.")
    ] = SHIPPED / "nav2d",
    as_json: Json = False,
) -> None:
    """Strike the running loop with seeded faults, and check what it promises (status 1: broken).

    Each run is a small nav2d in real time on a broker of its own. Processes are killed and stopped,
    partitions change hands, the broker goes away, messages are garbage, stores and disks fail. Then
    a checker that reads only topics and files says whether anything was lost, doubled, stale, out
    of bounds, or believed otherwise than in an undisturbed replay. Outcomes are appended to
    chaos/runs.jsonl in the home folder; a campaign that was cut off goes on where it was.

    Example: rehearse chaos --seed 7 --minutes 1

    Example: rehearse chaos --seed 1 --runs 20 --json

    With a worker and its twin: rehearse chaos --seed 7 --twin
    """
    from infra import broker
    from streams.chaos.campaign import run_campaign, table_of

    home = home_folder().absolute() / "chaos"
    with interruptible(), errors():
        try:
            result = run_campaign(
                home,
                bundle.absolute(),
                range(seed, seed + runs),
                60.0 * minutes,
                count=count,
                twin=twin,
                again=again,
                keep=keep,
                say=lambda text: console.print(text, highlight=False, markup=False),
            )
        finally:
            broker.stop(home)
    outcomes = result["outcomes"]
    console.print(table_of(outcomes))
    for outcome in outcomes:
        for invariant, detail in outcome["examples"]:
            text = f"seed {outcome['seed']}: {invariant}: {detail}"
            console.print(text, highlight=False, markup=False)
    shown = result if as_json else {k: v for k, v in result.items() if k != "outcomes"}
    show(shown, as_json)
    raise typer.Exit(1 if result["violations"] else 0)
