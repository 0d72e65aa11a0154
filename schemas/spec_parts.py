"""The parts of a system spec, as pydantic models: sensors, channels, actions, budget, gate."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    field_serializer,
    model_validator,
)

from schemas.formats import Format, JsonFormat, RawFormat, shortly
from schemas.part import Duration, Name, Part, parsed_duration
from schemas.perceive import RawInput

Align = Literal["latest", "linear", "mean", "sum", "max", "count"]


def _size(shape: Any) -> Any:
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], int):
        return shape[0]
    raise ValueError("write the length of the vector in brackets, like [2]")


Size = Annotated[int, BeforeValidator(_size), Field(ge=1, le=4096)]


def flat_names(name: str, size: int | None) -> tuple[str, ...]:
    """Flat column names of a channel or action: `name`, or `name[0]`, `name[1]`, … for a vector."""
    return (name,) if size is None else tuple(f"{name}[{i}]" for i in range(size))


def _discipline(value: Any) -> Any:
    return None if value is False else parsed_duration(value)


class TimeSpec(Part):
    """Where a reading's event time stands in its payload, in what unit, and whose clock says it.

    `discipline`: by how much a device's clock may be off, the smallest transit delay included,
    until its times are corrected under the wall clock; `off`: they are taken as they are.
    """

    field: str = "ts"
    unit: Literal["s", "ms", "us", "ns"] = "s"
    discipline_us: Annotated[int | None, BeforeValidator(_discipline)] = Field(
        default=20_000, gt=0, alias="discipline", validate_default=False
    )

    @field_serializer("discipline_us")
    def _plain_discipline(self, value: int | None) -> int | Literal[False]:
        return False if value is None else value

    @property
    def microseconds(self) -> float:
        """Microseconds per unit."""
        return {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[self.unit]


class ChannelSpec(Part):
    """One aligned observation of an entity; a vector where `shape` is given."""

    name: str = ""
    field: str = ""
    unit: str
    shape: Size | None = None
    range: tuple[float, float]
    align: Align = "latest"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.range[0] < self.range[1]:
            raise ValueError(
                f"range {list(self.range)} is empty: write [low, high] with low < high"
            )
        return self

    @property
    def size(self) -> int:
        """Number of components; 1 for a scalar."""
        return self.shape or 1

    @property
    def low(self) -> float:
        """Lower end of the range, in the channel's unit."""
        return self.range[0]

    @property
    def high(self) -> float:
        """Upper end of the range, in the channel's unit."""
        return self.range[1]

    @property
    def columns(self) -> tuple[str, ...]:
        """Flat column names."""
        return flat_names(self.name, self.shape)


class SensorSpec(Part):
    """One source of readings: its topic, codec, clock, rate, and channels.

    With `perceive`, an encoder makes the readings of raw messages; their codec follows from that.
    """

    name: str = ""
    topic: str = ""
    perceive: RawInput | None = Field(default=None, exclude_if=lambda value: value is None)
    codec: Format = JsonFormat()
    time: TimeSpec = TimeSpec()
    every_us: Duration = Field(alias="every")
    max_age_us: Duration = Field(alias="max_age")
    channels: dict[Name, ChannelSpec] = Field(min_length=1)

    @model_validator(mode="after")
    def _perceived(self) -> Self:
        if self.perceive is None:
            return self
        if self.codec not in (JsonFormat(), self.embedding_codec):
            raise ValueError("what an encoder makes has a codec of its own: leave out `codec`")
        fields = list(self.embedding_codec.fields)
        if len(fields) != len(self.channels) + 1:
            raise ValueError("give time and channels different fields: an encoder fills each once")
        head = self.perceive.head_type
        if self.time.field in self.perceive.head and head[self.time.field].kind not in "iuf":
            raise ValueError(f"{self.time.field!r} in `head` is the time: one number, e.g. <i8")
        return self

    @property
    def embedding_codec(self) -> RawFormat:
        """Of readings that an encoder makes: the time as in the raw message, then the channels."""
        number = "<f8" if self.time.unit in ("s", "ms") else "<i8"
        vectors = {
            channel.field or name: "<f4" if channel.shape is None else f"({channel.shape},)<f4"
            for name, channel in self.channels.items()
        }
        return RawFormat(fields={self.time.field: number, **vectors})

    @field_serializer("codec")
    def _codec(self, codec: Part) -> str | dict[str, Any]:
        return shortly(codec)


