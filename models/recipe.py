"""A training workflow: one validated file that says all that decides what is learned.

Every option of `rehearse train` has its place here; what the command line says wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from infra.plants.gym_envs import CONTROL
from infra.storage import placed
from models.acceptance import Acceptance
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.compute import Compute, DeviceName, Precision
from models.deployment import Deployment
from models.encoders.vector import EncoderName
from models.evaluation.shifts import Kind
from models.forms import FormName
from models.heads import NumberName
from models.metrics import USUAL, as_mapping, checked_name
from models.one_head import HeadName, InverseConfig, Only
from models.online import LoopConfig
from models.replay import Mix
from models.train import TrainConfig
from schemas.part import Part
from schemas.spec_parts import Ranges
from schemas.yaml_lines import load_yaml, problem, read_text

SHIPPED = Path(__file__).parent / "workflows"
KEY = "workflow"
Bounds = Annotated[
    dict[Annotated[str, AfterValidator(checked_name)], FiniteFloat | None],
    BeforeValidator(as_mapping),
]
"""Names of metrics, with bounds where a bundle has to keep to them; a list of names will do."""


def _placed(value: object) -> object:
    return placed(value) if isinstance(value, str) else value


Where = Annotated[Path | str, BeforeValidator(_placed)]
"""A folder, or the text of a URL."""


class RecipeError(ValueError):
    """A workflow that cannot be used; the message names file, line, field and remedy."""


class Data(Part):
    """Logged trajectories to learn from: folders or URLs, and which part of them is held out.

    Of `days`, the first and the last (UTC), no others are read.
    """

    folders: tuple[Where, ...] = ()
    split: Literal["time", "entity"] = "time"
    days: tuple[date, date] | None = None

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.days is not None and self.days[0] > self.days[1]:
            raise ValueError(f"days: {self.days[0]} is after {self.days[1]}; write the first first")
        return self


class Environment(Part):
    """A Gymnasium environment to act in, by id; DeepMind Control's are `dm_control/DOMAIN-TASK`.

    `randomise`: ranges by parameter, from which each copy's is drawn anew in each episode.
    """

    id: str
    options: dict[str, Any] = Field(default_factory=dict)
    randomise: Ranges = Field(default={}, exclude_if=lambda ranges: not ranges)

    @model_validator(mode="after")
    def _usual(self) -> Self:
        """DeepMind Control's tasks are acted in at action repeat 2 where nothing else is said."""
        if self.id.startswith(CONTROL) and "action_repeat" not in self.options:
            self.options["action_repeat"] = 2
        return self


class Buffer(Part):
    """What is remembered of acting, and how windows of it are drawn; see `models.replay.Mix`."""

    capacity: int = Field(default=200_000, ge=100)
    recent: float = Field(default=0.25, ge=0, le=1)
    surprising: float = Field(default=0.25, ge=0, le=1)
    failed: float = Field(default=0.0, ge=0, le=1)
    newest: int = Field(default=2000, ge=1)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = self.recent + self.surprising + self.failed
        if total > 1:
            raise ValueError(f"recent, surprising and failed are {total:g} of all; 1 is the most")
        return self


class Sequence(Part):
    """Windows of an update of the world model: how many, and of how many ticks."""

    batch: int = Field(default=32, ge=1)
    length: int = Field(default=32, ge=2)


class Encoder(Part):
    """How the channels become evidence about what no channel shows.

    One that `corrects` is told how far off the prediction was, which a quantity that no sensor
    shows, such as a velocity, is found by.
    """

    kind: EncoderName = "joint"
    corrects: bool = False


class DynamicsPart(Part):
    """Sizes and form of the latent state; `physics` is `module:function` of what is known.

    `periodic`: sines and cosines of raw values are shown, too: for angles that may go round.
    """

    memory: int = Field(default=32, ge=1)
    free: int = Field(default=4, ge=1)
    form: FormName = "gaussian"
    classes: int = Field(default=8, ge=2)
    periodic: bool = False
    physics: str = ""


class Heads(Part):
    """What is read off a state: width of their layers (None: the ensemble's), and which there are.

    `reward`: what is learned of one that the spec has no expression for, its `mean`, or `two_hot`
    its distribution: see `models.heads.TwoHot`.
    `cost`: also how likely a constraint of the spec is broken, learned from what the logs show.
    `only` one head is learned, all else being `of` a bundle that was trained from logs: for a
    reward or constraints that have changed. Sizes, and what the actor was trained with but for its
    learning rate, are that bundle's then.
    """

    units: int | None = Field(default=None, ge=1)
    reward: NumberName = "mean"
    cost: bool = False
    only: HeadName | None = None
    of: Where | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.only is None) != (self.of is None):
            raise ValueError("only and of: name the head, and the bundle that all else is taken of")
        return self


