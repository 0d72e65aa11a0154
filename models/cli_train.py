"""`rehearse train`: a workflow file, options on top of it, and one of two ways to learn."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from models.cli_learn import by_acting, from_logs
from models.cli_parts import NO_TORCH, Json, Split, fail
from models.cli_simulate import plant_options

if TYPE_CHECKING:
    from models.recipe import Recipe

PANEL = "Places in a workflow file"
PLACES = {
    "env": "env.id",
    "envs": "loop.copies",
    "randomise": "env.randomise",
    "data": "data.folders",
    "split": "data.split",
    "days": "data.days",
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
    "mlflow": "run.mlflow",
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
    list[str] | None, _place("data", "Trajectories (Parquet), a folder or URL; may be repeated.")
]
Days = Annotated[
    tuple[str, str] | None,
    _place("days", "The first and the last day (UTC) to read, such as 2026-11-01 2026-11-03."),
]
HeldOut = Annotated[
    Split | None, _place("split", "Hold out the last of the time, or (episodes) of the entities.")
]
Out = Annotated[str | None, _place("out", "Folder or URL of the bundle to write.")]
Mlflow = Annotated[str | None, _place("mlflow", "Log the run to MLflow at this URI.")]
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
Of = Annotated[str | None, _place("of", "A bundle that was trained from logs, with --only.")]
Shown = Annotated[
    list[str] | None,
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
    days: Days = None,
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
    mlflow: Mlflow = None,
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

    In two processes, each of which learns from its share of every batch:

    torchrun --nproc-per-node 2 -m models.cli train nav2d --data ./log --out ./mine

    Example: rehearse train --env dm_control/cartpole-swingup --steps 10000 --seed 0
    """
    given = {place: context.params[option] for option, place in PLACES.items()}
    for several in ("data.folders", "inverse.demonstrations"):
        given[several] = given[several] or None  # not given is empty, and sets nothing
    given["env.randomise"] = plant_options(randomise, "--randomise") or None
    try:
        import torch

        from models.recipe import RecipeError
        from models.share import ShareError, joined
    except ImportError as error:
        raise fail(f"{NO_TORCH}\n{error}") from error
    try:
        recipe = _recipe(what, env).with_options(given)
    except RecipeError as error:
        raise fail(str(error)) from error
    torch.set_num_threads(recipe.run.threads)
    if missing := recipe.compute().missing():
        raise fail(missing)
    try:
        with joined(recipe.run.device) as share:
            if recipe.env is None:
                from_logs(recipe, resume, as_json, share)
            elif share.count == 1:
                by_acting(recipe, resume, as_json)
            else:
                raise ShareError("env: acting is learned in one process; leave torchrun out")
    except ShareError as error:
        raise fail(str(error)) from error


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
