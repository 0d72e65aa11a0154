"""The system spec: one YAML file that says what is controlled, what it sees, and what is wanted."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.barrier import barrier
from schemas.expression import Expression, ExpressionError
from schemas.part import Duration, Name
from schemas.perceive import RawInput
from schemas.spec_parts import (
    ActionSpec,
    BudgetSpec,
    ChannelSpec,
    ConstraintSpec,
    ExploreSpec,
    FallbackSpec,
    GateSpec,
    PlantSpec,
    SensorSpec,
    flat_names,
)
from schemas.yaml_lines import line_of, load_yaml, problem, read_text

SHIPPED = Path(__file__).parent / "systems"
Context = Literal["time_of_day", "day_of_week"]
FloatArray = npt.NDArray[np.float64]


class SpecError(ValueError):
    """A spec that cannot be used; each line of the message names file, line, field and remedy."""


class SystemSpec(BaseModel):
    """What is controlled. Read it with `load_spec`; see the shipped `schemas/systems/*.yaml`.

    O is the number of flat observation columns (`len(columns)`), A that of flat action columns.
    Times are microseconds. Reward, constraints and termination of the transition from tick k to k+1
    are evaluated on the channels of tick k+1 and the action that was in force in between.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    system: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=100)
    entity: Name = "entity"
    period_us: Duration = Field(alias="tick")
    epoch_us: int = Field(default=0, alias="epoch")
    lateness_us: Duration = Field(default=1_000_000, alias="lateness")
    forget_us: Duration = Field(default=600_000_000, alias="forget_after")
    cohorts: int = Field(default=16, ge=1, le=65_536)
    sensors: dict[Name, SensorSpec] = Field(min_length=1)
    context: tuple[Context, ...] = ()
    actions: dict[Name, ActionSpec] = Field(min_length=1)
    reward_text: str | None = Field(default=None, alias="reward")
    constraint_texts: dict[Name, ConstraintSpec] = Field(default={}, alias="constraints")
    termination_text: str | None = Field(default=None, alias="termination")
    fallback: FallbackSpec
    budget: BudgetSpec
    gate: GateSpec = GateSpec()
    explore: ExploreSpec | None = None
    plant: PlantSpec | None = None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields; what is derived from them is derived anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, sensor in self.sensors.items():
            channels = {
                key: channel.model_copy(update={"name": key, "field": channel.field or key})
                for key, channel in sensor.channels.items()
            }
            topic = sensor.topic or f"{self.system}.sensors.{name}"
            update: dict[str, Any] = {"name": name, "topic": topic, "channels": channels}
            if sensor.perceive is not None:
                raw = sensor.perceive.topic or f"{self.system}.raw.{name}"
                update["perceive"] = sensor.perceive.model_copy(update={"topic": raw})
                update["codec"] = sensor.embedding_codec
            self.sensors[name] = sensor.model_copy(update=update)
        for name, action in self.actions.items():
            self.actions[name] = action.model_copy(update={"name": name})
        self._reject_repeated_names()
        self._reject_shared_topics()
        return self

    def _reject_repeated_names(self) -> None:
        names = [*(c.name for c in self.channels), *self.context, *self.actions]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)}: name each channel and action differently")

    def _reject_shared_topics(self) -> None:
        topics = [sensor.topic for sensor in self.sensors.values()]
        for sensor, raw in self.perceived:
            if topics.count(sensor.topic) > 1 or raw.topic in topics:
                raise ValueError(
                    f"sensor {sensor.name}: what an encoder makes needs a topic of its own, and so "
                    "does what it is made of; name others"
                )

    # what is seen

    @cached_property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Observed channels in the order of the spec, context excluded."""
        return tuple(c for sensor in self.sensors.values() for c in sensor.channels.values())

    @cached_property
    def sensor_of(self) -> tuple[SensorSpec, ...]:
        """The sensor of each of `channels`."""
        return tuple(sensor for sensor in self.sensors.values() for _ in sensor.channels)

    @cached_property
    def perceived(self) -> tuple[tuple[SensorSpec, RawInput], ...]:
        """The sensors whose readings an encoder makes, and of what."""
        sensors = self.sensors.values()
        return tuple((s, s.perceive) for s in sensors if s.perceive is not None)

    @cached_property
    def observed_columns(self) -> tuple[str, ...]:
        """Flat observation columns that sensors fill."""
        return tuple(column for channel in self.channels for column in channel.columns)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The O flat observation columns: observed ones, then sine and cosine of each context."""
        context = (column for name in self.context for column in flat_names(name, 2))
        return (*self.observed_columns, *context)

    @cached_property
    def channel_of_column(self) -> npt.NDArray[np.int64]:
        """[observed columns] index into `channels` of each observed column."""
        sizes = [channel.size for channel in self.channels]
        return np.repeat(np.arange(len(sizes)), sizes)

    # what is done

    @cached_property
    def action_columns(self) -> tuple[str, ...]:
        """The A flat action columns."""
        return tuple(column for action in self.actions.values() for column in action.columns)

    def _per_column(self, values: Iterable[float]) -> FloatArray:
        sizes = [action.size for action in self.actions.values()]
        return np.repeat(np.array(list(values), dtype=np.float64), sizes)

    @cached_property
    def action_low(self) -> FloatArray:
        """[A] in the actions' units."""
        return self._per_column(a.low for a in self.actions.values())

    @cached_property
    def action_high(self) -> FloatArray:
        """[A] in the actions' units."""
        return self._per_column(a.high for a in self.actions.values())

    @cached_property
    def rate_up(self) -> FloatArray:
        """[A] largest rise per tick; infinite where there is no limit."""
        return self._per_column(a.rate.up if a.rate else np.inf for a in self.actions.values())

    @cached_property
    def rate_down(self) -> FloatArray:
        """[A] largest fall per tick; infinite where there is no limit."""
        return self._per_column(a.rate.down if a.rate else np.inf for a in self.actions.values())

    @cached_property
    def accel_up(self) -> FloatArray:
        """[A] largest rise per tick of the change per tick; infinite where there is no limit."""
        return self._per_column(a.accel.up if a.accel else np.inf for a in self.actions.values())

    @cached_property
    def accel_down(self) -> FloatArray:
        """[A] largest fall per tick of the change per tick; infinite where there is no limit."""
        return self._per_column(a.accel.down if a.accel else np.inf for a in self.actions.values())

    @cached_property
    def limits_acceleration(self) -> bool:
        """Whether some actuator has a limit on its acceleration."""
        return any(action.accel is not None for action in self.actions.values())

    @cached_property
    def action_integer(self) -> npt.NDArray[np.bool_]:
        """[A] whether only whole numbers fit."""
        return self._per_column(a.kind != "continuous" for a in self.actions.values()).astype(bool)

    @cached_property
    def action_safe(self) -> FloatArray:
        """[A] the fallback value of each actuator."""
        return self._per_column(a.safe for a in self.actions.values())

    # what is wanted

    @cached_property
    def known_names(self) -> frozenset[str]:
        """The names that an expression may use."""
        return frozenset((*self.columns, *self.action_columns))

    def _parse(self, text: str | None) -> Expression | None:
        return None if text is None else Expression.parse(text, self.known_names)

    @cached_property
    def reward(self) -> Expression | None:
        """Reward of a transition; None where it exists only in logs."""
        return self._parse(self.reward_text)

    @cached_property
    def termination(self) -> Expression | None:
        """True (non-zero) where an episode ends; None where it never does."""
        return self._parse(self.termination_text)

    @cached_property
    def constraints(self) -> dict[str, tuple[Expression, Literal["hard", "soft"]]]:
        """Name → (condition, kind)."""
        parsed = {}
        for name, constraint in self.constraint_texts.items():
            parsed[name] = (Expression.parse(constraint.holds, self.known_names), constraint.kind)
        return parsed

    @cached_property
    def enforced(self) -> dict[str, Expression]:
        """What the gate enforces, by name: hard constraints, or the barriers in their place."""
        return {
            name: self._enforced(name) for name, (_, k) in self.constraints.items() if k == "hard"
        }

    def _enforced(self, name: str) -> Expression:
        given, (holds, _) = self.constraint_texts[name].barrier, self.constraints[name]
        if given is None:
            return holds
        after = {c: Expression.parse(t, self.known_names) for c, t in given.next.items()}
        return barrier(holds, after, given.gamma)

    # shortcuts and hashes

    @property
    def deadline_us(self) -> int:
        """Deadline of a frame, counted from its receipt."""
        return self.budget.deadline_us

    @cached_property
    def interface_hash(self) -> str:
        """Changes with what a bundle was built for: sensors, channels, alignment, tick, actions."""
        actions = {
            name: action.model_dump(exclude={"fallback", "rate", "accel"})
            for name, action in self.actions.items()
        }
        channels = [(c.name, c.unit, c.shape, c.align) for c in self.channels]
        content = [channels, self.context, actions, self.period_us]
        if self.perceived:
            content.append({s.name: raw.essence for s, raw in self.perceived})
        return _digest(content)

    @cached_property
    def objective_hash(self) -> str:
        """Changes with what was optimised: reward, constraints, termination."""
        constraints = {n: (e.canonical, kind) for n, (e, kind) in self.constraints.items()}
        reward, end = (e and e.canonical for e in (self.reward, self.termination))
        return _digest([reward, constraints, end])

    @cached_property
    def spec_hash(self) -> str:
        """Changes with anything in the spec."""
        return _digest(self.model_dump(mode="json"))


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def shipped_systems() -> list[str]:
    """Names of the specs that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def spec_path(name: str | Path) -> Path:
    """The file of a shipped system, or `name` itself where that is a file."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    return SHIPPED / f"{name}.yaml"


