"""What can differ between a simulator and the real thing: one table, by kind of plant.

Three readers: a spec's `randomise` (draws per entity and episode: Tobin et al. 2017), the changed
plants of an evaluation, and identification, which looks for the values behind a log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np

from infra.plants.base import Floats, PlantError
from schemas.system import SystemSpec

Kind = Literal["mass", "friction", "delay", "physics", "lighting"]
Range = tuple[float, float]
_STREAM: Final = 29  # of the draws, apart from all else that a seed decides
PHYSICS: Final = ("m", "l", "g", "gravity", "masspole", "length", "force_mag", "power")
"""Attributes of Gymnasium's environments that are changed where there are such."""


@dataclass(frozen=True)
class Parameter:
    """A number that a plant can be given, for each entity its own.

    Attributes:
        name: as a spec writes it.
        kind: of change, as an evaluation names it.
        usual: its value where nothing else is said.
        least, most: between which it is looked for.
        step: what it is rounded to, s; 0: not at all.
        changes: what an evaluation tries: a label, and the value.
    """

    name: str
    kind: Kind
    usual: float
    least: float
    most: float
    step: float = 0.0
    changes: tuple[tuple[str, float], ...] = ()


@runtime_checkable
class Variable(Protocol):
    """A plant whose parameters may differ from entity to entity."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What it has, by name."""

    @property
    def values(self) -> Mapping[str, Floats]:
        """`[E]` of each parameter, as it is now."""

    def vary(self, values: Mapping[str, Floats]) -> None:
        """Gives the entities other values `[E]`, from the next step on."""

    def place(self, channels: Mapping[str, Floats], past: Floats) -> None:
        """Puts every entity where an observation says it is, as if it had been acted on before.

        Args:
            channels: `[E, size]` of each channel.
            past: `[K, E, A]` what it was told at the ticks before, the last one first.

        Raises:
            PlantError: the observation does not say where that is.
        """


def nav2d_parameters(step_s: float, camera: bool = False) -> dict[str, Parameter]:
    """Those of `Nav2d`.

    Args:
        step_s: its step of integration, s.
        camera: whether it has one, see `has_camera`; then there is light.
    """
    masses = (("mass × 1.5", 1.5), ("mass × 0.67", 0.67))
    return _by_name(
        Parameter("mass", "mass", 1.0, 0.2, 5.0, changes=masses),
        Parameter("drag", "friction", 0.1, 0.0, 3.0, changes=(("drag 0.1 → 0.6 1/s", 0.6),)),
        Parameter("action_delay", "delay", 0.0, 0.0, 1.0, step_s, (("actions 300 ms late", 0.3),)),
        *(_LIGHT if camera else ()),
    )


_LIGHT: Final = (  # see `infra.plants.views.lit`
    Parameter(
        *("light", "lighting", 1.0, 0.0, 10.0),
        changes=(("an eighth of the light", 0.125), ("half the light", 0.5), ("light × 2", 2.0)),
    ),
    Parameter("lamp", "lighting", 0.0, -1.0, 1.0, changes=(("a lamp from one side", 0.8),)),
    Parameter("glare", "lighting", 0.0, 0.0, 1.0, changes=(("glare on the lens", 1.0),)),
)
LIGHT: Final = tuple(one.name for one in _LIGHT)
"""In the order of `infra.plants.views.LIGHT`."""


def has_camera(spec: SystemSpec) -> bool:
    """Whether some sensor's readings are encoded from pictures."""
    return any(raw.kind == "jpeg" for _, raw in spec.perceived)


def gym_parameters(
    attributes: Mapping[str, float], slowed: bool, step_s: float
) -> dict[str, Parameter]:
    """Those of a Gymnasium environment.

    Args:
        attributes: its numbers; those of `PHYSICS` count.
        slowed: whether it is known which of its numbers are speeds.
        step_s: its own time step, s.
    """
    found = [
        Parameter(name, "physics", v, v / 5, v * 5, changes=((f"{name} × 1.5", 1.5 * v),))
        for name, v in ((name, attributes.get(name)) for name in PHYSICS)
        if v
    ]
    if slowed:
        found.append(Parameter("friction", "friction", 0.0, 0.0, 3.0))
    return _by_name(*found, Parameter("action_delay", "delay", 0.0, 0.0, 10 * step_s, step_s))


def _by_name(*found: Parameter) -> dict[str, Parameter]:
    return {one.name: one for one in found}


def checked(ranges: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Range]:
    """Ranges as a spec or a caller gives them.

    Raises:
        PlantError: no such parameter, or no range of finite numbers from low to high.
    """
    made = {}
    for name, given in ranges.items():
        if name not in known:
            there = ", ".join(known)
            raise PlantError(f"randomise: this plant has no parameter {name!r}; it has {there}")
        if not isinstance(given, (list, tuple)) or len(given) != 2 or not all(map(_number, given)):
            raise PlantError(f"randomise.{name}: two numbers are needed, as [0.7, 1.5]")
        low, high = float(given[0]), float(given[1])
        if low > high or low < min(0.0, known[name].least):
            raise PlantError(f"randomise.{name}: from {low:g} to {high:g} is no range of it")
        if known[name].least > 0.0 and low <= 0.0:
            raise PlantError(f"randomise.{name}: only values above 0 mean something")
        made[name] = (low, high)
    return made


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def draw(ranges: Mapping[str, Range], seed: int, entity: int, episode: int) -> dict[str, float]:
    """The values of one entity's episode, evenly from their ranges.

    They depend on nothing but the arguments: not on how many entities there are.
    """
    rng = np.random.default_rng([seed, _STREAM, entity, episode])
    return {name: float(rng.uniform(*ranges[name])) for name in sorted(ranges)}


def draws(
    ranges: Mapping[str, Range], seed: int, entities: int, episode: int = 0
) -> dict[str, Floats]:
    """`[E]` of each parameter that has a range; see `draw`."""
    each = [draw(ranges, seed, entity, episode) for entity in range(entities)]
    return {name: np.array([one[name] for one in each]) for name in sorted(ranges)}