class Inverse(Part):
    """A reward learned from trajectories of who knows what is wanted; see `InverseConfig`.

    `loop.steps` updates of reward and behaviour in turn, then `loop.actor_steps` of the behaviour.
    """

    demonstrations: tuple[Where, ...] = ()
    demonstrated: float = Field(default=0.5, gt=0, le=1)
    remembered: int = Field(default=20_000, ge=1)
    answers: int = Field(default=2, ge=1)


class Ensemble(Part):
    """The members that predict, and whose disagreement is the uncertainty."""

    members: int = Field(default=5, ge=2, le=32)
    units: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=1)


class ActorCritic(Part):
    """Learning to act in imagination; see `models.actor.ActorConfig`."""

    enabled: bool = True
    horizon: int = Field(default=15, ge=1)
    discount: float = Field(default=0.98, gt=0, lt=1)
    trace: float = Field(default=0.95, ge=0, le=1)
    explore: float = Field(default=0.15, ge=0)
    starts: int = Field(default=200, ge=1)
    go_on: float = Field(default=0.75, ge=0, le=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    units: int = Field(default=64, ge=1)
    follow: float = Field(default=0.02, gt=0, le=1)
    imitation: float = Field(default=0.0, ge=0)
    critic: NumberName = "mean"


class Learning(Part):
    """Updates of the world model: what is imagined and scored, and how fast it changes."""

    horizon: int = Field(default=12, ge=1)
    starts: int = Field(default=120, ge=1)
    samples: int = Field(default=3, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    clip: float = Field(default=10.0, gt=0)
    noise_rate: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=250, ge=1)


class Loop(Part):
    """Counts. From logs: `steps` and `actor_steps` updates. In an environment: see `LoopConfig`.

    `copies` of an environment are acted in side by side, for `ticks` from a reset at a time (None:
    for the environment's whole episodes), and whole episodes of `judged` others, from fixed resets,
    tell how well. From logs, `judged` and `ticks` are of metrics that need the system's plant.
    """

    copies: int = Field(default=2, ge=1, le=1000)
    judged: int = Field(default=10, ge=1, le=1000)

    steps: int = Field(default=3000, ge=1)
    actor_steps: int | None = Field(default=None, ge=0)
    ticks: int | None = Field(default=None, ge=2)
    random: int = Field(default=2, ge=1)
    first_updates: int = Field(default=600, ge=1)
    updates: float = Field(default=0.25, gt=0)
    last_updates: int = Field(default=0, ge=0)
    noise: float = Field(default=0.3, ge=0)
    curiosity: float = Field(default=1.0, ge=0)
    curious_until: float = Field(default=0.6, gt=0, le=1)
    judge_every: int = Field(default=0, ge=0)


class Run(Part):
    """Where and on what a run is made; none of it changes what comes out but for rounding.

    `out` may be a URL, as may be the bundle that one head is learned of. `mlflow` is the URI of
    an MLflow tracking server or store, which the run is logged to.
    """

    out: Where | None = None
    mlflow: str | None = None
    device: DeviceName = "cpu"
    precision: Precision = "float32"
    compile: bool = False
    threads: int = Field(default=1, ge=1)


class Recipe(Part):
    """A workflow: `system` with `data`, or `env`; all else has defaults.

    `metrics` are told of the bundle, on held-out data or in the plant; one with a bound has to be
    at most that, a return at least that. `shifts` are the kinds of change of the plant that the
    bundle is tried under: does its doubt tell them from the usual plant?
    """

    workflow: str = "workflow"
    system: str | None = None
    env: Environment | None = None
    seed: int = 0
    data: Data = Data()
    buffer: Buffer = Buffer()
    sequence: Sequence = Sequence()
    encoder: Encoder = Encoder()
    dynamics: DynamicsPart = DynamicsPart()
    heads: Heads = Heads()
    inverse: Inverse = Inverse()
    ensemble: Ensemble = Ensemble()
    actor_critic: ActorCritic = ActorCritic()
    learning: Learning = Learning()
    loop: Loop = Loop()
    metrics: Bounds = Field(default_factory=lambda: dict.fromkeys(USUAL))
    shifts: tuple[Kind, ...] = ()
    deployment: Deployment = Deployment()
    run: Run = Run()

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.system is not None and self.env is not None:
            raise ValueError("system (with data) or env: one of the two, not both")
        if self.env is not None and self.data.folders:
            raise ValueError(
                "data: an env is learned by acting, not from logs; leave one of them out"
            )
        if self.env is not None and not self.actor_critic.enabled:
            raise ValueError("actor_critic: acting in an env needs one; leave 'enabled' out")
        if self.env is not None and self.heads.only is not None:
            raise ValueError("heads.only: one head is learned from logs; an env is learned whole")
        acts, taught = self.actor_critic.enabled, self.inverse.demonstrations
        if taught and not (acts and self.heads.only == "reward"):
            raise ValueError(
                "inverse: for a model there is, by acting on it: give heads: {only: reward, "
                "of: BUNDLE} (--only, --of), and leave 'actor_critic.enabled' out"
            )
        if self.inverse.model_fields_set and not taught:
            raise ValueError("inverse: from what? name folders of demonstrations, or leave it out")
        if self.system is not None and "practice" in self.deployment.model_fields_set:
            raise ValueError("deployment.practice: nobody practises on logs; leave it out")
        return self

    def train_config(self) -> TrainConfig:
        """What the trainer is given."""
        d, e, a, le = self.dynamics, self.ensemble, self.actor_critic, self.learning
        model = ModelConfig(
            **d.model_dump(exclude={"physics"}),
            **e.model_dump(),
            encoder=self.encoder.kind,
            corrects=self.encoder.corrects,
            head_units=self.heads.units or 0,
            cost=self.heads.cost,
            reward=self.heads.reward,
        )
        actor = ActorConfig(**a.model_dump(exclude={"enabled"}))
        steps = self.loop.steps
        extra = steps if self.loop.actor_steps is None else self.loop.actor_steps
        return TrainConfig(
            steps=steps,
            actor_steps=extra if a.enabled and self._learns_to_act else 0,
            seed=self.seed,
            **self.sequence.model_dump(),
            **le.model_dump(),
            physics=d.physics,
            model=model,
            actor=actor,
        )

    def acceptance(self) -> Acceptance:
        """What the bundle is asked for."""
        return Acceptance(
            metrics=self.metrics,
            shifts=self.shifts,
            **self.deployment.monitors.model_dump(),
            entities=self.loop.judged,
            ticks=self.loop.ticks,
            seed=self.seed,
        )

    @property
    def _learns_to_act(self) -> bool:
        return self.heads.only is None or bool(self.inverse.demonstrations)

    def only(self) -> Only | None:
        """The head that is learned again; None: everything is learned."""
        head, of = self.heads.only, self.heads.of
        if head is None or of is None:
            return None
        how = InverseConfig(**self.inverse.model_dump(exclude={"demonstrations"}))
        return Only(head, of, self.inverse.demonstrations, how)

    def compute(self) -> Compute:
        """What updates are computed with."""
        return Compute(self.run.device, self.run.precision, self.run.compile)

    def loop_config(self, ticks: int) -> LoopConfig:
        """How acting and learning take turns; `ticks` is the length of an episode."""
        content = self.loop.model_dump(exclude={"actor_steps", "ticks", "copies", "judged"})
        mix = Mix(**self.buffer.model_dump(exclude={"capacity"}))
        return LoopConfig(
            **content,
            ticks=self.loop.ticks or ticks,
            tier=self.deployment.practice,
            capacity=self.buffer.capacity,
            mix=mix,
        )

    def with_options(self, options: Mapping[str, Any]) -> Recipe:
        """With fields set by dotted name, as a command line does; None is not set.

        Raises:
            RecipeError: a value is not allowed there; the message names the field.
        """
        content = self.model_dump(exclude_unset=True)
        for name, value in options.items():
            if value is None:
                continue
            *sections, last = name.split(".")
            part = content
            for section in sections:
                part = part.setdefault(section, {})
            part[last] = value
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            problems = [problem(item, {}, "options", KEY) for item in error.errors()]
            raise RecipeError("\n".join(problems)) from error


def parse_recipe(text: str, name: str = "<workflow>") -> Recipe:
    """The workflow in a YAML text; `name` is what messages call it. Raises `RecipeError`."""
    try:
        document, lines = load_yaml(text, name)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if not isinstance(document, dict):
        raise RecipeError(f"{name}:1: a workflow is a mapping that begins with '{KEY}:'")
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        problems = [problem(item, lines, name, KEY) for item in error.errors()]
        raise RecipeError("\n".join(problems)) from error


def load_recipe(which: str | Path) -> Recipe:
    """A workflow by file, or a shipped one by name. Raises `RecipeError`."""
    path = Path(which)
    if not path.suffix and (SHIPPED / f"{which}.yaml").is_file():
        path = SHIPPED / f"{which}.yaml"
    try:
        return parse_recipe(read_text(path), str(which))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        reason = error.strerror or error
        raise RecipeError(f"{which}: {reason}; a YAML file, or one of {known}") from error
    except ValueError as error:
        raise RecipeError(str(error)) from error


def is_recipe(path: str | Path) -> bool:
    """Whether a file says of itself that it is a workflow."""
    try:
        document, _ = load_yaml(read_text(Path(path)), str(path))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and KEY in document
