"""`rehearse train`: a workflow file, options on top of it, and one of two ways to learn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from models.cli_parts import NO_TORCH, Json, Split, command_line, fail, read_spec, table
from models.cli_simulate import plant_options
from schemas.plain_json import json_line

if TYPE_CHECKING:
    from models.recipe import Recipe
    from schemas.system import SystemSpec

PANEL = "Places in a workflow file"
PLACES = {
    "env": "env.id",
    "envs": "loop.copies",
    "randomise": "env.randomise",
    "data": "data.folders",
    "split": "data.split",
    "out": "run.out",
    "steps": "loop.steps",
    "actor_steps": "loop.actor_steps",
    "memory": "dynamics.memory",
    "units": "ensemble.units",
    "free": "dynamics.free",
    "form": "dynamics.form",
    "classes": "dynamics.classes",
    "encoder": "encoder.kind",
    "physics": "dynamics.physics",
    "actor": "actor_critic.enabled",
    "critic": "actor_critic.critic",
    "only": "heads.only",
    "of": "heads.of",
    "demonstrations": "inverse.demonstrations",
    "seed": "seed",
    "device": "run.device",
    "precision": "run.precision",
    "compiled": "run.compile",
    "threads": "run.threads",
}
"""The field of a workflow file that each option sets."""
What = Annotated[
    str | None,
    typer.Argument(
        metavar="[WHAT]",
        help="A workflow (YAML file, control or few) or a system (YAML file, autoscale or nav2d).",
    ),
]


def _place(option: str, text: str, **more: Any) -> Any:
    return typer.Option(help=f"{text} ({PLACES[option]})", rich_help_panel=PANEL, **more)


Env = Annotated[
    str | None, _place("env", "Act in this Gymnasium environment, or dm_control/DOMAIN-TASK.")
]
Envs = Annotated[int | None, _place("envs", "Side by side.", min=1)]
Randomise = Annotated[
    list[str] | None,
    _place(
        "randomise",
        "Range of a parameter, drawn per episode; may be repeated.",
        metavar="NAME=[LOW, HIGH]",
    ),
]
Folders = Annotated[
    list[Path] | None, _place("data", "Trajectories (Parquet); repeat for several.")
]
HeldOut = Annotated[
    Split | None, _place("split", "Hold out the last of the time, or (episodes) of the entities.")
]
Out = Annotated[Path | None, _place("out", "Folder of the bundle to write.")]
Steps = Annotated[
    int | None, _place("steps", "Updates of the model; with --env, decisions in all.", min=1)
]
ActorSteps = Annotated[
    int | None, _place("actor_steps", "Updates of the actor; as many as --steps by default.", min=0)
]
Memory = Annotated[int | None, _place("memory", "Units of the deterministic path.", min=1)]
Units = Annotated[int | None, _place("units", "Width of the dynamics' hidden layers.", min=1)]
Free = Annotated[int | None, _place("free", "Latents that are not a channel.", min=1)]
Form = Annotated[
    Literal["gaussian", "categorical"] | None,
    _place("form", "Of these latents: numbers, or classes."),
]
Classes = Annotated[int | None, _place("classes", "Of each categorical latent.", min=2)]
Encoder = Annotated[
    Literal["joint", "fused"] | None,
    _place("encoder", "One for all channels, or one per sensor, which may fall silent."),
]
Physics = Annotated[
    str | None, _place("physics", "module:function of known dynamics; the rest is learned.")
]
Actor = Annotated[bool | None, _place("actor", "Train an actor in imagination too.")]
Critic = Annotated[
    Literal["mean", "two_hot"] | None,
    _place("critic", "What is learned of returns: their mean, or their distribution."),
]
OnlyHead = Annotated[
    Literal["reward", "continuation", "cost", "value"] | None,
    _place("only", "Learn this head alone, from logs; --of names the bundle that the rest is of."),
]
Of = Annotated[Path | None, _place("of", "A bundle that was trained from logs, with --only.")]
Shown = Annotated[
    list[Path] | None,
    _place("demonstrations", "Learn --only reward from these trajectories; repeat for several."),
]
Seed = Annotated[int | None, _place("seed", "The same seed and data give the same weights.")]
Device = Annotated[Literal["cpu", "cuda"] | None, _place("device", "Where torch runs.")]
Mixed = Annotated[
    Literal["float32", "bfloat16"] | None,
    _place("precision", "Of matrix products; bfloat16 is mixed precision."),
]
Compiled = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile what is done at every tick; a minute or more first. (run.compile)",
        rich_help_panel=PANEL,
    ),
]
Threads = Annotated[int | None, _place("threads", "Of torch.", min=1)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")]


def train(
    context: typer.Context,
    what: What = None,
    env: Env = None,
    envs: Envs = None,
    randomise: Randomise = None,
    data: Folders = None,
    split: HeldOut = None,
    out: Out = None,
    steps: Steps = None,
    actor_steps: ActorSteps = None,
    memory: Memory = None,
    units: Units = None,
    free: Free = None,
    form: Form = None,
    classes: Classes = None,
    encoder: Encoder = None,
    physics: Physics = None,
    actor: Actor = None,
    critic: Critic = None,
    only: OnlyHead = None,
    of: Of = None,
    demonstrations: Shown = None,
    seed: Seed = None,
    device: Device = None,
    precision: Mixed = None,
    compiled: Compiled = None,
    threads: Threads = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a world model and an actor, from logs or by acting, and write a bundle.

    Exit status 1 where a metric misses the bound that the workflow sets; the bundle is written.

    Example: rehearse train nav2d --data ./log --out ./mine --steps 300

    (of what `rehearse backtest nav2d --policy explore --log ./log` has logged)

    Example: rehearse train my.yaml --data ./log --only reward --of ./mine --demonstrations ./shown
    --out ./taught

    (a reward, and who acts on it, of what somebody showed; my.yaml has no 'reward')

    Example: rehearse train --env dm_control/cartpole-swingup --steps 10000 --seed 0
    """
    given = {place: context.params[option] for option, place in PLACES.items()}
    for several in ("data.folders", "inverse.demonstrations"):
        given[several] = given[several] or None  # not given is empty, and sets nothing
    given["env.randomise"] = plant_options(randomise, "--randomise") or None
    try:
        import torch

        from models.recipe import RecipeError
    except ImportError as error:
        raise fail(f"{NO_TORCH}\n{error}") from error
    try:
        recipe = _recipe(what, env).with_options(given)
    except RecipeError as error:
        raise fail(str(error)) from error
    torch.set_num_threads(recipe.run.threads)
    if missing := recipe.compute().missing():
        raise fail(missing)
    if recipe.env is not None:
        _by_acting(recipe, resume, as_json)
    else:
        _from_logs(recipe, resume, as_json)


