"""The verified controllers that stand by: hpa, pd, brake, hold, value. No model, no optimisation.

Kinds and their parameters in a spec's `fallback`:

- `hpa`: Kubernetes' autoscaler (`planner.hpa`). `capacity` (requests/s per replica, required);
  `target` 0.7; column names `load` "requests", `ready` "ready", `starting` and `missing` (none);
  `action` (the first); `period_s` 15, `window_s` 300, `tolerance` 0.1. Evaluated at every tick, or
  at every period where ticks are shorter; between, the applied value stays. Without a metric (NaN)
  the applied value stays.
- `brake`: acceleration against the velocity, `-gain × velocity`. `velocity` (a channel, default
  "velocity"), `gain` 1. Not knowing the velocity (NaN): the spec's safe value.
- `pd`: proportional and derivative, `kp × (target - position) - kd × velocity`. `position` (a
  channel, default "position"), `target` (a channel or a number, default "goal"), `velocity` (a
  channel, default "velocity"), `kp` 1, `kd` 2 (critically damped where the action is the
  acceleration). Not knowing one of them (NaN): the spec's safe value.
- `hold`: the applied value; not knowing it: the safe value.
- `value`: the safe value of each actuator.

Actuators that a kind says nothing about get their safe value. Answers are in range; the rate
limit is the gate's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.hpa import HpaRule
from schemas.frames import Frame
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
Answer = tuple[F64, F64]


class FallbackError(ValueError):
    """Parameters of a fallback that do not fit the spec; the message names field and remedy."""


def fresh(spec: SystemSpec, count: int) -> F64:
    """[count, W] the state of entities that just joined; W = 0 where the kind has no memory."""
    if spec.fallback.kind == "hpa":
        return hpa_rule(spec).fresh(count)
    return np.zeros((count, 0))


def fallback(spec: SystemSpec, frame: Frame, state: F64) -> Answer:
    """What the spec's fallback does for the E entities of `frame`.

    Args:
        spec: names the kind and its parameters.
        frame: observations and applied actions.
        state: [E,W] from `fresh` or the last call, rows in the frame's order.

    Returns:
        action [E,A] in range, and the next state [E,W].

    Raises:
        FallbackError: the spec's parameters do not fit its columns.
    """
    action, state = _KINDS[spec.fallback.kind](spec, frame, state)
    return np.clip(action, spec.action_low, spec.action_high), state


def check(spec: SystemSpec) -> None:
    """Raises `FallbackError` where the parameters of the spec's fallback do not fit it."""
    if spec.fallback.kind == "hpa":
        hpa_rule(spec)
        _hpa_columns(spec)
    if spec.fallback.kind == "brake":
        _channel_columns(spec, "velocity", "velocity")
    if spec.fallback.kind == "pd":
        _pd_terms(spec)


def hpa_rule(spec: SystemSpec) -> HpaRule:
    """The HPA of `spec`, with the range of its action as minReplicas and maxReplicas."""
    params = spec.fallback.params
    if "capacity" not in params:
        reason = "fallback.capacity: required by kind hpa: requests/s that one replica serves"
        raise FallbackError(reason)
    column = _action_index(spec)
    window = float(params.get("window_s", 300.0)) / (_ticks_per_period(spec) * spec.period_us / 1e6)
    return HpaRule(
        target=float(params.get("target", 0.7)),
        capacity=float(params["capacity"]),
        low=float(spec.action_low[column]),
        high=float(spec.action_high[column]),
        tolerance=float(params.get("tolerance", 0.1)),
        window=max(1, round(window)),
    )


def _ticks_per_period(spec: SystemSpec) -> int:
    period_s = float(spec.fallback.params.get("period_s", 15.0))
    return max(1, round(period_s * 1e6 / spec.period_us))


def _action_index(spec: SystemSpec) -> int:
    name = spec.fallback.params.get("action", spec.action_columns[0])
    return _index(spec.action_columns, name, "fallback.action")


