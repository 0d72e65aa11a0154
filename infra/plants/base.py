"""What every plant offers: `reset`, `step` and `score`, in readings per tick and without Kafka."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol, get_args, get_type_hints, runtime_checkable

import numpy as np
import yaml
from numpy.typing import NDArray

from schemas.clock import parse_duration
from schemas.system import SystemSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Where each kind of plant lives, and its class; loaded when asked for, as numba takes seconds.
KINDS = {
    "cluster": ("infra.plants.cluster", "Cluster"),
    "nav2d": ("infra.plants.nav2d", "Nav2d"),
    "gym": ("infra.plants.gym", "GymPlant"),
}


class PlantError(ValueError):
    """A plant that cannot be made or stepped as asked; the message says what to change."""


@dataclass(frozen=True)
class SensorBatch:
    """`n` readings of one sensor, in the order in which they are sent.

    `entity` `[n]` indexes the plant's entities, `time_us` `[n]` is the event time in microseconds,
    `values` maps each channel to `[n]`, or `[n, size]` for a vector; NaN is an empty reading.
    `crowd` `[n, most, fields]` is what is seen of others where that is what the values are encoded
    from; NaN: there is none. `light` `[n, 3]` is what a picture is taken in, as
    `infra.plants.views.LIGHT` has it, where the values are encoded from pictures.
    """

    sensor: str
    entity: NDArray[np.int32]
    time_us: Ints
    values: dict[str, Floats]
    crowd: Floats | None = None
    light: Floats | None = None

    def __len__(self) -> int:
        return int(self.time_us.size)

    def take(self, index: NDArray[Any]) -> SensorBatch:
        """The readings that `index` (positions or a mask) selects, in that order."""
        values = {name: value[index] for name, value in self.values.items()}
        crowd, light = (None if x is None else x[index] for x in (self.crowd, self.light))
        entity, time_us = self.entity[index], self.time_us[index]
        return SensorBatch(self.sensor, entity, time_us, values, crowd, light)


@dataclass(frozen=True)
class Sample:
    """What a plant shows from one tick to the next.

    `batches` are the readings in (time of `tick - 1`, time of `tick`]. `reward` and `done` `[E]`
    belong to the transition that ends at `tick`; `outcomes` are the plant's own labels `[E]`.
    """

    tick: int
    batches: tuple[SensorBatch, ...]
    reward: Floats
    done: NDArray[np.bool_]
    outcomes: dict[str, Floats]


class Plant(Protocol):
    """A simulator of E entities that answers an action with readings, deterministic in its seed."""

    @property
    def spec(self) -> SystemSpec:
        """The system that it simulates."""

    @property
    def entities(self) -> tuple[str, ...]:
        """The names of the entities, sorted; readings and actions follow this order."""

    @property
    def version(self) -> str:
        """Changes whenever the same seed and actions give different readings."""

    @property
    def ticks(self) -> int | None:
        """Transitions in an episode or trace; None if it goes on for ever."""

    def reset(self, seed: int) -> Sample:
        """Begins anew; gives the readings up to the first tick."""

    def step(self, action: Floats) -> Sample:
        """Simulates one tick under `action` `[E, A]`, in force from now to the next tick."""

    def score(self) -> dict[str, float]:
        """What has been reached since `reset`."""


@runtime_checkable
class Restorable(Protocol):
    """A plant that can be taken back: the same actions then give the same readings again."""

    def snapshot(self) -> Any:
        """All that what comes next depends on, the noise to come included."""

    def restore(self, state: Any) -> None:
        """Goes back to a snapshot, which may be used again."""


@runtime_checkable
class Branching(Protocol):
    """A plant whose entities can be copied, to try in each copy what another action does."""

    def branch(self, index: Ints) -> Plant:
        """A plant of other entities, the i-th as entity `index[i]` is now, where possible without
        noise."""


def make_plant(spec: SystemSpec, **options: Any) -> Plant:
    """The plant that `spec.plant` names; `options` win over its parameters there.

    With the option `faults`, a mapping from sensor to `Faults`, its sensors are degraded. With
    `randomise`, a mapping from parameter to range, each entity has its own in each episode; a
    parameter that `options` give a value has that one.

    Raises:
        PlantError: the spec names no plant, or an option does not exist or cannot be used.
    """
    plant, faults = sound_plant(spec, options)
    return degraded(plant, faults)


def sound_plant(
    spec: SystemSpec, options: Mapping[str, Any]
) -> tuple[Plant, Mapping[str, Any] | None]:
    """The plant of `make_plant` with sensors that are not degraded, and what was to be `faults`."""
    if spec.plant is None:
        raise PlantError(f"{spec.system}: the spec names no plant; add 'plant: {{kind: ...}}'")
    module, name = KINDS[spec.plant.kind]
    build = getattr(importlib.import_module(module), name)
    params: dict[str, Any] = {"randomise": spec.plant.randomise, **spec.plant.params, **options}
    faults = params.pop("faults", None)
    fixed = {**options, **dict(options.get("set") or {})}
    ranges = params.pop("randomise", None) or {}
    if not isinstance(ranges, Mapping):
        raise PlantError("option randomise: a mapping to ranges is needed, as {mass: [0.7, 1.5]}")
    drawn = {name: given for name, given in ranges.items() if name not in fixed}
    params |= {"randomise": drawn} if drawn else {}
    plant: Plant = build(spec, **params)
    return plant, faults


def degraded(plant: Plant, faults: Mapping[str, Any] | None) -> Plant:
    """The plant with `faults` by sensor, where there are any."""
    if not faults:
        return plant
    made: Plant = importlib.import_module("infra.plants.degrade").Degraded(plant, faults)
    return made


def check_options(plant: str, kind: type, options: Mapping[str, Any]) -> None:
    """Holds `options` to the fields of a dataclass and their kinds: whole and other numbers.

    Raises:
        PlantError: an option does not exist, or is of another kind.
    """
    known = get_type_hints(kind)
    for name, value in options.items():
        if name not in known:
            raise PlantError(f"{plant} has no option {name!r}; it has {', '.join(sorted(known))}")
        kinds = {known[name], *get_args(known[name])}
        wanted = "a whole number" if int in kinds else "a number" if float in kinds else None
        numbers = Integral if int in kinds else Real
        if wanted is None or (value is None and type(None) in kinds):
            continue
        if isinstance(value, bool) or not isinstance(value, numbers) or math.isnan(value):
            raise PlantError(f"option {name}: {wanted} is needed, not {value!r}")


def option_value(text: str) -> Any:
    """The value of an option that a command line gives: a number, or YAML such as `{m: 1.5}`.

    Raises:
        PlantError: it is neither.
    """
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlantError(f"{text!r}: not YAML: {error}") from error


def seconds(value: str | float) -> float:
    """Seconds of a duration such as `"30 s"`, or of a plain number of seconds."""
    return parse_duration(value) / 1e6 if isinstance(value, str) else float(value)


def checked_action(action: Floats, shape: tuple[int, int]) -> Floats:
    """`action` as float64 `[E, A]`.

    Raises:
        PlantError: the shape is another, or something is not finite.
    """
    array = np.asarray(action, dtype=np.float64)
    if array.shape != shape:
        raise PlantError(f"the action has shape {array.shape}, the plant needs {shape}")
    if not np.isfinite(array).all():
        entity = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise PlantError(f"the action of entity {entity} is not finite; send the last or safe one")
    return array


def readings(
    sensor: str, times_us: Ints, values: Mapping[str, Floats], entities: int
) -> SensorBatch:
    """One batch from values `[times, E]` or `[times, E, size]`: by time, then by entity."""
    entity = np.tile(np.arange(entities, dtype=np.int32), times_us.size)
    flat = {name: v.reshape(times_us.size * entities, *v.shape[2:]) for name, v in values.items()}
    return SensorBatch(sensor, entity, np.repeat(times_us, entities), flat)


def stamps(tick: int, period_us: int, every_us: int) -> Ints:
    """Times of a sensor in (tick - 1, tick]: multiples of `every_us` since tick 0, in us."""
    end = tick * period_us
    return np.arange((end - period_us) // every_us + 1, end // every_us + 1) * every_us


def names(stem: str, count: int) -> tuple[str, ...]:
    """`count` entity names with as many digits as needed, so that they sort by number."""
    digits = max(2, len(str(count - 1)))
    return tuple(f"{stem}-{i:0{digits}d}" for i in range(count))


def seeds(seed: int, *path: int) -> Iterator[int]:
    """Independent 64-bit seeds of the stream that `path` (of a fixed length) names under `seed`."""
    sequence = np.random.SeedSequence([seed, *path])
    return iter(int(word) for word in sequence.generate_state(4, np.uint64))