class RateLimit(Part):
    """The largest change per tick, up and down, in the action's unit."""

    up: float = Field(gt=0)
    down: float = Field(gt=0)


class AccelLimit(Part):
    """The largest change per tick of the change per tick, up and down, in the action's unit."""

    up: float = Field(gt=0)
    down: float = Field(gt=0)


class ActionSpec(Part):
    """One actuator of an entity; a vector where `shape` is given."""

    name: str = ""
    unit: str
    kind: Literal["continuous", "integer", "categorical"] = "continuous"
    shape: Size | None = None
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    rate: RateLimit | None = None
    # Left out where there is none, so that older specs keep their hash.
    accel: AccelLimit | None = Field(default=None, exclude_if=lambda value: value is None)
    fallback: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.fallback is not None and not self.low <= self.fallback <= self.high:
            raise ValueError(f"fallback {self.fallback} is outside [{self.low}, {self.high}]")
        whole = self.low.is_integer() and self.high.is_integer()
        if self.kind != "continuous" and not whole:
            raise ValueError(f"a {self.kind} action needs whole numbers as low and high")
        if self.accel is not None and self.kind != "continuous":
            least = min(self.accel.up, self.accel.down)
            if least < 1:  # it would stand, or go on as it goes, for ever: the fallback, too
                raise ValueError(f"a change of whole numbers can never change by {least}: take 1")
        return self

    @property
    def size(self) -> int:
        """Number of components; 1 for a scalar."""
        return self.shape or 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Flat column names."""
        return flat_names(self.name, self.shape)

    @property
    def safe(self) -> float:
        """The value to send when nothing better is known (zero is not always safe)."""
        if self.fallback is not None:
            return self.fallback
        return min(max(0.0, self.low), self.high)


class BarrierSpec(Part):
    """How fast the gate lets a constraint's margin shrink: see `schemas.barrier`.

    `next`: what columns are one tick later, as expressions over channels and actions.
    """

    gamma: float = Field(gt=0, le=1)
    next: dict[str, str] = Field(min_length=1)


class ConstraintSpec(Part):
    """A condition on channels and actions; hard ones are enforced by the gate.

    With a `barrier`, the gate enforces that in its place.
    """

    holds: str
    kind: Literal["hard", "soft"] = "soft"
    barrier: BarrierSpec | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _enforced(self) -> Self:
        if self.barrier is not None and self.kind != "hard":
            raise ValueError("a barrier is enforced by the gate: write `kind: hard`")
        return self


class FallbackSpec(BaseModel):
    """The verified controller that stands by: its kind and its own parameters."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: Literal["hpa", "pd", "brake", "hold", "value"]

    @property
    def params(self) -> dict[str, Any]:
        """Every field but `kind`."""
        return dict(self.model_extra or {})


COLOUR = 2.0
"""Exponent of the noise's power spectrum along the horizon (iCEM uses 0.25 to 4, by task)."""
PlannerName = Literal["icem", "cem", "mppi"]


