"""`rehearse train`, beside it `evaluate`; mounted by the main command through its entry point."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from models.cli_evaluate import evaluate_command
from models.cli_parts import NO_TORCH, Data, Json, Split, fail, read_spec, table
from schemas.plain_json import json_line

app = typer.Typer(help="Train and judge world models.", no_args_is_help=True)

Spec = Annotated[str, typer.Argument(help="A shipped system (autoscale, nav2d) or a YAML file.")]


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
        raise fail(f"{NO_TORCH}\n{error}") from error
    torch.set_num_threads(threads)
    loaded = read_spec(spec)
    extra = (steps if actor_steps is None else actor_steps) if actor else 0
    sizes = ModelConfig(memory=memory, free=free, units=units)
    config = TrainConfig(steps=steps, actor_steps=extra, seed=seed, model=sizes)
    if device == "cuda" and not torch.cuda.is_available():
        raise fail("cuda: torch finds no usable GPU here; choose --device cpu")
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
        raise fail(str(error)) from error
    summary = _summary(manifest, out)
    if as_json:
        typer.echo(json_line(summary))
        return
    typer.echo(table(summary["held_out"]))
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


app.command("evaluate", rich_help_panel="Models")(evaluate_command)
