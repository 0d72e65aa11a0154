"""`rehearse train` and `rehearse evaluate`; mounted by the main command through its entry point."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from schemas.plain_json import json_line

if TYPE_CHECKING:  # imported by what lists all commands, so it loads little itself
    from schemas.system import SystemSpec

app = typer.Typer(help="Train and judge world models.", no_args_is_help=True)

_TORCH = "torch is not installed: pip install 'rehearse[train]' (running a bundle needs no torch)"
Spec = Annotated[str, typer.Argument(help="A shipped system (autoscale, nav2d) or a YAML file.")]
Data = Annotated[
    list[Path], typer.Option("--data", help="Folder of trajectories (Parquet); repeat for several.")
]
Split = Literal["time", "entity"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(2)


def _spec(name: str) -> "SystemSpec":
    from schemas.system import SpecError, load_spec

    try:
        return load_spec(name)
    except SpecError as error:
        raise _fail(str(error)) from error


def _summary(manifest: dict[str, Any], out: Path) -> dict[str, Any]:
    metrics = manifest["metrics"]
    return {
        "bundle": str(out),
        "digest": manifest["digest"],
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "actor_trusted": manifest["actor_trusted"],
        "train_seconds": metrics["train_seconds"],
        "parity": metrics["parity"],
        "innovation_band": manifest["calibration"]["innovation_band"],
        "held_out": metrics["held_out"]["steps"],
    }


def _table(steps: dict[str, Any]) -> str:
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


@app.command(rich_help_panel="Models")
def train(
    spec: Spec,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Updates of the world model.")] = 3000,
    actor_steps: Annotated[
        int | None, typer.Option(min=0, help="Updates of the actor; as many as --steps by default.")
    ] = None,
    memory: Annotated[int, typer.Option(min=1, help="Units of the deterministic path.")] = 32,
    units: Annotated[int, typer.Option(min=1, help="Width of the dynamics' hidden layers.")] = 64,
    free: Annotated[int, typer.Option(min=1, help="Latents that are not a channel.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed and data give the same weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    actor: Annotated[bool, typer.Option(help="Train an actor in imagination too.")] = True,
    split: Annotated[
        Split, typer.Option(help="Hold out the last of the time, or (episodes) of the entities.")
    ] = "time",
    as_json: Json = False,
) -> None:
    """Train a world model on logged trajectories and write a bundle.

    Example: rehearse train nav2d --data ./log --out ./mine --steps 300

    (of what `rehearse backtest nav2d --policy explore --log ./log` has logged)
    """
    try:
        import torch

        from models.belief import ModelConfig
        from models.data import DataError
        from models.export import ParityError
        from models.train import CheckpointError, TrainConfig, TrainingStopped
        from models.workflow import train_bundle, work_folder
    except ImportError as error:
        raise _fail(f"{_TORCH}\n{error}") from error
    torch.set_num_threads(threads)
    loaded = _spec(spec)
    extra = (steps if actor_steps is None else actor_steps) if actor else 0
    sizes = ModelConfig(memory=memory, free=free, units=units)
    config = TrainConfig(steps=steps, actor_steps=extra, seed=seed, model=sizes)
    if device == "cuda" and not torch.cuda.is_available():
        raise _fail("cuda: torch finds no usable GPU here; choose --device cpu")
    command = _command()
    try:
        with _bar() as bar:
            task = bar.add_task("training", total=config.total, loss="")

            def report(progress: Any) -> None:
                last = {k: v[-1][1] for k, v in progress.curves.items() if v}
                shown = [f"{k} {last[k]:.3g}" for k in ("predict", "imagine", "actor") if k in last]
                bar.update(task, completed=progress.step, loss="  ".join(shown))

            manifest = train_bundle(
                loaded,
                data,
                out,
                config,
                resume=resume,
                with_actor=actor and extra > 0,
                split=split,
                device=device,
                command=command,
                report=report,
            )
    except TrainingStopped as stopped:
        again = command if resume else f"{command} --resume"
        typer.echo(f"stopped: {stopped}. Go on with: {again}", err=True)
        raise typer.Exit(130) from stopped
    except (DataError, CheckpointError, ParityError, OSError, ValueError) as error:
        raise _fail(str(error)) from error
    summary = _summary(manifest, out)
    if as_json:
        typer.echo(json_line(summary))
        return
    typer.echo(_table(summary["held_out"]))
    typer.echo(f"{out}: {summary['bytes']} bytes, digest {summary['digest'][:12]}")
    typer.echo(f"curves: {work_folder(out) / 'training.html'}")


def _command() -> str:
    """The command line as typed, with the program's plain name."""
    # Whether it was interrupted on the way makes no difference to what comes out.
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join([Path(sys.argv[0]).stem, *words])


def _bar() -> Bar:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    return Bar(*columns, console=Console(stderr=True), refresh_per_second=2)


@app.command("evaluate", rich_help_panel="Models")
def evaluate_command(
    bundle: Annotated[str, typer.Argument(help="A folder, NAME, NAME@champion, NAME@3, a digest.")],
    data: Data,
    spec: Annotated[
        str | None, typer.Option(help="System or YAML file; the bundle's system by default.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which part is held out, as in training.")] = "time",
    seed: Annotated[int, typer.Option(help="Draws windows and futures.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge a bundle on trajectories: errors at 1, 5 and 10 ticks beside persistence, and spread.

    Exit status 1 where some channel that moves is predicted worse than by persistence at 5 ticks.

    Example: rehearse evaluate ./mine --data ./log

    (of what `rehearse train` has made)
    """
    try:
        from models.data import DataError, load_dataset
        from models.evaluate import evaluate
        from planner.naming import find_bundle
        from planner.session import load_bundle
    except ImportError as error:
        raise _fail(f"{_TORCH}\n{error}") from error
    try:
        loaded = load_bundle(find_bundle(bundle)[0], provider="cpu")
        described = _spec(spec or loaded.manifest.system)
        loaded.check(described)
        held_out = load_dataset(described, data, split=split).validation
        result = evaluate(loaded, described, held_out, seed=seed)
    except (DataError, ValueError) as error:
        raise _fail(str(error)) from error
    content = result.as_dict()
    typer.echo(json_line(content) if as_json else _table(content["steps"]))
    middle = content["steps"][str(result.horizons[len(result.horizons) // 2])]
    if any((entry["of_persistence"] or 0.0) > 1.05 for entry in middle.values()):
        raise typer.Exit(1)
