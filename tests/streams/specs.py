"""Small systems for tests of streams: two services or robots, one sensor, topics of their own."""

from __future__ import annotations

from schemas.messages import Action, action_id
from schemas.system import SHIPPED, SystemSpec, parse_spec

SMALL = """
system: {system}
entity: tank
tick: 1 s
lateness: 100 ms
cohorts: 2
sensors:
  level:
    time: {{field: at, unit: ms}}
    every: 500 ms
    max_age: 5 s
    channels:
      depth: {{field: d, unit: m, range: [0, 10], align: mean}}
      flow: {{unit: m/s, shape: [2], range: [-1, 1]}}
actions:
  valve: {{unit: "1", low: 0, high: 1, fallback: 0.25}}
  pumps: {{unit: pumps, kind: integer, low: 0, high: 4}}
reward: "-abs(depth - 5) - 0.1 * pumps"
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 8, horizon: 2, iterations: 1}}}}}}
"""


def small_spec(system: str = "tanks") -> SystemSpec:
    """Two actuators: a valve with a fallback of its own, and pumps without one."""
    return parse_spec(SMALL.format(system=system), "small.yaml")


def shipped_spec(name: str, system: str) -> SystemSpec:
    """A shipped spec under another system name, so that its topics are its own."""
    text = (SHIPPED / f"{name}.yaml").read_text()
    return parse_spec(text.replace(f"system: {name}", f"system: {system}"), f"{name}.yaml")


def action(
    spec: SystemSpec,
    entity: str,
    tick: int,
    *values: float,
    valid_us: int = 1_500_000,
    mode: int = 0,
) -> Action:
    """An action as a worker sends it, valid for `valid_us` from its tick on."""
    time_us = spec.epoch_us + tick * spec.period_us
    return Action(
        id=action_id(spec.system, entity, tick),
        system=spec.system,
        entity=entity,
        tick=tick,
        time=time_us,
        values=dict(zip(spec.action_columns, values, strict=True)),
        valid_until=time_us + valid_us,
        mode=mode,
        reasons=0,
    )
