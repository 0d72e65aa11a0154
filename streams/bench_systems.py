"""The systems that `rehearse bench latency` and `bench decide` run: specs, and who decides in them.

A model belongs to one interface, which names the tick. To time nav2d's actor in fleets that tick at
other rates, its graphs are sealed again under the other interface: the arithmetic is the same, and
what it would say about such robots is not looked at.
"""

import json
import shutil
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from planner.library import SHIPPED
from planner.manifest import MANIFEST, seal
from schemas.system import SystemSpec, parse_spec

_HEAD: Final = """
system: {system}
entity: device
tick: {period}
lateness: {lateness}
forget_after: {forget}
cohorts: {cohorts}
sensors:{sensors}
"""
_SENSOR: Final = """
  {name}:
    time: {{field: ts, unit: us}}
    every: {period}
    max_age: 10 s
    channels:{channels}"""
_SCALAR: Final = '\n      {name}: {{unit: "1", range: [-20, 20]}}'
_PAIR: Final = "\n      {name}: {{unit: {unit}, shape: [2], range: [-20, 20]}}"
_SETTING: Final = """
actions:
  setting: {unit: "1", low: 0, high: 1}
fallback: {kind: value}
"""
_NAV2D: Final = """
actions:
  acceleration: {unit: m/s², kind: continuous, shape: [2], low: -1, high: 1, fallback: 0}
reward: >-
  -sqrt((position[0] - goal[0]) * (position[0] - goal[0])
  + (position[1] - goal[1]) * (position[1] - goal[1]))
constraints:
  arena: {holds: "max(abs(position[0]), abs(position[1])) <= 15", kind: soft}
fallback: {kind: brake, velocity: velocity, gain: 2.0}
"""
# No time to plan in: the actor answers, where there is one, else the fallback.
_BUDGET: Final = """
budget:
  deadline: 1 us
  tiers: {one: {candidates: 5, horizon: 1, iterations: 1}}
"""
_PARTS: Final = (("position", "m"), ("velocity", "m/s"), ("goal", "m"))


class Case(NamedTuple):
    """A fleet: `entities` with `sensors` each, `hz` readings a second of each and as many ticks."""

    entities: int
    sensors: int
    hz: int
    cohorts: int
    actor: bool

    @property
    def period_us(self) -> int:
        """Microseconds between ticks."""
        return 1_000_000 // self.hz

    @property
    def readings_per_s(self) -> int:
        """Of all sensors."""
        return self.entities * self.sensors * self.hz


CASES: Final[dict[str, Case]] = {
    "200x5x10": Case(200, 5, 10, 1, actor=False),
    "200x3x10": Case(200, 3, 10, 1, actor=True),
    "2000x1x2": Case(2_000, 1, 2, 4, actor=True),
    "10000x1x1": Case(10_000, 1, 1, 16, actor=True),
}
"""By name: entities × sensors × rate. Without an actor the fallback decides, without a model."""


def make_system(case: Case, name: str, folder: Path) -> tuple[SystemSpec, Path, tuple[Path, ...]]:
    """The spec of a case as system `name`, its file in `folder`, and the bundle that acts."""
    text = spec_text(case, name)
    file = folder / "spec.yaml"
    file.write_text(text)
    spec = parse_spec(text, str(file))
    if not case.actor:
        return spec, file, ()
    bundle = folder / "bundle"
    sealed_for(spec, SHIPPED / "nav2d", bundle)
    return spec, file, (bundle,)


def spec_text(case: Case, name: str) -> str:
    """YAML; a tick may wait for half its period, and who is silent for three has left."""
    period = f"{case.period_us} us"
    head = _HEAD.format(
        system=name,
        period=period,
        lateness=f"{case.period_us // 2} us",
        forget=f"{max(1_000_000, 3 * case.period_us)} us",
        cohorts=case.cohorts,
        sensors="".join(
            _SENSOR.format(name=sensor, period=period, channels=channels)
            for sensor, channels in _sensors(case).items()
        ),
    )
    return head + (_NAV2D if case.actor else _SETTING) + _BUDGET


def _sensors(case: Case) -> dict[str, str]:
    """Sensor → its channels; those of nav2d are dealt out to one sensor or to three."""
    if not case.actor:
        return {f"s{i}": _SCALAR.format(name=f"v{i}") for i in range(case.sensors)}
    parts = [_PAIR.format(name=name, unit=unit) for name, unit in _PARTS]
    if case.sensors == 1:
        return {"state": "".join(parts)}
    return {name: part for (name, _), part in zip(_PARTS, parts, strict=True)}


def standing(spec: SystemSpec, entities: int) -> dict[str, npt.NDArray[np.float64]]:
    """[entities, size] by channel: what each entity says all the time.

    Robots stand at their goals, so that what their model expects of them is what comes: no belief
    is anchored, and the actor answers for all.
    """
    rng = np.random.default_rng(0)
    place = rng.uniform(-5, 5, (entities, max(c.size for c in spec.channels))).round(4)
    return {c.name: place[:, : c.size] * (c.name != "velocity") for c in spec.channels}


def sealed_for(spec: SystemSpec, source: Path, folder: Path) -> None:
    """Copies the graphs of bundle `source` into `folder`, as if made for `spec`."""
    folder.mkdir()
    for graph in source.glob("*.onnx"):
        shutil.copy(graph, folder / graph.name)
    content = json.loads((source / MANIFEST).read_text())
    for field in ("format", "files", "digest"):
        del content[field]
    hashes = {"interface_hash": spec.interface_hash, "objective_hash": spec.objective_hash}
    seal(folder, {**content, **hashes, "system": spec.system})
