"""What the commands of models share: options, how they fail, and a table of errors."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:  # imported by what lists all commands, so it loads little itself
    from schemas.system import SystemSpec

NO_TORCH = "torch is not installed: pip install 'rehearse[train]' (running a bundle needs no torch)"
Data = Annotated[
    list[str],
    typer.Option("--data", help="Folder or URL of trajectories (Parquet); repeat for several."),
]
Entity = Annotated[str | None, typer.Option(help="Of the log, alone; else all of them.")]
Minutes = Annotated[
    float | None, typer.Option(min=0.01, help="The last so many of each run of the log; else all.")
]
Split = Literal["time", "entity"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def command_line() -> str:
    """The command line as typed, with the program's plain name."""
    # Whether it was interrupted on the way makes no difference to what comes out.
    words = [word for word in sys.argv[1:] if word != "--resume"]
    start = [Path(sys.argv[0]).stem]
    if (count := os.environ.get("LOCAL_WORLD_SIZE", "1")) != "1":  # `torchrun` says so
        start = ["torchrun", "--nproc-per-node", count, "-m", "models.cli"]
    return shlex.join([*start, *words])


def fail(message: str) -> typer.Exit:
    """Says what is wrong; raise what it returns."""
    typer.echo(message, err=True)
    return typer.Exit(2)


def read_spec(name: str) -> "SystemSpec":
    """A shipped system or a YAML file; ends the command where it cannot be read."""
    from schemas.system import SpecError, load_spec

    try:
        return load_spec(name)
    except SpecError as error:
        raise fail(str(error)) from error


def table(steps: dict[str, Any]) -> str:
    """The held-out errors as text: a row per column, a column per horizon."""
    horizons = list(steps)
    head = "error as a share of persistence's (80 % interval holds)"
    lines = [f"{head}\n{'':>16}" + "".join(f"{'k=' + k:>16}" for k in horizons)]
    for column in steps[horizons[0]]:
        cells = ""
        for k in horizons:
            entry = steps[k][column]
            ratio, held = entry["of_persistence"], entry["coverage80"]
            text = "-" if ratio is None else f"{ratio:.2f} ({held:.0%})"
            cells += f"{text:>16}"
        lines.append(f"{column:>16}{cells}")
    return "\n".join(lines)
