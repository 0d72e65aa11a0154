"""The sections of a training workflow: which fields each has, their bounds and defaults."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, model_validator

from infra.plants.gym_envs import CONTROL
from infra.storage import placed
from models.compute import DeviceName, Precision
from models.encoders.vector import EncoderName
from models.forms import FormName
from models.heads import NumberName
from models.metrics import as_mapping, checked_name
from models.one_head import HeadName
from schemas.part import Part
from schemas.spec_parts import Ranges

Bounds = Annotated[
    dict[Annotated[str, AfterValidator(checked_name)], FiniteFloat | None],
    BeforeValidator(as_mapping),
]
"""Names of metrics, with bounds where a bundle has to keep to them; a list of names will do."""


def _placed(value: object) -> object:
    return placed(value) if isinstance(value, str) else value


Where = Annotated[Path | str, BeforeValidator(_placed)]
"""A folder, or the text of a URL."""


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
