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
_CHANNEL: Final = "\n      {name}: {{unit: {unit}, {shape}range: [-20, 20]}}"
_NAV2D: Final = """
actions:
  acceleration: {{unit: m/s², kind: continuous, shape: [2], low: -1, high: 1, fallback: 0}}
reward: -sqrt(({x} - {goal_x}) * ({x} - {goal_x}) + ({y} - {goal_y}) * ({y} - {goal_y}))
constraints:
  arena: {{holds: "max(abs({x}), abs({y})) <= 15", kind: soft}}
fallback: {{kind: brake, velocity: velocity, gain: 2.0}}
"""
# No time to plan in: the actor answers, where there is one, else the fallback.
_BUDGET: Final = """
budget:
  deadline: 1 us
  tiers: {one: {candidates: 5, horizon: 1, iterations: 1}}
"""
_PAIR: Final = "shape: [2], "
_WHOLE: Final = (("position", "m", _PAIR), ("velocity", "m/s", _PAIR), ("goal", "m", _PAIR))
# The same six numbers in the same order, so that the same graphs fit.
_SPLIT: Final = (
    ("position_x", "m", ""),
    ("position_y", "m", ""),
    ("velocity", "m/s", _PAIR),
    ("goal_x", "m", ""),
    ("goal_y", "m", ""),
)


class Case(NamedTuple):
    """A fleet: `entities` with `sensors` each, `hz` readings a second of each and as many ticks."""

    entities: int
    sensors: int
    hz: int
    cohorts: int

    @property
    def period_us(self) -> int:
        """Microseconds between ticks."""
        return 1_000_000 // self.hz

    @property
    def readings_per_s(self) -> int:
        """Of all sensors."""
        return self.entities * self.sensors * self.hz


CASES: Final[dict[str, Case]] = {
    "200x5x10": Case(200, 5, 10, 1),
    "200x3x10": Case(200, 3, 10, 1),
    "2000x1x2": Case(2_000, 1, 2, 4),
    "10000x1x1": Case(10_000, 1, 1, 16),
}
"""By name: entities × sensors × rate."""


def make_system(case: Case, name: str, folder: Path) -> tuple[SystemSpec, Path, Path]:
    """The spec of a case as system `name`, its file in `folder`, and the bundle that acts."""
    text = spec_text(case, name)
    file = folder / "spec.yaml"
    file.write_text(text)
    spec = parse_spec(text, str(file))
    bundle = folder / "bundle"
    sealed_for(spec, SHIPPED / "nav2d", bundle)
    return spec, file, bundle


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
    numbers = [f"{name}[{i}]" for name in ("position", "goal") for i in (0, 1)]
    if case.sensors == len(_SPLIT):
        numbers = [number.replace("[0]", "_x").replace("[1]", "_y") for number in numbers]
    x, y, goal_x, goal_y = numbers
    return head + _NAV2D.format(x=x, y=y, goal_x=goal_x, goal_y=goal_y) + _BUDGET


def _sensors(case: Case) -> dict[str, str]:
    """Sensor → its channels: nav2d's state in one sensor, in three or in five."""
    dealt = _SPLIT if case.sensors == len(_SPLIT) else _WHOLE
    parts = {n: _CHANNEL.format(name=n, unit=unit, shape=shape) for n, unit, shape in dealt}
    if case.sensors == 1:
        return {"state": "".join(parts.values())}
    if case.sensors != len(parts):
        raise ValueError(f"{case.sensors} sensors: nav2d's state is dealt out to 1, 3 or 5")
    return parts


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
    seal(folder, {**content, **hashes, "columns": list(spec.columns), "system": spec.system})