def _recipe(what: str | None, env: str | None) -> "Recipe":
    """The workflow that is meant, before options. Raises `RecipeError`."""
    from models.recipe import SHIPPED, Recipe, RecipeError, is_recipe, load_recipe

    if what is None:
        if env is None:
            raise RecipeError("nothing to train: name a workflow or a system, or give --env")
        return load_recipe("control")
    if (SHIPPED / f"{what}.yaml").is_file() or is_recipe(what):
        return load_recipe(what)
    if env is not None:
        raise RecipeError(f"{what}: not a workflow, and a system's own plant is no --env")
    return Recipe(system=what)


def _from_logs(recipe: "Recipe", resume: bool, as_json: bool) -> None:
    from models.data import DataError
    from models.export import ParityError
    from models.train import CheckpointError, TrainingStopped
    from models.workflow import REPORT, SPEC, train_bundle, work_folder

    if recipe.system is None or not recipe.data.folders or recipe.run.out is None:
        raise fail("from logs: a system, --data and --out are needed (or give --env)")
    spec, text = _deployed(recipe, recipe.system)
    config, out, command = recipe.train_config(), recipe.run.out, command_line()
    try:
        with _bar() as bar:
            task = bar.add_task(recipe.heads.only or "training", total=config.total, loss="")

            def report(progress: Any) -> None:
                last = {k: v[-1][1] for k, v in progress.curves.items() if v}
                told = ("predict", "imagine", "actor", recipe.heads.only)
                shown = [f"{k} {last[k]:.3g}" for k in told if k in last]
                bar.update(task, completed=progress.step, loss="  ".join(shown))

            manifest = train_bundle(
                spec,
                recipe.data.folders,
                out,
                config,
                resume=resume,
                with_actor=config.actor_steps > 0,
                split=recipe.data.split,
                compute=recipe.compute(),
                only=recipe.only(),
                command=command,
                accept=recipe.acceptance(),
                workflow=recipe.model_dump(mode="json", exclude={"run"}),
                report=report,
                say=lambda stage: bar.update(task, loss=stage),
            )
        if text is not None:
            (out / SPEC).write_text(text, encoding="utf-8")
    except TrainingStopped as stopped:
        raise _stopped(stopped, command, resume) from stopped
    except (DataError, CheckpointError, ParityError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    _tell(_summary(manifest, out), work_folder(out) / REPORT, as_json)
    _judged(manifest["metrics"]["asked"])


def _deployed(recipe: "Recipe", system: str) -> "tuple[SystemSpec, str | None]":
    """The system as the workflow deploys it; its text where that differs from what was read."""
    from planner.fallback import check
    from schemas.system import parse_spec, spec_path
    from schemas.yaml_lines import read_text

    spec, path = read_spec(system), spec_path(system)
    if not recipe.deployment.in_spec:
        return spec, None
    try:
        text = recipe.deployment.spec_text(read_text(path))
        spec = parse_spec(text, f"{path}, with the workflow's deployment")
        check(spec)
    except ValueError as error:
        raise fail(str(error)) from error
    return spec, text


def _judged(metrics: dict[str, Any]) -> None:
    """Ends the command with status 1 where a metric misses its bound."""
    from models.metrics import missed

    if found := missed(metrics):
        typer.echo(f"the bundle is written, but misses: {found}", err=True)
        raise typer.Exit(1)


def _by_acting(recipe: "Recipe", resume: bool, as_json: bool) -> None:
    from infra.plants.base import PlantError
    from models.export import ParityError
    from models.train import CheckpointError, TrainingStopped
    from models.undertaking import LEARNING, online_of, train_online
    from models.workflow import work_folder

    command = command_line()
    try:
        online = online_of(recipe)
        out = recipe.run.out or Path(f"{online.spec.system}-{recipe.seed}")
        with _bar() as bar:
            task = bar.add_task("acting", total=recipe.loop.steps, loss="")

            def report(course: Any, text: str) -> None:
                returned = [f"return {x:.4g}" for _, x in course.rounds_returned[-1:]]
                bar.update(task, completed=course.steps, loss="  ".join([*returned, text]))

            result = train_online(
                online, recipe, out, resume=resume, command=command, report=report
            )
    except TrainingStopped as stopped:
        raise _stopped(stopped, command, resume) from stopped
    except (PlantError, CheckpointError, ParityError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json_line(result))
    else:
        _tell_acting(result, out, work_folder(out) / LEARNING)
    _judged(result["metrics"])


def _tell_acting(result: dict[str, Any], out: Path, page: Path) -> None:
    for name, one in result["returns"].items():
        line = f"{name:>8}  mean {one['mean']:.4g}  from {one['min']:.4g} to {one['max']:.4g}"
        typer.echo(f"{line}  ({one['episodes']} episodes)")
    _tell_asked(result)
    typer.echo(f"{out}: digest {result['digest'][:12]}")
    typer.echo(f"learning curve: {page}")


def _tell_asked(result: dict[str, Any]) -> None:
    """Metrics and changed plants, where the workflow asks for them."""
    from models.metrics import lines

    if result["metrics"]:
        typer.echo(lines(result["metrics"]))
    changed = result.get("out_of_distribution", {})
    if "reason" in changed:
        typer.echo(f"changed plants: - ({changed['reason']})")
    for name, one in changed.get("shifts", {}).items():
        told = f"disagreement {one['disagreement']}, innovation {one['innovation']}"
        typer.echo(f"{name}: error × {one['error_ratio']}; AUROC of {told}")


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
        "metrics": metrics["asked"],
        **{k: metrics[k] for k in ("passed", "out_of_distribution") if k in metrics},
    }


def _tell(summary: dict[str, Any], curves: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(summary))
        return
    typer.echo(table(summary["held_out"]))
    _tell_asked(summary)
    size, digest = summary["bytes"], summary["digest"][:12]
    typer.echo(f"{summary['bundle']}: {size} bytes, digest {digest}")
    typer.echo(f"curves: {curves}")


def _stopped(stopped: Exception, command: str, resume: bool) -> typer.Exit:
    again = command if resume else f"{command} --resume"
    typer.echo(f"stopped: {stopped}. Go on with: {again}", err=True)
    return typer.Exit(130)


def _bar() -> Bar:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    return Bar(*columns, console=Console(stderr=True), refresh_per_second=2)
