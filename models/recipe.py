"""A training workflow: one validated file that says all that decides what is learned.

Every option of `rehearse train` has its place here; what the command line says wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from models.acceptance import Acceptance
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.compute import Compute
from models.deployment import Deployment
from models.evaluation.shifts import Kind
from models.metrics import USUAL
from models.one_head import InverseConfig, Only
from models.online import LoopConfig
from models.recipe_parts import (
    ActorCritic,
    Bounds,
    Buffer,
    Data,
    DynamicsPart,
    Encoder,
    Ensemble,
    Environment,
    Heads,
    Inverse,
    Learning,
    Loop,
    Run,
    Sequence,
)
from models.replay import Mix
from models.train import TrainConfig
from schemas.part import Part
from schemas.yaml_lines import load_yaml, problem, read_text

SHIPPED = Path(__file__).parent / "workflows"
KEY = "workflow"


class RecipeError(ValueError):
    """A workflow that cannot be used; the message names file, line, field and remedy."""


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
