"""`rehearse pretrain`: an encoder learns what streams look like before anybody labels them."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from models.cli_parts import NO_TORCH, Json, fail
from schemas.plain_json import json_line

PLACES = {
    "data": "data.files",
    "series": "data.series",
    "window": "data.window",
    "labels": "labels.files",
    "label": "labels.columns",
    "of": "encoder.of",
    "masked": "masking.share",
    "steps": "loop.steps",
    "finetune_steps": "loop.finetune_steps",
    "seed": "seed",
    "out": "run.out",
    "threads": "run.threads",
}
"""The field of a pretraining file that each option sets."""
PANEL = "Places in a pretraining file"


def _place(option: str, text: str, *names: str, **more: Any) -> Any:
    help_text = f"{text} ({PLACES[option]})"
    return typer.Option(*names, help=help_text, rich_help_panel=PANEL, **more)


def pretrain(
    context: typer.Context,
    what: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A pretraining (YAML file).")
    ] = None,
    data: Annotated[
        list[Path] | None, _place("data", "Parquet file or folder without labels; repeatable.")
    ] = None,
    series: Annotated[
        list[str] | None, _place("series", "Column of numbers, or of lists; repeatable.")
    ] = None,
    window: Annotated[int | None, _place("window", "Numbers encoded together.", min=2)] = None,
    labels: Annotated[
        list[Path] | None, _place("labels", "Parquet file or folder with labels; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None, _place("label", "Column that the encoder shall tell; repeatable.")
    ] = None,
    of: Annotated[
        Path | None, _place("of", "pretrained.pt of an earlier run to begin with.")
    ] = None,
    masked: Annotated[float | None, _place("masked", "Share of the pieces that is hidden.")] = None,
    steps: Annotated[int | None, _place("steps", "Updates without labels.", min=0)] = None,
    finetune_steps: Annotated[
        int | None, _place("finetune_steps", "Updates with labels.", min=1)
    ] = None,
    seed: Annotated[
        int | None, _place("seed", "The same seed and data give the same weights.")
    ] = None,
    out: Annotated[Path | None, _place("out", "Folder to write to.")] = None,
    threads: Annotated[int | None, _place("threads", "Of torch.", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Pretrain an encoder of time series on streams without labels, then teach it a few labels.

    Pieces of each window are hidden, and told from the others; then labels are learned, where there
    are any, and an ONNX file is written that a sensor's `perceive` takes (kind: tensor).

    Example: rehearse pretrain --data ./log --series 'velocity[0]' --window 64 --out ./encoder

    (of what `rehearse backtest nav2d --policy explore --log ./log` has logged)
    """
    try:
        import torch

        from models.checkpoint import CheckpointError
        from models.encoders.pretrain import CHECKPOINT, prepared, released
        from models.encoders.pretrain_recipe import PretrainError, Pretraining, load_pretraining
        from models.encoders.windows import WindowError
        from models.export import ParityError
    except ImportError as error:
        raise fail(f"{NO_TORCH}\n{error}") from error
    given = {place: context.params[option] for option, place in PLACES.items()}
    from infra.signals import stopping

    try:
        recipe = (Pretraining() if what is None else load_pretraining(what)).with_options(given)
        if recipe.run.out is None:
            raise PretrainError("run.out: name a folder to write to (--out)")
        torch.set_num_threads(recipe.run.threads)
        learner, held_out = prepared(recipe)
        checkpoint = recipe.run.out / CHECKPOINT
        if resume and checkpoint.exists():
            learner.load(checkpoint)
        with stopping() as stop:
            done = learner.run(checkpoint, _Told(learner.total), stop)
        if not done:
            raise _stopped(checkpoint, learner.step, learner.total, resume)
        result = released(learner, held_out, recipe.run.out)
    except (PretrainError, WindowError, CheckpointError, ParityError, OSError) as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json_line(result))
        return
    for name, value in result.items():
        typer.echo(f"{name}: {value}")


class _Told:
    """Says every now and then how far it is."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __call__(self, step: int, loss: float) -> None:
        if step % max(1, self.total // 20) == 0:
            typer.echo(f"update {step:,} of {self.total:,}: loss {loss:.4f}", err=True)


def _stopped(checkpoint: Path, step: int, total: int, resume: bool) -> typer.Exit:
    words = [word for word in sys.argv[1:] if word != "--resume"]
    command = shlex.join([Path(sys.argv[0]).stem, *words, "--resume"])
    kept = f"{step:,} of {total:,} updates are kept in {checkpoint}"
    typer.echo(f"stopped: {kept}. Go on with: {command}", err=True)
    return typer.Exit(130)