def _index(names: tuple[str, ...], name: Any, field: str) -> int:
    if name not in names:
        raise FallbackError(f"{field}: there is no {name!r}; choose one of {', '.join(names)}")
    return names.index(name)


def _hpa_columns(spec: SystemSpec) -> tuple[int | None, ...]:
    """Columns of load, ready, unready, missing; None where the spec names none."""
    params = spec.fallback.params
    asked = (
        ("load", params.get("load", "requests")),
        ("ready", params.get("ready", "ready")),
        ("starting", params.get("starting")),
        ("missing", params.get("missing")),
    )
    return tuple(
        None if name is None else _index(spec.columns, name, f"fallback.{field}")
        for field, name in asked
    )


def _hpa(spec: SystemSpec, frame: Frame, state: F64) -> Answer:
    column = _action_index(spec)
    action = np.tile(spec.action_safe, (len(frame.entities), 1))
    current = frame.applied[:, column]
    if frame.tick % _ticks_per_period(spec) == 0:
        zeros = np.zeros(len(frame.entities))
        columns = _hpa_columns(spec)
        load, ready, unready, missing = (
            zeros if i is None else frame.values[:, i] for i in columns
        )
        current, state = hpa_rule(spec).step(state, load, ready, unready, missing, current)
    action[:, column] = np.where(np.isnan(current), spec.action_safe[column], current)
    return action, state


def _channel_columns(spec: SystemSpec, field: str, default: str) -> list[int]:
    """Columns of a channel with a component for each action."""
    name = spec.fallback.params.get(field, default)
    channel = next((c for c in spec.channels if c.name == name), None)
    if channel is None or channel.size != len(spec.action_columns):
        have = ", ".join(c.name for c in spec.channels if c.size == len(spec.action_columns))
        size = len(spec.action_columns)
        raise FallbackError(
            f"fallback.{field}: {name!r} is not a channel of size {size}; choose: {have or 'none'}"
        )
    return [spec.columns.index(column) for column in channel.columns]


def _brake(spec: SystemSpec, frame: Frame, state: F64) -> Answer:
    gain = float(spec.fallback.params.get("gain", 1.0))
    action = -gain * frame.values[:, _channel_columns(spec, "velocity", "velocity")]
    return np.where(np.isnan(action), spec.action_safe, action), state


def _gain(spec: SystemSpec, field: str, default: float) -> float:
    """A gain that is a number, and not below 0: a negative one drives away from the target."""
    value = spec.fallback.params.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise FallbackError(f"fallback.{field}: {value!r} is no gain: write a number from 0 on")
    return float(value)


def _pd_terms(spec: SystemSpec) -> tuple[list[int], list[int] | float, list[int], float, float]:
    """Columns of the position, of the target (or its value), of the velocity; both gains."""
    target = spec.fallback.params.get("target", "goal")
    fixed = isinstance(target, int | float) and np.isfinite(target)
    return (
        _channel_columns(spec, "position", "position"),
        float(target) if fixed else _channel_columns(spec, "target", "goal"),
        _channel_columns(spec, "velocity", "velocity"),
        _gain(spec, "kp", 1.0),
        _gain(spec, "kd", 2.0),
    )


def _pd(spec: SystemSpec, frame: Frame, state: F64) -> Answer:
    position, target, velocity, kp, kd = _pd_terms(spec)
    values = frame.values
    wanted = target if isinstance(target, float) else values[:, target]
    action = kp * (wanted - values[:, position]) - kd * values[:, velocity]
    return np.where(np.isnan(action), spec.action_safe, action), state


def _hold(spec: SystemSpec, frame: Frame, state: F64) -> Answer:
    return np.where(np.isnan(frame.applied), spec.action_safe, frame.applied), state


def _value(spec: SystemSpec, frame: Frame, state: F64) -> Answer:
    return np.tile(spec.action_safe, (len(frame.entities), 1)), state


_KINDS: dict[str, Callable[[SystemSpec, Frame, F64], Answer]] = {
    "hpa": _hpa,
    "pd": _pd,
    "brake": _brake,
    "hold": _hold,
    "value": _value,
}
