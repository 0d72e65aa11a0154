"""One entity, one sensor, one channel: what the tests of single rules need."""

from collections.abc import Sequence

import numpy as np

from schemas.system import SystemSpec, parse_spec
from streams.align import Aligner

ENTITY = "ant"
MS = 1_000


def spec_of(
    align: str = "latest",
    shape: str = "",
    every: str = "10 ms",
    cohorts: int = 1,
    more: str = "",
    forget: str = "1 s",
) -> SystemSpec:
    """Ticks of 10 ms, lateness 20 ms, maximum age 35 ms; `more` adds sensors."""
    return parse_spec(f"""
system: line
entity: animal
tick: 10 ms
lateness: 20 ms
forget_after: {forget}
cohorts: {cohorts}
sensors:
  one:
    every: {every}
    max_age: 35 ms
    channels:
      x: {{unit: m, range: [-100, 100], align: {align}{shape}}}
{more}
context: [time_of_day]
actions:
  u: {{unit: m, low: -1, high: 1}}
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 5, horizon: 2, iterations: 1}}}}}}
""")


TWO = """
  two:
    every: 10 ms
    max_age: 35 ms
    channels: {y: {unit: m, range: [-100, 100], align: latest}}
"""


def read(
    aligner: Aligner,
    readings: Sequence[tuple[float, float]],
    sensor: str = "one",
    entity: str = ENTITY,
) -> None:
    """Gives (ms, value) readings of one entity in one call."""
    rows = aligner.intern([entity] * len(readings))
    times = np.array([round(ms * MS) for ms, _ in readings])
    values = np.array([[value] for _, value in readings])
    aligner.readings(sensor, rows, times, values)


def mark(aligner: Aligner, ms: float, *sensors: str) -> None:
    """Watermarks on the topics of `sensors` (default: one)."""
    for sensor in sensors or ("one",):
        aligner.watermark(f"line.sensors.{sensor}", round(ms * MS))


def column(align: str, readings: Sequence[tuple[float, float]], end_ms: float) -> list[float]:
    """[ticks 1, 2, …] of channel x, all readings given before the watermark at `end_ms`."""
    aligner = Aligner(spec_of(align))
    read(aligner, readings)
    mark(aligner, end_ms)
    return [float(frame.values[0, 0]) for frame in aligner.close()]