def load_spec(name: str | Path) -> SystemSpec:
    """The spec of a shipped system (`autoscale`) or of a YAML file. Raises `SpecError`."""
    path = spec_path(name)
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        shipped = ", ".join(shipped_systems())
        raise SpecError(
            f"{name}: no such spec: give a YAML file, or one of the shipped systems: {shipped}"
        ) from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}; give a YAML file") from error
    except ValueError as error:
        raise SpecError(str(error)) from error
    return parse_spec(text, str(path))


def parse_spec(text: str, name: str = "<spec>") -> SystemSpec:
    """The spec in a YAML text; `name` is what messages call it. Raises `SpecError`.

    Files that it names (schemas) lie beside `name`, or in the present folder.
    """
    try:
        document, lines = load_yaml(text, name)
    except ValueError as error:
        raise SpecError(str(error)) from error
    if not isinstance(document, dict):
        raise SpecError(f"{name}:1: a spec is a mapping that begins with 'system:'")
    try:
        spec = SystemSpec.model_validate(document, context={"folder": Path(name).parent})
    except ValidationError as error:
        problems = [problem(item, lines, name, "spec") for item in error.errors()]
        raise SpecError("\n".join(problems)) from error
    _check_expressions(spec, lines, name)
    return spec


def _check_expressions(
    spec: SystemSpec, lines: dict[tuple[str | int, ...], int], name: str
) -> None:
    texts: list[tuple[tuple[str | int, ...], str | None]] = [
        (("reward",), spec.reward_text),
        (("termination",), spec.termination_text),
    ]
    texts += [(("constraints", n, "holds"), c.holds) for n, c in spec.constraint_texts.items()]
    problems = []

    def told(path: tuple[str | int, ...], reason: object) -> None:
        place = f"{name}:{line_of(path, lines)}: {'.'.join(map(str, path))}"
        problems.append(f"{place}: {reason}")

    for constraint, given in spec.constraint_texts.items():
        for column, text in given.barrier.next.items() if given.barrier else ():
            place = ("constraints", constraint, "barrier", "next", column)
            texts.append((place, text))
            if column not in spec.columns:
                told(place, f"there is no such column; there are {', '.join(spec.columns)}")
    for path, written in texts:
        try:
            spec._parse(written)
        except ExpressionError as error:
            told(path, error)
    if not problems:
        _check_barriers(spec, told)
    if problems:
        raise SpecError("\n".join(problems))


def _check_barriers(
    spec: SystemSpec, told: Callable[[tuple[str | int, ...], object], None]
) -> None:
    for name, given in spec.constraint_texts.items():
        if given.barrier is None:
            continue
        try:
            found = spec._enforced(name)
        except ExpressionError as error:
            told(("constraints", name, "holds"), error)
            continue
        if not found.names & set(spec.action_columns):
            told(("constraints", name, "barrier"), "no action stands in `next`: name one that acts")
