"""`rehearse chaos`: faults against the running loop, and whether what is promised held."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from infra.home import home_folder
from planner.library import SHIPPED
from streams.commands.console import console
from streams.commands.options import Json, Seed, errors, interruptible, show

if TYPE_CHECKING:
    from streams.chaos.schedule import Kind


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
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Of faults, repeatable; default: all.")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Run nothing: say how all runs so far ended.")
    ] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="To list, repeatable; default: chaos/runs.jsonl in the home folder."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the list there, as a document.")
    ] = None,
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
    chaos/runs.jsonl in the home folder, each with the commit that it is of; a campaign that was cut
    off goes on where it was.

    Example: rehearse chaos --seed 7 --minutes 1

    Example: rehearse chaos --seed 1 --runs 20 --json

    With a worker and its twin: rehearse chaos --seed 7 --twin

    All outcomes: rehearse chaos --list --markdown RUNS.md
    """
    from infra import broker
    from streams.chaos.campaign import RESULTS, run_campaign

    home = home_folder().absolute() / "chaos"
    if listed or results or markdown:
        with errors():
            _list(results or [home / RESULTS], markdown, as_json)
        return
    with interruptible(), errors():
        try:
            result = run_campaign(
                home,
                bundle.absolute(),
                range(seed, seed + runs),
                60.0 * minutes,
                count=count,
                kinds=_known(kinds or ()),
                twin=twin,
                again=again,
                keep=keep,
                say=lambda text: console.print(text, highlight=False, markup=False),
            )
        finally:
            broker.stop(home)
    _show(result, as_json)
    raise typer.Exit(1 if result["violations"] else 0)


def _show(result: Mapping[str, Any], as_json: bool) -> None:
    """Says how the runs of a campaign ended, and what was violated."""
    from streams.chaos.listing import table_of

    outcomes = result["outcomes"]
    console.print(table_of(outcomes))
    for outcome in outcomes:
        for invariant, detail in outcome["examples"]:
            text = f"seed {outcome['seed']}: {invariant}: {detail}"
            console.print(text, highlight=False, markup=False)
    show(result if as_json else {k: v for k, v in result.items() if k != "outcomes"}, as_json)


def _list(results: Sequence[Path], markdown: Path | None, as_json: bool) -> None:
    """Says how all runs in `results` ended, and writes it down where that is wanted."""
    from streams.chaos.campaign import summary
    from streams.chaos.listing import document_of, read_all, table_of

    outcomes = read_all(results)
    if markdown is not None:
        markdown.write_text(document_of(outcomes))
    console.print(table_of(outcomes))
    show(summary(outcomes), as_json)


def _known(kinds: Sequence[str]) -> tuple["Kind", ...]:
    """`kinds`, if there are such faults."""
    from streams.chaos.schedule import Kind

    known: tuple[Kind, ...] = get_args(Kind)
    if other := sorted(set(kinds) - set(known)):
        raise typer.BadParameter(f"{', '.join(other)}: there are {', '.join(known)}")
    return tuple(kind for kind in known if kind in kinds)