class Tier(Part):
    """What one plan may cost: candidates × horizon × iterations, and how it is searched for.

    `colour`: exponent of the noise's power spectrum 1/f^colour along the horizon. Smooth noise
    finds plans that go somewhere; white noise (0) finds those that first push and then brake.
    """

    candidates: int = Field(ge=5, le=65_536)
    horizon: int = Field(ge=1, le=1_000)
    iterations: int = Field(ge=1, le=100)
    elites: int = Field(default=0, ge=0)
    # Left out where it is the usual one, so that older specs keep their hash.
    planner: PlannerName = Field(default="icem", exclude_if=lambda name: name == "icem")
    colour: float = Field(default=COLOUR, ge=0, le=4, exclude_if=lambda colour: colour == COLOUR)

    @model_validator(mode="after")
    def _elites(self) -> Self:
        if self.elites > self.candidates:
            raise ValueError(f"elites {self.elites} are more than candidates {self.candidates}")
        return self

    @property
    def elite_count(self) -> int:
        """Elites per iteration: as given, or a tenth of the candidates."""
        return self.elites or max(2, self.candidates // 10)


class Risk(Part):
    """What a plan is chosen by beside its mean return over members and noise.

    `tail`: only the worst share of the returns counts.
    `spread`: that many standard deviations of the returns are taken off.
    `disagreement`: reward units per unit of the members' disagreement, see `planner.gate`.
    """

    tail: float = Field(default=1.0, gt=0.0, le=1.0)
    spread: float = Field(default=0.0, ge=0.0)
    disagreement: float = Field(default=0.0, ge=0.0)


class BudgetSpec(Part):
    """The deadline of a frame and the tiers to spend it on, shallow to deep.

    `ahead`: how long to go on planning when a frame's actions are out and nobody waits, for the
    ticks to come; less than a tick.
    `caution`: a plan replaces what the actor would do only where it is better by more than this
    many standard deviations of the gain among the members of the ensemble; 0: where it is better.
    `risk`: what is feared beside a low mean return.
    """

    deadline_us: Duration = Field(default=20_000, alias="deadline", validate_default=False)
    ahead_us: Duration | None = Field(default=None, alias="ahead")
    caution: float = Field(default=0.0, ge=0.0)
    risk: Risk = Field(default=Risk(), exclude_if=lambda risk: risk == Risk())
    tiers: dict[Name, Tier] = Field(min_length=1)


Intervention = Literal[
    "not_finite",
    "shape",
    "uncertain",
    "safety",
    "stale",
    "no_belief",
    "constraint",
    "range",
    "rate",
    "acceleration",
]
"""What the gate does about a learned proposal, by name of its reason (`schemas.codes.Reason`)."""


class LatchSpec(Part):
    """When an entity stays with the fallback: `count` interventions in the last `of` decisions.

    `on`: the kinds that count. It is re-armed by an operator (`rehearse rearm`), or where `quiet`
    is given, when nothing counted for that long.
    """

    on: tuple[Intervention, ...] = Field(
        default=("not_finite", "shape", "uncertain", "safety"), min_length=1
    )
    count: int = Field(default=1, ge=1)
    of: int = Field(default=1, le=62)  # bits of an integer
    quiet_us: Duration | None = Field(default=None, alias="quiet")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.count > self.of:
            raise ValueError(f"count {self.count} of the last {self.of} cannot be: raise `of`")
        if len(set(self.on)) < len(self.on):
            raise ValueError("name each kind in `on` once")
        return self


class CriticSpec(Part):
    """How likely a broken constraint the learned critic may foresee within so many ticks."""

    max_risk: float = Field(gt=0, lt=1)
    ticks: int = Field(default=1, ge=1, le=1_000)


class GateSpec(Part):
    """Limits of the gate; `max_uncertainty` counts in usual spreads of channels: `planner.gate`."""

    max_uncertainty: float | None = Field(default=None, gt=0)
    stale_after_us: Duration | None = Field(default=None, alias="stale_after")
    critic: CriticSpec | None = Field(default=None, exclude_if=lambda value: value is None)
    latch: LatchSpec | None = Field(default=None, exclude_if=lambda value: value is None)


class ExploreSpec(Part):
    """Deliberate variation of the fallback's actions inside the envelope, so that logs show causes.

    In each stretch of `hold` ticks an entity's action is shifted with probability `share`, by a
    normal deviate of `spread` × half the range that one tick may cover.
    """

    share: float = Field(default=0.5, gt=0, le=1)
    hold: int = Field(default=8, ge=1)
    spread: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)


def _rising(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError("write the range from low to high, like [0.7, 1.5]")
    return given


Ranges = dict[Name, Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]]
"""From low to high, by parameter of a plant (`infra.plants.parameters`)."""


class PlantSpec(BaseModel):
    """The simulator that may stand in for the real thing, with its own parameters.

    `randomise` gives parameters a range, from which each entity's is drawn in each episode.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: Literal["cluster", "nav2d", "gym"]
    # Left out where it is empty, so that older specs keep their hash.
    randomise: Ranges = Field(default={}, exclude_if=lambda ranges: not ranges)

    @property
    def params(self) -> dict[str, Any]:
        """Every field but `kind` and `randomise`."""
        return dict(self.model_extra or {})
